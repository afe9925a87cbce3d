"""Proving the books: every invariant, over everything, in one consistent snapshot.

The triggers keep the books true while they are on; this finds out whether they always were. It
reads in bounded chunks along primary keys, so memory stays flat however long the ledger is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from fintech_core import roles
from fintech_core.models import IdempotencyRecord
from transactions.models import Transaction, TransactionLedger
from wallet.models import Wallet

CHUNK = 5_000


@dataclass(frozen=True)
class Breach:
    """One thing that is wrong: the invariant's number, what breaks it, and how."""

    invariant: int
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Step:
    """A chunk that was checked: how many rows, and what was found."""

    rows: int
    breaches: list[Breach]


# What holds the invariants up: trigger → its invariant. A missing or disabled one is a breach.
GUARDS = {
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
    "wallet_wallet_guard": 6,
    "wallet_wallet_no_delete": 3,
    "wallet_wallet_no_truncate": 3,
    "fintech_core_idempotency_guard": 5,
    "fintech_core_idempotency_no_delete": 5,
    "fintech_core_idempotency_no_truncate": 5,
}
# Every constraint that these declare must be there and validated.
GUARDED_MODELS = (Wallet, Transaction, TransactionLedger, IdempotencyRecord)

_TRANSACTIONS = """
WITH chunk AS (
    SELECT * FROM transactions_transaction
     WHERE %(after)s::uuid IS NULL OR id > %(after)s ORDER BY id LIMIT %(chunk)s
), books AS (
    SELECT chunk.id,
           count(entry.id) AS entries,
           coalesce(sum(entry.amount) FILTER (WHERE entry.entry_type = 'debit'), 0) AS debits,
           coalesce(sum(entry.amount) FILTER (WHERE entry.entry_type = 'credit'), 0) AS credits,
           bool_or(entry.currency <> chunk.currency) AS foreign_currency,
           bool_or(entry.created_at <> chunk.created_at) AS other_time,
           count(*) FILTER (WHERE wallet.user_id IS NOT NULL) AS on_wallets,
           bool_or(wallet.user_id IS NOT NULL AND wallet.user_id IS DISTINCT FROM
                   CASE entry.entry_type WHEN 'debit' THEN chunk.from_user_id
                                         ELSE chunk.to_user_id END) AS stranger
      FROM chunk
      LEFT JOIN transactions_transactionledger entry ON entry.transaction_id = chunk.id
      LEFT JOIN wallet_wallet wallet ON wallet.id = entry.wallet_id
     GROUP BY chunk.id
)
SELECT chunk.id, books.entries, books.debits, books.credits, chunk.amount + chunk.fee,
       books.foreign_currency,
       books.stranger OR books.on_wallets <> num_nonnulls(from_user_id, to_user_id),
       books.other_time OR chunk.type <> 'withdrawal' AND completed_at <> created_at,
       chunk.amount > 0 AND chunk.amount < 1e13 AND refunded_amount BETWEEN 0 AND chunk.amount
       AND refunded_amount = (SELECT coalesce(sum(refund.amount), 0)
                                FROM transactions_transaction refund
                               WHERE refund.parent_id = chunk.id AND refund.type = 'refund')
  FROM chunk JOIN books USING (id) ORDER BY chunk.id
"""

_WALLETS = """
SELECT id, balance, held, entry_count, currency, last_entry_at FROM wallet_wallet
 WHERE %(after)s::uuid IS NULL OR id > %(after)s ORDER BY id LIMIT %(chunk)s
"""

_ENTRIES = """
SELECT entry.sequence, entry.entry_type, entry.amount, entry.balance_after,
       entry.currency, entry.created_at
  FROM transactions_transactionledger entry
 WHERE entry.wallet_id = %(wallet)s
   AND (%(after)s::bigint IS NULL OR entry.sequence > %(after)s)
 ORDER BY entry.sequence LIMIT %(chunk)s
"""

_ORPHANS = """
SELECT entry.id FROM transactions_transactionledger entry
 WHERE NOT EXISTS (SELECT 1 FROM transactions_transaction t WHERE t.id = entry.transaction_id)
    OR entry.wallet_id IS NOT NULL
   AND (entry.sequence IS NULL
        OR NOT EXISTS (SELECT 1 FROM wallet_wallet w WHERE w.id = entry.wallet_id))
 LIMIT 100
"""


def rows_to_check() -> int:
    """About how many rows a run reads; an estimate, for a progress bar."""
    tables = ["transactions_transaction", "transactions_transactionledger", "wallet_wallet"]
    rows = _query(
        "SELECT coalesce(sum(greatest(reltuples, 0)), 0) FROM pg_class WHERE relname = ANY(%(t)s)",
        t=tables,
    )
    return int(rows[0][0])


def verify() -> Iterator[Step]:
    """Check invariants 1 to 6 (see ARCHITECTURE.md) over the whole ledger, as of one moment."""
    with transaction.atomic(durable=True):
        _query_none("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        _query_none("SET LOCAL statement_timeout = 0")
        yield Step(0, list(_missing_guards()))
        yield from _transactions()
        yield from _wallets()
        orphans = [
            Breach(2, f"entry {row[0]}", "its transaction, its wallet or its number is gone")
            for row in _query(_ORPHANS)
        ]
        yield Step(0, orphans)


def _missing_guards() -> Iterator[Breach]:
    on = {
        row[0]
        for row in _query(
            "SELECT tgname FROM pg_trigger WHERE tgenabled IN ('O', 'A') AND NOT tgisinternal"
        )
    }
    for name, invariant in GUARDS.items():
        if name not in on:
            yield Breach(invariant, f"trigger {name}", "missing or disabled")
    valid = {row[0] for row in _query("SELECT conname FROM pg_constraint WHERE convalidated")}
    for model in GUARDED_MODELS:
        for constraint in model._meta.constraints:
            if constraint.name not in valid:
                yield Breach(4, f"constraint {constraint.name}", "missing or not validated")
    yield from _excessive_rights()


def _excessive_rights() -> Iterator[Breach]:
    """The serving role must not be able to do what the triggers are there to refuse."""
    role = roles.serving_role()
    if role is None:
        return
    if _query("SELECT 1 FROM pg_roles WHERE rolname = %(role)s AND rolsuper", role=role):
        yield Breach(2, f"role {role}", "is a superuser")
    rights = "SELECT has_table_privilege(%(role)s, %(table)s, 'UPDATE, DELETE, TRUNCATE, TRIGGER')"
    for table in sorted(roles.APPEND_ONLY):
        if _query(rights, role=role, table=table)[0][0]:
            yield Breach(2, f"role {role}", f"may rewrite {table}")


def _transactions() -> Iterator[Step]:
    after: UUID | None = None
    while rows := _query(_TRANSACTIONS, after=after, chunk=CHUNK):
        yield Step(len(rows), [breach for row in rows for breach in _check_transaction(*row)])
        after = rows[-1][0]


def _check_transaction(
    pk: UUID,
    entries: int,
    debits: Any,
    credits: Any,
    moved: Any,
    foreign_currency: bool | None,
    stranger: bool | None,
    other_time: bool | None,
    amounts_fit: bool,
) -> Iterator[Breach]:
    subject = f"transaction {pk}"
    if entries < 2 or debits != credits:
        yield Breach(1, subject, f"{entries} entries, debits {debits}, credits {credits}")
    elif debits != moved:
        yield Breach(2, subject, f"its entries move {debits}, it says {moved}")
    if foreign_currency:
        yield Breach(6, subject, "an entry has another currency")
    if stranger:
        yield Breach(2, subject, "its entries are not on its parties' wallets")
    if other_time:
        yield Breach(2, subject, "its times and those of its entries differ")
    if not amounts_fit:
        yield Breach(4, subject, "its amount or its refunds are wrong")


def _wallets() -> Iterator[Step]:
    after: UUID | None = None
    while rows := _query(_WALLETS, after=after, chunk=CHUNK):
        for row in rows:
            yield from _check_wallet(*row)
        after = rows[-1][0]


def _check_wallet(
    pk: UUID, balance: Any, held: Any, entry_count: int, currency: str, last_entry_at: Any
) -> Iterator[Step]:
    """Walk the wallet's entries in order, carrying number and balance along."""
    subject = f"wallet {pk}"
    after, number, running, moment = None, 0, 0, None
    while rows := _query(_ENTRIES, wallet=pk, after=after, chunk=CHUNK):
        breaches = []
        for sequence, entry_type, amount, balance_after, entry_currency, at in rows:
            entry = f"{subject}, entry {sequence}"
            running += amount if entry_type == "credit" else -amount
            if sequence != number + 1:
                breaches.append(Breach(3, entry, f"follows number {number}: entries are missing"))
            if balance_after != running:
                breaches.append(Breach(3, entry, f"balance {balance_after}, should be {running}"))
            if entry_currency != currency:
                breaches.append(
                    Breach(6, entry, f"is in {entry_currency}, the wallet in {currency}")
                )
            if moment is not None and at < moment:
                breaches.append(Breach(3, entry, "is older than the entry before it"))
            # From here on, so that one forged line is named once.
            after, number, running, moment = sequence, sequence, balance_after, at
        yield Step(len(rows), breaches)
    if last_entry_at != moment:
        yield Step(0, [Breach(3, subject, f"dated {last_entry_at}, its newest entry {moment}")])
    yield Step(1, list(_check_totals(subject, balance, held, entry_count, number, running)))


def _check_totals(
    subject: str, balance: Any, held: Any, entry_count: int, number: int, running: Any
) -> Iterator[Breach]:
    if balance != running:
        yield Breach(3, subject, f"balance {balance}, its newest entry says {running}")
    if entry_count != number:
        yield Breach(3, subject, f"counts {entry_count} entries, its newest is number {number}")
    if not balance.is_finite() or balance < 0 or held != 0:
        yield Breach(4, subject, f"balance {balance}, held {held} without a hold")


def _query(statement: str, **parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return list(cursor.fetchall())


def _query_none(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
