"""The settings of production, but that nobody runs into a limit on money or out of a token.

Every limit is still looked up, counted and compared. Rate limits are set by the environment: see
`benchmarks.servers`.
"""

from datetime import timedelta
from decimal import Decimal

from fintech_core.settings import *  # noqa: F403
from fintech_core.settings import SIMPLE_JWT

_NO_END = Decimal("1000000000.00")
_APPROVED: dict[str, Decimal | int] = {
    "transfer_max": _NO_END,
    "daily_total": _NO_END,
    "daily_count": 1_000_000_000,
    "monthly_total": _NO_END,
    "monthly_count": 1_000_000_000,
    "balance_max": _NO_END * 1_000,
}
WALLET_LIMITS = {"approved": _APPROVED, "unverified": {"balance_max": _NO_END}}

SIMPLE_JWT = SIMPLE_JWT | {"ACCESS_TOKEN_LIFETIME": timedelta(days=1)}
