"""The serving database role: made if missing, and granted exactly what serving needs."""

from collections.abc import Iterable

from django.conf import settings
from django.db import connections, transaction
from psycopg2 import sql

OWNER = "owner"
# Only ever added to. Everything else may be read, added, changed and deleted by the application,
# as far as the triggers allow.
APPEND_ONLY = {
    "django_admin_log",
    "transactions_checkpointleaf",
    "transactions_ledgercheckpoint",
    "transactions_staffrefund",
    "transactions_transactionledger",
    "transactions_transferbatch",
    "transactions_transferbatchleg",
    "users_kycstep",
    "users_kycsubmission",
    "users_kycdocumentaccess",
    "wallet_limitoverride",
    "wallet_walletstep",
}
NEVER_DELETED = {
    "transactions_adjustment",
    "transactions_checkpointnode",
    "transactions_hold",
    "transactions_transaction",
    "wallet_wallet",
    "fintech_core_idempotencyrecord",
    "fintech_core_webhookendpoint",
    "users_user",
    "payments_depositrefund",
    "payments_paymentintent",
    "payments_payout",
    "payments_suspendeddeposit",
    "payments_sandboxdelivery",
    "payments_sandboxorder",
    "payments_reconciliationbreak",
    "payments_reconciliationrun",
    "payments_webhookevent",
}
# A trigger writes the seals, with the owner's rights: who serves cannot forge one.
READ_ONLY = {"django_migrations", "transactions_ledgerseal", "transactions_outsideseal"}


def serving_role() -> str | None:
    """The role in `DATABASE_URL`, or None where it is the owner itself."""
    serving = settings.DATABASES["default"]["USER"]
    return None if serving == settings.DATABASES[OWNER]["USER"] else serving


def ensure_serving_role() -> None:
    """Create the serving role with the password in `DATABASE_URL`, if there is none yet.

    Raises django.db.utils.ProgrammingError when the owner may not create roles.
    """
    role = serving_role()
    if role is None:
        return
    with connections[OWNER].cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
        if cursor.fetchone() is None:
            cursor.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(settings.DATABASES["default"]["PASSWORD"])
                )
            )


def grant_serving_role() -> None:
    """Grant table by table. Safe to repeat; run after every migration."""
    role = serving_role()
    if role is None:
        return
    # In one transaction: a serving process never sees a moment without its rights.
    with transaction.atomic(using=OWNER), connections[OWNER].cursor() as cursor:
        grantee = sql.Identifier(role)
        cursor.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(grantee))
        cursor.execute(
            sql.SQL("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {}").format(grantee)
        )
        for table in connections[OWNER].introspection.table_names(cursor):
            name = sql.Identifier("public", table)
            cursor.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(name, grantee))
            cursor.execute(
                sql.SQL("GRANT {} ON {} TO {}").format(
                    sql.SQL(", ").join(sql.SQL(right) for right in _rights(table)), name, grantee
                )
            )


def _rights(table: str) -> Iterable[str]:
    if table in READ_ONLY:
        return ["SELECT"]
    if table in APPEND_ONLY:
        return ["SELECT", "INSERT"]
    if table in NEVER_DELETED:
        return ["SELECT", "INSERT", "UPDATE"]
    return ["SELECT", "INSERT", "UPDATE", "DELETE"]
