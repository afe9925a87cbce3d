import threading

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin import apps as admin_apps
from django.core.signals import request_started
from django.db import connections, reset_queries
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

        _stop_idle_work()
        post_migrate.connect(
            give_operations_their_permissions, dispatch_uid="fintech_core.operations"
        )


def _stop_idle_work() -> None:
    """Let no request look for queries that were logged, which only debugging does, nor for an event
    loop, at each of two dozen times that it asks for this thread's connection.

    Django refuses to use a connection where an event loop runs. Where none does, its own storage is
    a `threading.local` as well.
    """
    if not settings.DEBUG:
        request_started.disconnect(reset_queries)
    connections._connections = threading.local()  # type: ignore[attr-defined]  # before any is made


class OperationsAdminConfig(admin_apps.AdminConfig):
    """Django's admin, with our site."""

    default = False
    default_site = "fintech_core.admin_site.OperationsSite"
