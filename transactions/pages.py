"""Pages of one person's ledger entries: history, transactions and entries are views of the same.

The function in PostgreSQL (`migrations/0032_page_by_counterparty.py`) reads a page in one round
trip, along one index, however deep it lies, and writes the JSON of each entry.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from fintech_core.database import query
from transactions.models import TransactionLedger

_LAST = 2**63 - 1


class Shape(StrEnum):
    """What an entry is written as; the serializer of that name describes each in the schema."""

    TRANSACTION = "transaction"
    LINE = "line"  # of the history
    ENTRY = "entry"


class Written(NamedTuple):
    """An entry's number on its wallet, and the JSON text that an answer shows of it."""

    sequence: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The entries on one person's wallet, newest first unless ordered otherwise.

    Lazy, and with as much of a query set's manner as a paginator and a filter need. A transaction
    touches a wallet at most once, so this is also the list of the person's transactions.
    """

    of_user: UUID
    shape: Shape
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

    def __getitem__(self, page: slice) -> list[Written]:
        asked: dict[str, Any] = vars(self) | {"skip": page.start, "most": page.stop - page.start}
        return [Written._make(row) for row in query(_PAGE, **asked)]


_PAGE = (
    "SELECT * FROM transactions_page_lines(%(shape)s, %(of_user)s, %(falling)s, %(above)s,"
    " %(below)s, %(skip)s, %(most)s, %(since)s, %(until)s, %(kind)s, %(state)s, %(side)s,"
    " %(amount_min)s, %(amount_max)s)"
)
