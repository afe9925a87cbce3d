"""What a user's KYC tier, and staff, allow. Amounts are in major units of the wallet's currency.

Everything here fails closed: a tier that is missing, or that lacks a limit, allows nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from django.conf import settings

from fintech_core.money import format_amount
from users.models import User
from wallet.exceptions import LimitExceeded
from wallet.models import ZERO, LimitOverride, Wallet


@dataclass(frozen=True)
class Limits:
    """What is in force for one wallet. Daily: within 24 hours. Monthly: within 30 days."""

    transfer_max: Decimal = ZERO
    daily_total: Decimal = ZERO
    daily_count: int = 0
    monthly_total: Decimal = ZERO
    monthly_count: int = 0
    balance_max: Decimal = ZERO


NAMES = tuple(field.name for field in fields(Limits))


def tier_of(user: User) -> str:
    return "approved" if user.is_kyc_approved else "unverified"


def limits_of(wallet: Wallet, user: User) -> Limits:
    """The tier's limits, as staff changed them for this wallet.

    An override moves limits that the tier has. It grants none that the tier lacks, so nothing
    leaves the wallet of somebody who is not approved, whatever was set for it before.
    """
    of_tier, override = _of_tier(user), _override_of(wallet)
    return Limits(**{name: _limit(name, of_tier, override) for name in NAMES})


def _of_tier(user: User) -> Mapping[str, Any]:
    found: Mapping[str, Any] = settings.WALLET_LIMITS.get(tier_of(user), {})
    return found


def _override_of(wallet: Wallet) -> LimitOverride | None:
    return wallet.limit_override if wallet.limit_override_id else None


def _limit(name: str, of_tier: Mapping[str, Any], override: LimitOverride | None) -> Any:
    allowed = of_tier.get(name)
    if allowed is None:
        return getattr(Limits, name)  # it allows nothing
    chosen = getattr(override, name) if override else None
    return allowed if chosen is None else chosen


def has_room_for(wallet: Wallet, user: User, amount: Decimal) -> bool:
    """Whether the wallet may hold that much more, through payments that we can still refuse."""
    return wallet.balance + amount <= _balance_max(wallet, user)


def can_ever_hold(wallet: Wallet, user: User, amount: Decimal) -> bool:
    """Whether it may if it is empty: the answer tells nothing of what is in it."""
    return amount <= _balance_max(wallet, user)


def _balance_max(wallet: Wallet, user: User) -> Decimal:
    most: Decimal = _limit("balance_max", _of_tier(user), _override_of(wallet))
    return most


def require_room_for_deposit(wallet: Wallet, user: User, amount: Decimal) -> None:
    """Raises LimitExceeded. Asked when a deposit is begun; money that did arrive is credited."""
    if not has_room_for(wallet, user, amount):
        most = format_amount(limits_of(wallet, user).balance_max)
        raise LimitExceeded(f"The wallet may hold at most {most}.", limit="balance_max")
