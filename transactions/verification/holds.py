"""Holds against the transactions that captured them. What they reserve is checked with wallets."""

from collections.abc import Iterator

from fintech_core.database import query
from transactions.verification.findings import Rule, Step, breaches, select_broken
from transactions.verification.ranges import ranges

CHUNK = 20_000

_THE_HOLD = "concat('hold ', hold.id)"
_RULES = [
    Rule(
        4,
        "(payer.user_id, payer.currency, payee.user_id, payee.currency) IS DISTINCT FROM"
        " (hold.from_user_id, hold.currency, hold.to_user_id, hold.currency)",
        "'its wallets are not those of its parties, or hold another currency'",
        _THE_HOLD,
    ),
    Rule(
        5,
        "hold.transaction_id IS NOT NULL AND"
        " (made.type, made.amount, made.currency, made.from_user_id, made.to_user_id)"
        " IS DISTINCT FROM"
        " ('capture', hold.captured_amount, hold.currency, hold.from_user_id, hold.to_user_id)",
        "concat('transaction ', hold.transaction_id, ' is not its capture')",
        _THE_HOLD,
    ),
]

_BROKEN = select_broken(
    _RULES,
    """
  FROM transactions_hold hold
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transaction
        WHERE id = hold.transaction_id OFFSET 0) made ON true
  LEFT JOIN LATERAL (
       SELECT user_id, currency FROM wallet_wallet
        WHERE id = hold.payer_wallet_id OFFSET 0) payer ON true
  LEFT JOIN LATERAL (
       SELECT user_id, currency FROM wallet_wallet
        WHERE id = hold.payee_wallet_id OFFSET 0) payee ON true
""",
    within="hold.id BETWEEN %(first)s AND %(last)s",
)


def check() -> Iterator[Step]:
    for part in ranges("transactions_hold", CHUNK):
        yield Step(part.rows, breaches(query(_BROKEN, first=part.first, last=part.last)))
