"""Writing to the ledger: the one place where transactions, entries and balances come into being.

Mechanism, not policy: whoever posts has locked the wallets and decided that it may happen. Many
movements are written in as many round trips as one.
"""

import base64
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Model
from uuid_utils.compat import uuid7

from fintech_core.database import database_time, send_along
from transactions.models import Account, Transaction, TransactionLedger
from users.models import User
from wallet.models import Wallet
from wallet.services import Spent

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


def post(posting: Posting, spent: Spent | None = None) -> Transaction:
    """Write one movement; see `post_all`."""
    return post_all([posting], spent)[0]


def post_all(postings: Sequence[Posting], spent: Spent | None = None) -> list[Transaction]:
    """Write the movements in their order, with one moment for all, in one round trip.

    `spent` is counted against the limits of whose wallet it names. Call it inside a database
    transaction. The database refuses whatever does not balance, does not follow from the wallet's
    previous entry, or takes a balance below zero or below what is held.
    """
    wallets = {
        side.pk: side
        for posting in postings
        for side in (posting.debit, posting.credit)
        if isinstance(side, Wallet)
    }
    moment = _ledger_time(wallets.values())
    made = [_transaction(posting, moment) for posting in postings]
    for transaction, posting in zip(made, postings, strict=True):
        transaction.posted_entries = list(_entries(transaction, posting))
    entries = [entry for transaction in made for entry in transaction.posted_entries]
    send_along(
        "SELECT transactions_post(%(made)s, %(moved)s, %(entries)s, %(spent)s)",
        made=_rows(made, _TRANSACTION_COLUMNS),
        moved=_rows(wallets.values(), _MOVED_COLUMNS),
        entries=_rows(entries, _ENTRY_COLUMNS),
        spent=spent and json.dumps(vars(spent), default=str),
    )
    return made


_TRANSACTION_COLUMNS = [field.attname for field in Transaction._meta.concrete_fields]
_ENTRY_COLUMNS = [field.attname for field in TransactionLedger._meta.concrete_fields]
_MOVED_COLUMNS = ["id", "balance", "entry_count", "last_entry_at"]


def _rows(instances: Iterable[Model], columns: Sequence[str]) -> str:
    """The rows as a JSON array. Amounts, ids and times are text there, so they stay exact."""
    rows = [{name: getattr(instance, name) for name in columns} for instance in instances]
    return json.dumps(rows, default=str)


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
        from_user=_owner(posting.debit),
        to_user=_owner(posting.credit),
        parent=posting.parent,
        description=posting.description,
        metadata=dict(posting.metadata or {}),
        effect_key=posting.effect_key,
        created_at=moment,
        completed_at=moment if completed else None,
    )


def _owner(side: Side) -> User | None:
    return side.user if isinstance(side, Wallet) else None


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


def _ledger_time(wallets: Collection[Wallet]) -> datetime:
    """The database's clock, read under the locks, never before a wallet's previous entry."""
    if not wallets:
        return database_time()
    earlier = [wallet.last_entry_at for wallet in wallets if wallet.last_entry_at]
    return max([*earlier, *(wallet.locked_at for wallet in wallets)])


def _reference(transaction_id: UUID) -> str:
    """A short name to read over the phone: the id in base 32, so it is as unique."""
    return "TX-" + base64.b32encode(transaction_id.bytes).decode().rstrip("=")
