"""Proving the books: every invariant, over everything, in one consistent snapshot.

The triggers keep the books true while they are on; this finds out whether they always were. The
rules are SQL, checked by PostgreSQL in bounded chunks along primary keys: only what breaks one
comes here, so memory stays flat however long the ledger is.
"""

from collections.abc import Iterator

from fintech_core.database import query
from transactions.verification import (
    adjustments,
    batches,
    books,
    guards,
    holds,
    payouts,
    signed,
    source_refunds,
    wallets,
)
from transactions.verification.findings import Breach, Step
from transactions.verification.snapshot import shared_snapshot

__all__ = ["Breach", "Step", "rows_to_check", "verify"]

_TABLES = [
    "transactions_transactionledger",
    "transactions_outsideseal",
    "transactions_checkpointleaf",
    "transactions_hold",
    "transactions_adjustment",
    "payments_depositrefund",
    "transactions_transferbatchleg",
    "payments_payout",
    "wallet_wallet",
]


def rows_to_check() -> int:
    """About how many rows a run reads; an estimate, for a progress bar."""
    rows = query(
        "SELECT coalesce(sum(greatest(reltuples, 0)), 0) FROM pg_class "
        "WHERE oid = ANY(%(tables)s::regclass[])",
        tables=_TABLES,
    )
    return int(rows[0][0])


def verify() -> Iterator[Step]:
    """Check invariants 1 to 7 (see ARCHITECTURE.md) over the whole ledger, as of one moment."""
    with shared_snapshot() as snapshot:
        yield from guards.check()
        yield from books.check(snapshot)
        yield from wallets.check()
        yield from holds.check()
        yield from adjustments.check()
        yield from source_refunds.check()
        yield from batches.check()
        yield from payouts.check()
        yield from signed.check()
