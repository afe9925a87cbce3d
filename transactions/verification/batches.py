"""Batches against their legs, and the legs against the transfers that they became."""

from collections.abc import Iterator

from fintech_core.database import query
from transactions.verification.findings import Rule, Step, breaches, select_broken
from transactions.verification.ranges import ranges

CHUNK = 500

_THE_BATCH = "concat('batch ', batch.id)"
_BATCH_RULES = [
    Rule(
        5,
        "(legs.asked, legs.named, legs.total) <> (batch.count, batch.succeeded, batch.total)",
        "concat(legs.asked, ' legs, ', legs.named, ' of them moved ', legs.total, ', it says ',"
        " batch.count, ', ', batch.succeeded, ' and ', batch.total)",
        _THE_BATCH,
    ),
    Rule(
        5,
        "legs.asked > 0 AND (legs.first, legs.last) <> (0, batch.count - 1)",
        "concat('its legs are numbered from ', legs.first, ' to ', legs.last)",
        _THE_BATCH,
    ),
    Rule(
        5,
        "batch.succeeded + batch.failed <> batch.count OR batch.status IS DISTINCT FROM"
        " CASE WHEN batch.failed = 0 THEN 'completed' WHEN batch.succeeded = 0 THEN 'failed'"
        " ELSE 'partial' END",
        "concat('is ', batch.status, ' with ', batch.succeeded, ' that succeeded and ',"
        " batch.failed, ' that failed, of ', batch.count)",
        _THE_BATCH,
    ),
    Rule(
        5,
        "batch.mode = 'atomic' AND legs.named <> legs.asked",
        "concat('is atomic, and ', legs.asked - legs.named, ' of its legs failed')",
        _THE_BATCH,
    ),
]
_BATCHES = """
  FROM transactions_transferbatch batch
 CROSS JOIN LATERAL (
       SELECT count(*) AS asked, count(leg.transaction_id) AS named,
              min(leg.index) AS first, max(leg.index) AS last,
              coalesce(sum(made.amount), 0) AS total
         FROM transactions_transferbatchleg leg
         LEFT JOIN LATERAL (
              SELECT amount FROM transactions_transaction
               WHERE id = leg.transaction_id OFFSET 0) made ON true
        WHERE leg.batch_id = batch.id) legs
"""

_THE_LEG = "concat('batch ', leg.batch_id, ', leg ', leg.index)"
_LEG_RULES = [
    Rule(5, "batch.id IS NULL", "'its batch is gone'", _THE_LEG),
    Rule(
        5,
        "(leg.transaction_id IS NULL) <> (leg.error_code <> '')",
        "'it neither moved nor was refused, or both'",
        _THE_LEG,
    ),
    Rule(
        5,
        "leg.transaction_id IS NOT NULL AND batch.id IS NOT NULL AND"
        " (made.type, made.from_user_id, made.currency, made.created_at) IS DISTINCT FROM"
        " ('transfer', batch.user_id, batch.currency, batch.created_at)",
        "concat('transaction ', leg.transaction_id, ' is no transfer of its sender, made with it')",
        _THE_LEG,
    ),
    Rule(
        5,
        "leg.transaction_id IS NOT NULL AND (SELECT count(*) FROM transactions_transferbatchleg"
        " WHERE transaction_id = leg.transaction_id) <> 1",
        "concat('transaction ', leg.transaction_id, ' is in several legs')",
        _THE_LEG,
    ),
]
_LEGS = """
  FROM transactions_transferbatchleg leg
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transferbatch
        WHERE id = leg.batch_id OFFSET 0) batch ON true
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transaction
        WHERE id = leg.transaction_id OFFSET 0) made ON true
"""

_BROKEN = " UNION ALL ".join(
    [
        select_broken(_BATCH_RULES, _BATCHES, within="batch.id BETWEEN %(first)s AND %(last)s"),
        select_broken(_LEG_RULES, _LEGS, within="leg.batch_id BETWEEN %(first)s AND %(last)s"),
    ]
)
_COUNT = """
SELECT count(*) FROM transactions_transferbatchleg WHERE batch_id BETWEEN %(first)s AND %(last)s
"""


def check() -> Iterator[Step]:
    for part in ranges("transactions_transferbatch", CHUNK):
        [(legs,)] = query(_COUNT, first=part.first, last=part.last)
        yield Step(legs, breaches(query(_BROKEN, first=part.first, last=part.last)))
