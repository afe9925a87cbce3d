"""Writing to the ledger: the one place where transactions, entries and balances come into being.

Mechanism, not policy: whoever posts has locked the wallets and decided that it may happen. Many
movements are written in as many round trips as one.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import connection
from uuid_utils.compat import uuid7

from transactions.models import Account, Transaction, TransactionLedger
from wallet.models import Wallet
from wallet.services import save_balances

Side = Wallet | Account
_DEBIT = TransactionLedger.EntryType.DEBIT
_CREDIT = TransactionLedger.EntryType.CREDIT


@dataclass(frozen=True, kw_only=True)
class Posting:
    """One movement: `amount`, in major units of `currency`, from the debited to the credited side.

    A wallet among the sides is locked, and the same object in every posting that names it.
    """

    kind: Transaction.Type
    debit: Side
    credit: Side
    amount: Decimal
    currency: str
    description: str = ""
    metadata: Mapping[str, str] | None = None
    effect_key: str | None = None
    parent: Transaction | None = None
    status: Transaction.Status = Transaction.Status.COMPLETED


def post(posting: Posting) -> Transaction:
    """Write one movement; see `post_all`."""
    return post_all([posting])[0]


def post_all(postings: Sequence[Posting]) -> list[Transaction]:
    """Write the movements in their order, with one moment for all, in a few statements.

    Call it inside a database transaction. The database refuses whatever does not balance, does not
    follow from the wallet's previous entry, or takes a balance below zero or below what is held.
    """
    wallets = {
        side.pk: side
        for posting in postings
        for side in (posting.debit, posting.credit)
        if isinstance(side, Wallet)
    }
    moment = _ledger_time(wallets.values())
    made = [_transaction(posting, moment) for posting in postings]
    entries = [
        entry
        for transaction, posting in zip(made, postings, strict=True)
        for entry in _entries(transaction, posting)
    ]
    Transaction.objects.bulk_create(made)
    save_balances(wallets.values())
    # In order: the trigger on each row looks at the wallet's entry before it.
    TransactionLedger.objects.bulk_create(entries)
    return made


def _transaction(posting: Posting, moment: datetime) -> Transaction:
    made_id = uuid7()
    completed = posting.status == Transaction.Status.COMPLETED
    return Transaction(
        id=made_id,
        reference_id=_reference(made_id),
        type=posting.kind,
        status=posting.status,
        amount=posting.amount,
        currency=posting.currency,
        from_user_id=_owner(posting.debit),
        to_user_id=_owner(posting.credit),
        parent=posting.parent,
        description=posting.description,
        metadata=dict(posting.metadata or {}),
        effect_key=posting.effect_key,
        created_at=moment,
        completed_at=moment if completed else None,
    )


def _owner(side: Side) -> UUID | None:
    return side.user_id if isinstance(side, Wallet) else None


def _entries(made: Transaction, posting: Posting) -> Iterable[TransactionLedger]:
    """Both sides, debit first; the wallets among them move on by one entry."""
    if isinstance(posting.debit, Wallet):
        posting.debit.debit(made.amount, at=made.created_at)
    yield _entry(made, posting.debit, _DEBIT)
    if isinstance(posting.credit, Wallet):
        posting.credit.credit(made.amount, at=made.created_at)
    yield _entry(made, posting.credit, _CREDIT)


def _entry(
    made: Transaction, side: Side, entry_type: TransactionLedger.EntryType
) -> TransactionLedger:
    entry = TransactionLedger(
        transaction=made,
        account=Account.WALLET,
        entry_type=entry_type,
        amount=made.amount,
        currency=made.currency,
        created_at=made.created_at,
    )
    if isinstance(side, Wallet):
        entry.wallet, entry.sequence, entry.balance_after = side, side.entry_count, side.balance
    else:
        entry.account = side
    return entry


def _ledger_time(wallets: Iterable[Wallet]) -> datetime:
    """The database's clock, read under the locks, never before a wallet's previous entry."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return max([now, *(wallet.last_entry_at for wallet in wallets if wallet.last_entry_at)])


def _reference(transaction_id: UUID) -> str:
    """A short name to read over the phone: the id in base 32, so it is as unique."""
    return "TX-" + base64.b32encode(transaction_id.bytes).decode().rstrip("=")
