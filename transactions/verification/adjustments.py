"""Adjustments: four eyes, and the transaction that did what was approved.

That each such transaction was approved is checked with the books.
"""

from collections.abc import Iterator

from fintech_core.database import query
from transactions.verification.findings import Rule, Step, breaches, select_broken
from transactions.verification.ranges import ranges

CHUNK = 20_000

_THE_ADJUSTMENT = "concat('adjustment ', adjustment.id)"
_RULES = [
    Rule(
        5,
        "adjustment.status = 'approved' AND (adjustment.decided_by_id IS NULL"
        " OR adjustment.decided_by_id = adjustment.proposed_by_id)",
        "'only one person decided about it'",
        _THE_ADJUSTMENT,
    ),
    Rule(
        5,
        "adjustment.proposed_by_id = wallet.user_id"
        " OR adjustment.status = 'approved' AND adjustment.decided_by_id = wallet.user_id",
        "'somebody adjusted their own wallet'",
        _THE_ADJUSTMENT,
    ),
    Rule(
        5,
        "(adjustment.status = 'approved') <> (adjustment.transaction_id IS NOT NULL)",
        "concat('is ', adjustment.status, ', its transaction is ',"
        " coalesce(adjustment.transaction_id::text, 'none'))",
        _THE_ADJUSTMENT,
    ),
    Rule(
        5,
        "adjustment.transaction_id IS NOT NULL AND"
        " (made.type, made.amount, made.currency, made.effect_key, entry.entry_type)"
        " IS DISTINCT FROM ('adjustment', adjustment.amount, adjustment.currency,"
        " concat('adjustment:', adjustment.id), adjustment.direction)",
        "concat('transaction ', adjustment.transaction_id, ' does not do it')",
        _THE_ADJUSTMENT,
    ),
]

_BROKEN = select_broken(
    _RULES,
    """
  FROM transactions_adjustment adjustment
  LEFT JOIN LATERAL (
       SELECT user_id FROM wallet_wallet
        WHERE id = adjustment.wallet_id OFFSET 0) wallet ON true
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transaction
        WHERE id = adjustment.transaction_id OFFSET 0) made ON true
  LEFT JOIN LATERAL (
       SELECT entry_type FROM transactions_transactionledger
        WHERE transaction_id = adjustment.transaction_id AND wallet_id = adjustment.wallet_id
       OFFSET 0) entry ON true
""",
    within="adjustment.id BETWEEN %(first)s AND %(last)s",
)


def check() -> Iterator[Step]:
    for part in ranges("transactions_adjustment", CHUNK):
        yield Step(part.rows, breaches(query(_BROKEN, first=part.first, last=part.last)))
