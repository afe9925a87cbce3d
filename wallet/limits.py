"""What a user's KYC tier allows. Amounts are in major units of the wallet's currency."""

from decimal import Decimal

from django.conf import settings

from users.models import User
from wallet.exceptions import LimitExceeded
from wallet.models import Wallet


def tier_of(user: User) -> str:
    return "approved" if user.is_kyc_approved else "unverified"


def balance_max(user: User) -> Decimal:
    """The most that the user's wallet may hold through payments that we can still refuse."""
    return settings.WALLET_LIMITS[tier_of(user)]["balance_max"]


def has_room_for(wallet: Wallet, user: User, amount: Decimal) -> bool:
    return wallet.balance + amount <= balance_max(user)


def require_transfer_allowed(user: User, amount: Decimal) -> None:
    """Raises LimitExceeded for a debit above the tier's maximum; a tier without one has none."""
    most = settings.WALLET_LIMITS[tier_of(user)].get("transfer_max", Decimal(0))
    if amount > most:
        raise LimitExceeded(f"A single transfer may be at most {most:.2f}.")


def require_room_for_deposit(wallet: Wallet, user: User, amount: Decimal) -> None:
    """Raises LimitExceeded. Asked when a deposit is begun; money that did arrive is credited."""
    if not has_room_for(wallet, user, amount):
        raise LimitExceeded(f"The wallet may hold at most {balance_max(user):.2f}.")
