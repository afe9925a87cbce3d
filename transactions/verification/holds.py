"""Holds against the transactions that captured them. What they reserve is checked with wallets."""

from collections.abc import Iterator
from uuid import UUID

from fintech_core.database import query
from transactions.verification.findings import Rule, Step, breaches, select_broken

CHUNK = 20_000
_FIRST = UUID(int=0)

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
  LEFT JOIN transactions_transaction made ON made.id = hold.transaction_id
  LEFT JOIN wallet_wallet payer ON payer.id = hold.payer_wallet_id
  LEFT JOIN wallet_wallet payee ON payee.id = hold.payee_wallet_id
""",
    within="hold.id > %(after)s AND hold.id <= %(upto)s",
)

_CHUNK = """
SELECT id, count(*) OVER () FROM (
    SELECT id FROM transactions_hold WHERE id > %(after)s ORDER BY id LIMIT %(chunk)s
) chunk ORDER BY id DESC LIMIT 1
"""


def check() -> Iterator[Step]:
    after = _FIRST
    while chunk := query(_CHUNK, after=after, chunk=CHUNK):
        [(upto, holds)] = chunk
        yield Step(holds, breaches(query(_BROKEN, after=after, upto=upto)))
        after = upto
