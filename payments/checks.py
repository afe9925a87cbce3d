"""System checks: a sandbox that cannot exist is said before it serves."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


@register()
def sandbox_has_a_secret(**_: Any) -> list[CheckMessage]:
    if settings.PAYMENTS_SANDBOX and not settings.SANDBOX_WEBHOOK_SECRETS:
        return [
            Warning(
                "PAYMENTS_SANDBOX is on, but SANDBOX_WEBHOOK_SECRET is empty: there is no sandbox.",
                id="payments.W001",
            )
        ]
    return []


@register()
def payloads_outlive_the_gateways_retries(**_: Any) -> list[CheckMessage]:
    if settings.WEBHOOK_RETENTION <= settings.WEBHOOK_RETRY_HORIZON:
        return [
            Error(
                "WEBHOOK_RETENTION must be longer than WEBHOOK_RETRY_HORIZON: while a gateway still"
                " delivers an event, staff must be able to read it.",
                id="payments.E001",
            )
        ]
    return []
