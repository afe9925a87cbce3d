"""Use of limits: how much somebody may still send or reserve, decided under their wallet's lock.

Transfers and withdrawals count when they are made, holds when the money is reserved. What a hold
releases, a refund returns, or a failed withdrawal brings back, is not given back to the limits:
they err on the strict side. A capture was counted as its hold; neither refunds nor adjustments
count.
"""

from dataclasses import asdict, dataclass
from decimal import Decimal

from fintech_core.money import format_amount
from users.models import User
from wallet.exceptions import LimitExceeded
from wallet.limits import NAMES, limits_of, tier_of
from wallet.models import ZERO, Wallet
from wallet.queries import Debits, debits_of, wallet_of
from wallet.services import Spent

_DAY = "within 24 hours"
_MONTH = "within 30 days"


class Allowance:
    """What may still leave one wallet. For as many debits as one database transaction makes."""

    def __init__(self, wallet: Wallet, used: Debits) -> None:
        """`wallet` is locked, and `used` and its owner are as they were read under the lock."""
        self._limits = limits_of(wallet, wallet.user)
        self._used = used
        self.taken = Spent(wallet.id, ZERO, 0)

    def take(self, amount: Decimal) -> None:
        """Count one debit that `require` lets through, in memory."""
        self._used.daily_total += amount
        self._used.daily_count += 1
        self._used.monthly_total += amount
        self._used.monthly_count += 1
        self.taken.total += amount
        self.taken.count += 1

    def require(self, amount: Decimal) -> None:
        """Raises LimitExceeded."""
        limits, used = self._limits, self._used
        if amount > limits.transfer_max:
            most = format_amount(limits.transfer_max)
            raise LimitExceeded(
                f"A single payment may be at most {most} (transfer_max).", limit="transfer_max"
            )
        _require_total("daily_total", _DAY, limits.daily_total, used.daily_total, amount)
        _require_count("daily_count", _DAY, limits.daily_count, used.daily_count)
        _require_total("monthly_total", _MONTH, limits.monthly_total, used.monthly_total, amount)
        _require_count("monthly_count", _MONTH, limits.monthly_count, used.monthly_count)


def _require_total(name: str, period: str, most: Decimal, used: Decimal, amount: Decimal) -> None:
    if used + amount > most:
        left = format_amount(max(most - used, ZERO))
        raise LimitExceeded(
            f"You may send at most {format_amount(most)} {period}; {left} remains ({name}).",
            limit=name,
        )


def _require_count(name: str, period: str, most: int, used: int) -> None:
    if used + 1 > most:
        raise LimitExceeded(f"You may make at most {most} payments {period} ({name}).", limit=name)


@dataclass(frozen=True)
class LimitUse:
    """`used` is None where nothing is used up: a limit on each single payment."""

    limit: Decimal | int
    used: Decimal | int | None

    @property
    def remaining(self) -> Decimal | int:
        """Never below zero: limits may be lowered below what was used."""
        return max(self.limit - (self.used or 0), self.limit * 0)


def limits_in_use(user: User) -> dict[str, LimitUse | str]:
    """The user's tier and currency, and each limit by its name."""
    wallet = wallet_of(user.pk)
    limits, used = limits_of(wallet, user), asdict(debits_of(wallet.pk))
    used["balance_max"] = wallet.balance
    uses = {name: LimitUse(getattr(limits, name), used.get(name)) for name in NAMES}
    return {"tier": tier_of(user), "currency": wallet.currency, **uses}
