from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate


class FintechCoreConfig(AppConfig):
    """An installed app, so that the shared kernel's records have tables."""

    name = "fintech_core"
    verbose_name = "Fintech Core"
    default = True
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from fintech_core import checks  # noqa: F401 - registers the system checks
        from fintech_core.operations import give_operations_their_permissions

        post_migrate.connect(
            give_operations_their_permissions, dispatch_uid="fintech_core.operations"
        )


class OperationsAdminConfig(admin_apps.AdminConfig):
    """Django's admin, with our site."""

    default = False
    default_site = "fintech_core.admin_site.OperationsSite"
