"""Refunds of deposits through a gateway, against the transactions that they ordered.

The payments app keeps the orders; what is read here is its table, not its code.
"""

from collections.abc import Iterator

from fintech_core.database import query
from transactions.verification.findings import Rule, Step, breaches, select_broken
from transactions.verification.ranges import ranges

CHUNK = 20_000

_THE_REFUND = "concat('deposit refund ', refund.id)"
_RULES = [
    Rule(
        5,
        "(made.type, made.amount, made.currency, made.from_user_id, made.parent_id,"
        " made.effect_key) IS DISTINCT FROM ('refund', refund.amount, refund.currency,"
        " intent.user_id, intent.transaction_id, concat('deposit_refund:', refund.id))"
        " OR made.to_user_id IS NOT NULL",
        "concat('transaction ', refund.transaction_id, ' is not its own')",
        _THE_REFUND,
    ),
    Rule(
        5,
        "(refund.status = 'failed') <> (refund.reversal_id IS NOT NULL)",
        "concat('is ', refund.status, ', its reversal is ',"
        " coalesce(refund.reversal_id::text, 'none'))",
        _THE_REFUND,
    ),
    Rule(
        5,
        "refund.reversal_id IS NOT NULL AND"
        " (back.id, back.type, back.amount, back.currency, back.parent_id, back.effect_key)"
        " IS DISTINCT FROM (refund.reversal_id, 'reversal', refund.amount, refund.currency,"
        " refund.transaction_id, concat('deposit_refund_failed:', refund.id))",
        "concat('transaction ', refund.reversal_id, ' does not bring it back')",
        _THE_REFUND,
    ),
    Rule(
        5,
        "refund.reversal_id IS NULL AND back.id IS NOT NULL",
        "concat('transaction ', back.id, ' brought it back, it is ', refund.status)",
        _THE_REFUND,
    ),
    Rule(
        5,
        "refund.requested_by_id = intent.user_id",
        "'somebody refunded their own money'",
        _THE_REFUND,
    ),
]

_BROKEN = select_broken(
    _RULES,
    """
  FROM payments_depositrefund refund
  LEFT JOIN LATERAL (
       SELECT user_id, transaction_id FROM payments_paymentintent
        WHERE id = refund.intent_id OFFSET 0) intent ON true
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transaction
        WHERE id = refund.transaction_id OFFSET 0) made ON true
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transaction
        WHERE parent_id = refund.transaction_id AND type = 'reversal' OFFSET 0) back ON true
""",
    within="refund.id BETWEEN %(first)s AND %(last)s",
)


def check() -> Iterator[Step]:
    for part in ranges("payments_depositrefund", CHUNK):
        yield Step(part.rows, breaches(query(_BROKEN, first=part.first, last=part.last)))
