"""System checks: what would make a deployment unsafe is said before it serves."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import DatabaseError
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from fintech_core import roles
from fintech_core.database import query


@register()
def driver_is_psycopg2(**_: Any) -> list[CheckMessage]:
    """Django prefers psycopg 3 silently as soon as it can be imported; we are tested on 2."""
    if is_psycopg3:
        return [Error("psycopg 3 is installed; Fintech Core runs on psycopg2.", id="fintech.E001")]
    return []


@register(deploy=True)
def sandbox_is_off(**_: Any) -> list[CheckMessage]:
    if settings.PAYMENTS_SANDBOX:
        return [
            Error(
                "PAYMENTS_SANDBOX is on: anyone can mint money.",
                hint="Set PAYMENTS_SANDBOX=false.",
                id="fintech.E002",
            )
        ]
    return []


@register(deploy=True)
def webhooks_stay_outside(**_: Any) -> list[CheckMessage]:
    if settings.WEBHOOK_ALLOW_PRIVATE_TARGETS:
        return [
            Error(
                "WEBHOOK_ALLOW_PRIVATE_TARGETS is on: customers can make us call our own network.",
                hint="Set WEBHOOK_ALLOW_PRIVATE_TARGETS=false.",
                id="fintech.E003",
            )
        ]
    return []


@register(deploy=True)
def hosts_are_named(**_: Any) -> list[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS:
        return [
            Warning(
                "ALLOWED_HOSTS is *: any host name is believed.",
                hint="Name the hosts that clients use.",
                id="fintech.W005",
            )
        ]
    return []


@register(deploy=True)
def rate_limits_are_on(**_: Any) -> list[CheckMessage]:
    if not settings.RATELIMIT_ENABLE:
        return [
            Warning(
                "RATELIMIT_ENABLE is off: passwords can be guessed without limit.",
                id="fintech.W001",
            )
        ]
    return []


@register(deploy=True)
def serving_role_is_not_the_owner(**_: Any) -> list[CheckMessage]:
    if roles.serving_role() is None and not _owns_nothing():
        return [
            Warning(
                "The serving database role owns the tables, so it could disable the ledger's "
                "triggers.",
                hint="Give DATABASE_OWNER_URL and DATABASE_URL different roles.",
                id="fintech.W002",
            )
        ]
    return []


def _owns_nothing() -> bool:
    """Whoever serves is not given the owner's address, so the name alone does not tell.

    False as well if the database cannot be asked, or has no tables yet.
    """
    try:
        [(owns_nothing,)] = query(
            "SELECT count(*) > 0 AND NOT bool_or(pg_has_role(tableowner, 'MEMBER'))"
            " FROM pg_tables WHERE schemaname = 'public'"
        )
    except DatabaseError:
        return False
    return bool(owns_nothing)


@register(deploy=True)
def proxy_is_declared(**_: Any) -> list[CheckMessage]:
    """TLS ends at a proxy. Undeclared, its word that a request was secure is not believed."""
    if settings.IS_HTTPS and settings.TRUSTED_PROXY_COUNT == 0:
        return [
            Warning(
                "PUBLIC_BASE_URL is https, but TRUSTED_PROXY_COUNT is 0: every request would be "
                "redirected for ever.",
                hint="Set TRUSTED_PROXY_COUNT to the number of proxies in front.",
                id="fintech.W004",
            )
        ]
    return []


@register(deploy=True)
def public_url_is_https(**_: Any) -> list[CheckMessage]:
    if not settings.IS_HTTPS:
        return [Warning("PUBLIC_BASE_URL is not https.", id="fintech.W003")]
    return []
