"""System checks: a gateway that is half configured is said before it serves."""

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
                id="payments.E002",
            )
        ]
    return []


@register()
def stripe_is_whole(**_: Any) -> list[CheckMessage]:
    if settings.STRIPE_API_KEY and not settings.STRIPE_WEBHOOK_SECRETS:
        return [
            Warning(
                "STRIPE_API_KEY is set, but STRIPE_WEBHOOK_SECRET is empty: there is no Stripe.",
                id="payments.W002",
            )
        ]
    if settings.STRIPE_WEBHOOK_SECRETS and not settings.STRIPE_API_KEY:
        return [
            Warning(
                "STRIPE_WEBHOOK_SECRET is set, but STRIPE_API_KEY is empty: Stripe can tell us"
                " things, and cannot be asked for any.",
                id="payments.W003",
            )
        ]
    return []


@register(deploy=True)
def stripe_is_the_real_one(**_: Any) -> list[CheckMessage]:
    if settings.STRIPE_API_BASE:
        return [
            Error(
                "STRIPE_API_BASE is set: another server gets our API key, and says who has paid.",
                hint="Leave STRIPE_API_BASE empty.",
                id="payments.E001",
            )
        ]
    return []
