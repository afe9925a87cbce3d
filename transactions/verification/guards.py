"""What holds the invariants up. A missing or disabled trigger or constraint is itself a breach."""

from collections.abc import Iterable, Iterator

from django.db.models import BaseConstraint, UniqueConstraint

from fintech_core import roles
from fintech_core.database import query
from fintech_core.models import IdempotencyRecord
from transactions.models import Adjustment, Hold, Transaction, TransactionLedger
from transactions.verification.findings import Breach, Step
from wallet.models import Wallet

TRIGGERS = {
    "transactions_transaction_balances": 1,
    "transactions_ledger_balances": 1,
    "transactions_transaction_stamp": 1,
    "transactions_ledger_no_change": 2,
    "transactions_ledger_no_truncate": 2,
    "transactions_transaction_no_delete": 2,
    "transactions_transaction_no_truncate": 2,
    "transactions_transaction_guard": 2,
    "wallet_wallet_balance_is_its_ledgers": 3,
    "transactions_ledger_reaches_the_wallet": 3,
    "transactions_ledger_entry_fits": 3,
    "wallet_wallet_no_delete": 3,
    "wallet_wallet_no_truncate": 3,
    "wallet_wallet_held_is_its_holds": 4,
    "transactions_hold_reaches_the_wallet": 4,
    "transactions_hold_leaves_the_wallet": 4,
    "transactions_hold_begins": 4,
    "fintech_core_idempotency_guard": 5,
    "fintech_core_idempotency_no_delete": 5,
    "fintech_core_idempotency_no_truncate": 5,
    "transactions_hold_guard": 5,
    "transactions_hold_no_delete": 5,
    "transactions_hold_no_truncate": 5,
    "transactions_transaction_capture_has_its_hold": 5,
    "transactions_transaction_refund_fits": 5,
    "transactions_transaction_refunds_are_its_children": 5,
    "transactions_transaction_refund_reaches_its_parent": 5,
    "transactions_adjustment_begins": 5,
    "transactions_adjustment_guard": 5,
    "transactions_adjustment_no_delete": 5,
    "transactions_adjustment_no_truncate": 5,
    "transactions_transaction_adjustment_is_approved": 5,
    "transactions_ledger_adjustment_is_approved": 5,
    "wallet_wallet_guard": 6,
    "transactions_transaction_seal": 7,
    "transactions_ledger_entry_is_sealed": 7,
    "transactions_ledger_books_are_open": 7,
    "transactions_ledgerseal_no_change": 7,
    "transactions_ledgerseal_no_truncate": 7,
    "transactions_outsideseal_no_change": 7,
    "transactions_outsideseal_no_truncate": 7,
    "transactions_ledgercheckpoint_no_change": 7,
    "transactions_ledgercheckpoint_no_truncate": 7,
    "transactions_checkpointleaf_no_change": 7,
    "transactions_checkpointleaf_no_truncate": 7,
}
# Unique columns have names that Django makes up.
UNIQUE = {
    "transactions_hold_transaction_id_key": 5,
    "transactions_adjustment_transaction_id_key": 5,
    "transactions_transaction_effect_key_key": 5,
    "transactions_ledgerseal_continues_the_chain": 7,
    "transactions_outsideseal_continues_the_chain": 7,
}
# Every constraint that these declare must be there and validated.
GUARDED_MODELS = (Wallet, Transaction, TransactionLedger, Hold, Adjustment, IdempotencyRecord)


def check() -> Iterator[Step]:
    on = _names("SELECT tgname FROM pg_trigger WHERE tgenabled IN ('O', 'A') AND NOT tgisinternal")
    valid = _names("SELECT conname FROM pg_constraint WHERE convalidated")
    declared = {
        constraint.name: 4
        for model in GUARDED_MODELS
        for constraint in model._meta.constraints
        if not _is_partial(constraint)
    }
    yield Step(
        0,
        [
            *_missing("trigger", TRIGGERS, on, "missing or disabled"),
            *_missing("constraint", UNIQUE | declared, valid, "missing or not validated"),
            *_excessive_rights(),
        ],
    )


def _names(statement: str) -> set[str]:
    return {row[0] for row in query(statement)}


def _is_partial(constraint: BaseConstraint) -> bool:
    """PostgreSQL keeps a unique constraint with a condition as an index."""
    return getattr(constraint, "condition", None) is not None and isinstance(
        constraint, UniqueConstraint
    )


def _missing(kind: str, wanted: dict[str, int], found: set[str], detail: str) -> Iterator[Breach]:
    for name, invariant in wanted.items():
        if name not in found:
            yield Breach(invariant, f"{kind} {name}", detail)


def _excessive_rights() -> Iterator[Breach]:
    """The serving role must not be able to do what the triggers are there to refuse."""
    role = roles.serving_role()
    if role is None:
        return
    if query("SELECT 1 FROM pg_roles WHERE rolname = %(role)s AND rolsuper", role=role):
        yield Breach(2, f"role {role}", "is a superuser")
    yield from _rights(role, roles.APPEND_ONLY, "UPDATE, DELETE, TRUNCATE, TRIGGER")
    yield from _rights(role, roles.READ_ONLY, "INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER")


def _rights(role: str, tables: Iterable[str], too_much: str) -> Iterator[Breach]:
    rights = "SELECT has_table_privilege(%(role)s, %(table)s, %(rights)s)"
    for table in sorted(tables):
        if query(rights, role=role, table=table, rights=too_much)[0][0]:
            yield Breach(2, f"role {role}", f"may rewrite {table}")
