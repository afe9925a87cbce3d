"""Payouts against their withdrawals and reversals. That each withdrawal has one is checked with the
books."""

from collections.abc import Iterator

from fintech_core.database import query
from transactions.verification.findings import Rule, Step, breaches, select_broken
from transactions.verification.ranges import ranges

CHUNK = 20_000

_THE_PAYOUT = "concat('payout ', payout.id)"
_RULES = [
    Rule(
        5,
        "(made.type, made.amount, made.currency, made.from_user_id, made.effect_key,"
        " entry.wallet_id) IS DISTINCT FROM"
        " ('withdrawal', payout.amount, payout.currency, payout.user_id,"
        " concat('payout:', payout.id), payout.wallet_id)",
        "concat('transaction ', payout.transaction_id, ' is not its withdrawal')",
        _THE_PAYOUT,
    ),
    Rule(
        5,
        "(payout.status, made.status) NOT IN"
        " (('pending', 'pending'), ('paid', 'completed'), ('failed', 'failed'))",
        "concat('is ', payout.status, ', its withdrawal ', made.status)",
        _THE_PAYOUT,
    ),
    Rule(
        5,
        "(payout.status = 'failed') <> (payout.reversal_id IS NOT NULL)"
        " OR payout.reversal_id IS NOT NULL AND (undone.type, undone.parent_id)"
        " IS DISTINCT FROM ('reversal', payout.transaction_id)",
        "concat('transaction ', coalesce(payout.reversal_id::text, 'none'),"
        " ' is not its reversal')",
        _THE_PAYOUT,
    ),
]

_BROKEN = select_broken(
    _RULES,
    """
  FROM payments_payout payout
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transaction
        WHERE id = payout.transaction_id OFFSET 0) made ON true
  LEFT JOIN LATERAL (
       SELECT wallet_id FROM transactions_transactionledger
        WHERE transaction_id = payout.transaction_id AND wallet_id = payout.wallet_id
       OFFSET 0) entry ON true
  LEFT JOIN LATERAL (
       SELECT type, parent_id FROM transactions_transaction
        WHERE id = payout.reversal_id OFFSET 0) undone ON true
""",
    within="payout.id BETWEEN %(first)s AND %(last)s",
)


def check() -> Iterator[Step]:
    for part in ranges("payments_payout", CHUNK):
        yield Step(part.rows, breaches(query(_BROKEN, first=part.first, last=part.last)))
