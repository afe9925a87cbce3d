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

import uuid_utils
from uuid_utils.compat import uuid7

from fintech_core.database import database_time, send_along
from fintech_core.rows import Row, as_text, differences, instance_of
from transactions.models import Account, MovedWallet, Transaction, TransactionLedger
from users.models import User
from wallet.models import ZERO, Wallet
from wallet.services import Spent

Side = Wallet | Account


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
    journal = Journal()
    made = [journal.enter(posting) for posting in postings]
    journal.write(spent)
    return made


class Journal:
    """Movements between locked wallets: entered one by one in memory, then written all at once."""

    def __init__(self) -> None:
        self._made: list[tuple[Transaction, Row]] = []
        self._moved: dict[UUID, Wallet] = {}
        self._entries: list[Row] = []

    def enter(self, posting: Posting) -> Transaction:
        """Move the wallets, in memory: the next decision finds them as this leaves them."""
        debtor, creditor = _owner(posting.debit), _owner(posting.credit)
        row = _transaction(posting, debtor, creditor)
        made = instance_of(
            Transaction, row, from_user=debtor, to_user=creditor, parent=posting.parent
        )
        self._made.append((made, row))
        made.moved = []
        if isinstance(posting.debit, Wallet):
            posting.debit.debit(posting.amount)
        self._enter_side(made, posting.debit, TransactionLedger.EntryType.DEBIT)
        if isinstance(posting.credit, Wallet):
            posting.credit.credit(posting.amount)
        self._enter_side(made, posting.credit, TransactionLedger.EntryType.CREDIT)
        return made

    def _enter_side(
        self, made: Transaction, side: Side, entry_type: TransactionLedger.EntryType
    ) -> None:
        entry: Row = {
            "id": str(uuid_utils.uuid7()),
            "transaction_id": made.id,
            "account": side,
            "entry_type": entry_type,
            "amount": made.amount,
            "currency": made.currency,
        }
        if isinstance(side, Wallet):
            entry |= {
                "account": Account.WALLET,
                "wallet_id": side.id,
                "sequence": side.entry_count,
                "balance_after": side.balance,
            }
            self._moved[side.id] = side
            made.moved.append(MovedWallet(side, side.balance))
        self._entries.append(entry)

    def write(self, spent: Spent | None = None) -> None:
        """Write it with the next statement, if there is anything; see `post_all`."""
        if not self._made:
            return
        self._date()
        rows = {
            "made": [row for _, row in self._made],
            "moved": [_balance(wallet) for wallet in self._moved.values()],
            "entries": self._entries,
        }
        taken = spent and as_text(vars(spent))
        if len(self._made) == 1:  # it has nothing to share
            send_along(_POST, **_texts(rows), spent=taken)
        else:
            first = as_text({name: each[0] for name, each in rows.items() if each})
            own = {name: differences(each) for name, each in rows.items()}
            send_along(_POST_MANY, first=first, **_texts(own), spent=taken)

    def _date(self) -> None:
        """One moment for all. Only the wallets that did move decide it: another one, which somebody
        was refused to pay, may be ahead of the clock."""
        moment = _ledger_time(self._moved.values())
        for made, row in self._made:
            row["created_at"] = made.created_at = moment
            if made.status == Transaction.Status.COMPLETED:
                row["completed_at"] = made.completed_at = moment
        for entry in self._entries:
            entry["created_at"] = moment
        for wallet in self._moved.values():
            wallet.last_entry_at = moment


_POST = "SELECT transactions_post(%(made)s, %(moved)s, %(entries)s, %(spent)s)"
_POST_MANY = "SELECT transactions_post_many(%(first)s, %(made)s, %(moved)s, %(entries)s, %(spent)s)"


def _texts(rows: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    return {name: as_text(each) for name, each in rows.items()}


def _transaction(posting: Posting, debtor: User | None, creditor: User | None) -> Row:
    made_id = uuid7()
    return {
        "id": made_id,
        "reference_id": _reference(made_id),
        "type": posting.kind,
        "status": posting.status,
        "amount": posting.amount,
        "currency": posting.currency,
        "fee": ZERO,
        "refunded_amount": ZERO,
        "from_user_id": debtor and debtor.id,
        "to_user_id": creditor and creditor.id,
        "parent_id": posting.parent and posting.parent.id,
        "description": posting.description,
        "metadata": dict(posting.metadata or {}),
        "effect_key": posting.effect_key,
        "created_at": None,  # when all of it is written
        "completed_at": None,
    }


def _balance(wallet: Wallet) -> Row:
    return {
        "id": wallet.id,
        "balance": wallet.balance,
        "entry_count": wallet.entry_count,
        "last_entry_at": wallet.last_entry_at,
    }


def _owner(side: Side) -> User | None:
    return side.user if isinstance(side, Wallet) else None


def _ledger_time(wallets: Iterable[Wallet]) -> datetime:
    """The database's clock, read under the locks, never before a wallet's previous entry."""
    moments = [moment for wallet in wallets for moment in (wallet.locked_at, wallet.last_entry_at)]
    return max((moment for moment in moments if moment), default=None) or database_time()


def _reference(transaction_id: UUID) -> str:
    """A short name to read over the phone: the id in base 32, so it is as unique."""
    return "TX-" + base64.b32encode(transaction_id.bytes).decode().rstrip("=")
