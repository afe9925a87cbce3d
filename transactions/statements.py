"""Statements: what happened to a wallet within some days, proved while it is written.

The ledger is append-only and its entries are numbered, so a statement is settled once its first and
last number are known. It is then read in chunks, with neither a lock nor a long transaction, and
memory stays flat however many lines it has.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Q
from rest_framework.exceptions import ErrorDetail, ValidationError

from fintech_core.moments import Period
from transactions.balances import Position, position_at
from transactions.models import TransactionLedger
from transactions.seals import seal_of
from users.models import User
from wallet.locking import settled_wallet
from wallet.models import Wallet

logger = logging.getLogger(__name__)

CHUNK = 1_000
_CREDIT = TransactionLedger.EntryType.CREDIT


class StatementBroken(Exception):
    """The ledger contradicts itself. Whatever is being written ends at once, unfinished."""


@dataclass(frozen=True)
class Statement:
    """What a statement says beside its lines.

    `made_at` is the database's clock. `seal` is that of the closing entry, and so of the wallet's
    whole history up to it; empty before the first entry.
    """

    wallet: Wallet
    period: Period
    opening: Position
    closing: Position
    seal: bytes
    made_at: datetime

    @property
    def count(self) -> int:
        return self.closing.sequence - self.opening.sequence


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of the wallet, as in the history; `amount` is signed, in major units."""

    sequence: int
    transaction_id: UUID
    reference_id: str
    type: str
    amount: Decimal
    balance_after: Decimal
    counterparty: User | None
    description: str
    created_at: datetime

    @property
    def direction(self) -> str:
        return "in" if self.amount > 0 else "out"


def statement_of(user_id: UUID, period: Period) -> Statement:
    """The user's statement over the period, which may end in the future.

    Waits for whoever holds the wallet, so that no entry that is being written slips in afterwards.
    Raises ValidationError for a period that begins in the future: its opening balance is unknown.
    """
    wallet = settled_wallet(user_id)
    now = wallet.locked_at
    begins_at, ends_at = period.begins_at, period.ends_at
    if begins_at > now:
        raise ValidationError(
            {"from": [ErrorDetail("This day lies in the future.", code="future")]}
        )
    opening = position_at(wallet, Q(created_at__lt=begins_at))
    closing = position_at(wallet, Q(created_at__lt=ends_at))
    seal = seal_of(wallet.pk, closing.sequence)
    return Statement(wallet, period, opening, closing, seal, now)


def lines_of(statement: Statement) -> Iterator[Line]:
    """The lines, oldest first. Each follows from the one before, and the last one is the closing.

    Raises StatementBroken, and logs it, if they do not add up; so whoever has read to the end has
    read a statement that does.
    """
    reached = statement.opening
    while reached.sequence < statement.closing.sequence:
        chunk = list(_chunk(statement, after=reached.sequence))
        if not chunk:
            break
        for line in chunk:
            _require_following(statement, reached, line)
            reached = Position(line.sequence, line.balance_after)
            yield line
    if reached != statement.closing:
        raise _broken(statement, reached)


def _require_following(statement: Statement, reached: Position, line: Line) -> None:
    follows = line.sequence == reached.sequence + 1
    if not follows or line.balance_after != reached.balance + line.amount:
        raise _broken(statement, reached)


def _broken(statement: Statement, reached: Position) -> StatementBroken:
    wallet = str(statement.wallet.pk)
    logger.error("a statement does not add up", extra={"wallet": wallet, "after": reached.sequence})
    return StatementBroken(f"wallet {wallet}: the entry after number {reached.sequence}")


_COLUMNS = (
    "sequence",
    "entry_type",
    "amount",
    "balance_after",
    "created_at",
    "transaction_id",
    "transaction__reference_id",
    "transaction__type",
    "transaction__description",
    "transaction__from_user_id",
    "transaction__to_user_id",
)


def _chunk(statement: Statement, *, after: int) -> Iterator[Line]:
    """The next lines, without the cost of four model instances for each."""
    rows = list(
        TransactionLedger.objects.filter(
            wallet=statement.wallet, sequence__gt=after, sequence__lte=statement.closing.sequence
        )
        .order_by("sequence")
        .values_list(*_COLUMNS)[:CHUNK]
    )
    people = _people(rows)
    for sequence, entry_type, amount, balance_after, created_at, *made, payer, payee in rows:
        arrived = entry_type == _CREDIT
        transaction_id, reference_id, kind, description = made
        yield Line(
            sequence=sequence,
            transaction_id=transaction_id,
            reference_id=reference_id,
            type=kind,
            amount=amount if arrived else -amount,
            balance_after=balance_after,
            counterparty=people.get(payer if arrived else payee),
            description=description,
            created_at=created_at,
        )


def _people(rows: Iterable[tuple[Any, ...]]) -> dict[UUID | None, User]:
    """Whoever is on the other side of these rows; None, the outside world, is nobody."""
    ids = {user_id for row in rows for user_id in row[-2:] if user_id}
    return dict(User.objects.only("first_name", "last_name").in_bulk(ids).items())
