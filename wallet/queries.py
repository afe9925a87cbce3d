"""Reading wallets, and what left them of late."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from fintech_core.database import query
from fintech_core.rows import instance_of
from wallet.models import ZERO, Wallet


def wallet_of(user_id: UUID) -> Wallet:
    """The user's wallet, with `as_of`: the database's time when it was read."""
    [row] = query(_WALLET_OF, user_id=user_id)
    wallet = instance_of(Wallet, dict(zip(WALLET_COLUMNS, row[:-1], strict=True)))
    wallet.as_of = row[-1]
    return wallet


WALLET_COLUMNS = [field.attname for field in Wallet._meta.concrete_fields]
_COLUMNS = ", ".join(WALLET_COLUMNS)
_WALLET_OF = f"SELECT {_COLUMNS}, now() FROM wallet_wallet WHERE user_id = %(user_id)s"  # noqa: S608


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
