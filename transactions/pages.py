"""Pages of one person's ledger entries: history, transactions and entries are views of the same.

The function in PostgreSQL (`migrations/0023_page.py`) reads a page in one round trip, along one
index, however deep it lies.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from fintech_core.database import query
from transactions.models import TransactionLedger

_LAST = 2**63 - 1


class EntryRow(NamedTuple):
    """An entry on the person's wallet, its transaction and both parties, as answers show them.

    Amounts are decimal strings in major units; times are in UTC.
    """

    sequence: int
    id: str
    transaction_id: str
    entry_type: str
    amount: str
    currency: str
    balance_after: str
    entered_at: datetime
    reference_id: str
    type: str
    status: str
    fee: str
    description: str
    metadata: str
    parent_id: str | None
    created_at: datetime
    completed_at: datetime | None
    payer_id: str | None
    payer_first_name: str
    payer_last_name: str
    payee_id: str | None
    payee_first_name: str
    payee_last_name: str


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The entries on one person's wallet, newest first unless ordered otherwise.

    Lazy, and with as much of a query set's manner as a paginator and a filter need. A transaction
    touches a wallet at most once, so this is also the list of the person's transactions.
    """

    of_user: UUID
    falling: bool = True
    above: int = 0  # numbers, both exclusive
    below: int = _LAST
    since: datetime | None = None  # inclusive
    until: datetime | None = None  # exclusive
    kind: str | None = None
    state: str | None = None
    side: str | None = None
    amount_min: Decimal | None = None
    amount_max: Decimal | None = None

    model = TransactionLedger

    def all(self) -> "Entries":
        return self

    def order_by(self, field: str) -> "Entries":
        """By `sequence` or `-sequence`."""
        return replace(self, falling=field.startswith("-"))

    def filter(self, **bound: int | str) -> "Entries":
        """Of a paginator: `sequence__lt` or `sequence__gt`. Raises ValueError for no number."""
        [(name, value)] = bound.items()
        if not 0 <= (number := int(value)) <= _LAST:
            raise ValueError("no entry has this number")
        if name == "sequence__lt":
            return replace(self, below=number)
        return replace(self, above=number)

    def __getitem__(self, page: slice) -> list[EntryRow]:
        asked: dict[str, Any] = vars(self) | {"skip": page.start, "most": page.stop - page.start}
        return [EntryRow._make(row) for row in query(_PAGE, **asked)]


_PAGE = (
    "SELECT * FROM transactions_page(%(of_user)s, %(falling)s, %(above)s, %(below)s, %(skip)s,"
    " %(most)s, %(since)s, %(until)s, %(kind)s, %(state)s, %(side)s, %(amount_min)s,"
    " %(amount_max)s)"
)
