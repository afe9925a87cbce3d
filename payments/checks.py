"""System checks: a webhook secret that cannot verify anything is said before it serves."""

import base64
import binascii
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

SECRET_BYTES_MIN = 24  # Standard Webhooks: between 24 and 64 bytes


@register()
def sandbox_secrets_are_usable(**_: Any) -> list[CheckMessage]:
    if not settings.PAYMENTS_SANDBOX:
        return []
    if not settings.SANDBOX_WEBHOOK_SECRETS:
        return [
            Warning(
                "PAYMENTS_SANDBOX is on, but SANDBOX_WEBHOOK_SECRET is empty: there is no sandbox.",
                id="payments.W001",
            )
        ]
    return [
        Error(
            f"Secret number {number} in SANDBOX_WEBHOOK_SECRET is not usable.",
            hint=f"Write whsec_ and the base64 of at least {SECRET_BYTES_MIN} random bytes.",
            id="payments.E001",
        )
        for number, secret in enumerate(settings.SANDBOX_WEBHOOK_SECRETS, start=1)
        if not _is_usable(secret)
    ]


def _is_usable(secret: str) -> bool:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, binascii.Error):
        return False
    return secret.startswith("whsec_") and len(key) >= SECRET_BYTES_MIN
