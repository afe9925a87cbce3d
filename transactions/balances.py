"""What a wallet held at a moment: read from its ledger, so that the answer never changes again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, Sum
from rest_framework.exceptions import ErrorDetail, ValidationError

from fintech_core.database import CLOCK_SLACK, lowest_id_at
from fintech_core.money import total
from transactions.models import Hold, TransactionLedger
from wallet.locking import settled_wallet
from wallet.models import Wallet

ZERO = Decimal("0.00")
# No hold is reserved for longer, and one that is due is resolved within a minute; a month to spare.
_HELD_FOR_MAX = timedelta(days=61)


@dataclass(frozen=True)
class BalanceAt:
    """A wallet at the moment `as_of`, inclusive: what was completed at that moment counts."""

    currency: str
    balance: Decimal
    held: Decimal
    as_of: datetime

    @property
    def available(self) -> Decimal:
        return self.balance - self.held


@dataclass(frozen=True)
class Position:
    """A place in a wallet's ledger: after entry `sequence` (0: before the first)."""

    sequence: int
    balance: Decimal


def balance_at(user_id: UUID, at: datetime) -> BalanceAt:
    """The user's balance at the moment `at`, as it stays while the database's clock runs forward.

    Waits for whoever holds the wallet: they have read the clock already, perhaps before `at`. Who
    locks it next reads a clock that is past `at`. Raises ValidationError for a moment in the
    future, or before the wallet existed.
    """
    wallet = settled_wallet(user_id)
    _require_past(at, wallet, now=wallet.locked_at)
    position = position_at(wallet, Q(created_at__lte=at))
    return BalanceAt(wallet.currency, position.balance, _held_at(wallet, at), at)


def _require_past(at: datetime, wallet: Wallet, *, now: datetime) -> None:
    if at > now:
        refusal = ErrorDetail("This moment lies in the future.", code="future")
    elif at < wallet.created_at:
        refusal = ErrorDetail("The wallet did not exist at this moment.", code="before_opening")
    else:
        return
    raise ValidationError({"at": [refusal]})


def position_at(wallet: Wallet, bound: Q) -> Position:
    """After the newest entry of a settled wallet within `bound`, a bound on `created_at`.

    Time runs forward with the numbers (a trigger sees to it), so the newest by time is also the
    one with the highest number, and the index on both finds it at once.
    """
    newest = (
        TransactionLedger.objects.filter(bound, wallet=wallet)
        .order_by("-created_at", "-sequence")
        .only("sequence", "balance_after")
        .first()
    )
    if newest is None or newest.sequence is None or newest.balance_after is None:
        return Position(0, ZERO)
    return Position(newest.sequence, newest.balance_after)


def _held_at(wallet: Wallet, at: datetime) -> Decimal:
    """What holds reserved at the moment: made by then, and not resolved before or at it."""
    made = Hold.objects.filter(payer_wallet=wallet, created_at__lte=at)
    active = made.filter(status=Hold.Status.ACTIVE)
    # By the payer's index; an id begins with the time at which it was made.
    resolved_later = made.filter(
        ~Q(status=Hold.Status.ACTIVE),
        from_user=wallet.user_id,
        pk__gte=lowest_id_at(at - _HELD_FOR_MAX - CLOCK_SLACK),
        pk__lt=lowest_id_at(at + CLOCK_SLACK),
        resolved_at__gt=at,
    )
    # In one statement: a hold that is resolved between two would count in both.
    sums = _sum_of(active).union(_sum_of(resolved_later), all=True)
    return total(row["sum"] for row in sums)


def _sum_of(holds: "QuerySet[Hold]") -> "QuerySet[Hold, Any]":
    """In one row, or none if there are no holds: they are all in the wallet's currency."""
    return holds.order_by().values("currency").annotate(sum=Sum("amount")).values("sum")
