from django.apps import AppConfig


class FintechCoreConfig(AppConfig):
    """An installed app, so that the shared kernel's records have tables."""

    name = "fintech_core"
    verbose_name = "Fintech Core"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from fintech_core import checks  # noqa: F401 - registers the system checks
