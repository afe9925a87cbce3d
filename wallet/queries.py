"""Reading wallets, and what left them of late."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

from fintech_core.database import query
from wallet.models import ZERO, Wallet


def wallet_of(user_id: UUID) -> Wallet:
    """The user's wallet, with `as_of`: the database's time when it was read."""
    return _dated().get(user_id=user_id)


@dataclass
class Debits:
    """What was sent or reserved within the last 24 hours, and within the last 30 days."""

    daily_total: Decimal = ZERO
    daily_count: int = 0
    monthly_total: Decimal = ZERO
    monthly_count: int = 0


def debits_of(wallet_id: UUID) -> Debits:
    """By the database's clock. Ask under the wallet's lock if a decision depends on it."""
    [row] = query("SELECT * FROM wallet_debits(%(wallet)s)", wallet=wallet_id)
    return Debits(*row)


def _dated() -> QuerySet[Wallet]:
    return Wallet.objects.annotate(as_of=Now())
