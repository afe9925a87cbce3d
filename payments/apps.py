from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from payments import (
            checks,  # noqa: F401 - registers the system checks
            gateways,
        )

        # Their SDKs are large: loaded now, they are shared with processes that are started later.
        gateways.available()
