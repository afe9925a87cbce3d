"""System checks: a sandbox that cannot exist is said before it serves."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register


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
