"""Comparing a day's report with our orders and the ledger: in SQL, so that memory stays flat.

What is compared: each order that the report names for the day, each that we settled on it,
each whose line changed in an earlier day's report, and each that an open break of the gateway is
about. So a break that is explained by now closes by
itself, whichever day explains it. An order is looked up by its reference, and its line in the
reports of all days: what we settled a moment before midnight may stand in that of the day after.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import IO, Any

from django.db import connection
from django.db.models.functions import Now

from fintech_core.database import execute, query
from payments.models import ReconciliationRun
from payments.reconciliation.subjects import DESCRIBED, Described

_LINE_COLUMNS = "gateway, day, subject, reference, amount, currency, settled_at"


def load(file: IO[bytes], gateway: str, days: list[date]) -> None:
    """Put the lines in `file` (CSV in the order of the columns) in the place of the days' lines.

    Call it and `compare` inside one database transaction: the old lines are kept until it ends.
    """
    execute(_REPLACED, gateway=gateway, days=days)
    execute(
        "DELETE FROM payments_reconciliationline"
        " WHERE gateway = %(gateway)s AND day = ANY(%(days)s)",
        gateway=gateway,
        days=days,
    )
    with connection.cursor() as cursor:
        cursor.copy_expert(
            f"COPY payments_reconciliationline ({_LINE_COLUMNS}) FROM STDIN (FORMAT csv)", file
        )


def compare(run: ReconciliationRun, again: list[date]) -> None:
    """Write down what does not agree and close what does by now; finish the run with its counts.

    Of the days `again`, which were compared before, only what `load` changed is compared. Call it
    inside a database transaction, which what it makes lives in and ends with.
    """
    facts = _facts(run) | {"again": again}
    for statement in (_WANTED, *map(_settled_in_day, DESCRIBED), _COMPARED):
        execute(statement, **facts)
    for statement in (_FOUND, _LEDGER_ONLY, "ANALYZE found", _STILL, _KNOWN, _NEW):
        execute(statement, **facts)
    run.found_later = _changed(_FOUND_LATER, **facts)
    [(run.lines, run.matched, run.breaks)] = query(_COUNTS, **facts)
    run.status = ReconciliationRun.Status.BREAKS if run.breaks else ReconciliationRun.Status.MATCHED
    run.finished_at = Now()
    run.save(update_fields=["lines", "matched", "breaks", "found_later", "status", "finished_at"])


def _facts(run: ReconciliationRun) -> dict[str, Any]:
    begin = datetime.combine(run.day, time.min, tzinfo=UTC)
    return {
        "run": run.pk,
        "gateway": run.gateway,
        "day": run.day,
        "begin": begin,
        "end": begin + timedelta(days=1),
        "accounts": sorted({described.account for described in DESCRIBED}),
    }


def _changed(statement: str, **facts: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, facts)
        return int(cursor.rowcount)


# --- What is compared ----------------------------------------------------------------------------

_REPLACED = f"""
CREATE TEMPORARY TABLE replaced ON COMMIT DROP AS
SELECT {_LINE_COLUMNS} FROM payments_reconciliationline
 WHERE gateway = %(gateway)s AND day = ANY(%(days)s)
"""  # noqa: S608 - the columns are ours
_LINES_AGAIN = f"""
       SELECT {_LINE_COLUMNS} FROM payments_reconciliationline
        WHERE gateway = %(gateway)s AND day = ANY(%(again)s::date[])"""  # noqa: S608 - likewise
_REPLACED_AGAIN = f"""
       SELECT {_LINE_COLUMNS} FROM replaced WHERE day = ANY(%(again)s::date[])"""  # noqa: S608 - likewise
_WANTED = f"""
CREATE TEMPORARY TABLE wanted (
    subject varchar, reference varchar, of_day boolean NOT NULL
) ON COMMIT DROP;
CREATE TEMPORARY TABLE compared (
    subject varchar, reference varchar, of_day boolean NOT NULL, lines bigint, is_repeated boolean,
    their_amount numeric, their_sum numeric, their_currency varchar,
    our_amount numeric, our_currency varchar, is_settled boolean, is_in_ledger boolean
) ON COMMIT DROP;
CREATE TEMPORARY TABLE found (
    gateway varchar, subject varchar, reference varchar, kind varchar, of_day boolean NOT NULL,
    our_amount numeric, our_currency varchar, their_amount numeric, their_currency varchar,
    is_known boolean NOT NULL DEFAULT false
) ON COMMIT DROP;
INSERT INTO wanted
SELECT subject, reference, true FROM payments_reconciliationline
 WHERE gateway = %(gateway)s AND day = %(day)s
 UNION ALL
SELECT subject, reference, false FROM payments_reconciliationbreak
 WHERE gateway = %(gateway)s AND status = 'open'
 UNION ALL
SELECT subject, reference, false
  FROM (({_LINES_AGAIN} EXCEPT ALL {_REPLACED_AGAIN})
       UNION ALL ({_REPLACED_AGAIN} EXCEPT ALL {_LINES_AGAIN})) changed;
"""  # noqa: S608 - the columns are ours


def _settled_in_day(described: Described) -> str:
    """What we settled on the day; found by the ledger's own index where its entry says when."""
    if described.settled_at:
        rows = f"{described.table} made"
        when = f"made.{described.settled_at}"
    else:
        rows = (
            f"transactions_transactionledger entry"
            f"  JOIN {described.table} made ON made.transaction_id = entry.transaction_id"
            f"   AND entry.wallet_id IS NULL AND entry.account = '{described.account}'"
        )
        when = "entry.created_at"
    return f"""
INSERT INTO wanted
SELECT '{described.subject}', made.gateway_reference, true
  FROM {rows}
 WHERE {when} >= %(begin)s AND {when} < %(end)s
   AND made.gateway = %(gateway)s AND made.status = '{described.settled}'
   AND made.gateway_reference IS NOT NULL
"""  # noqa: S608 - the descriptions are ours


def _our_side(described: Described) -> str:
    """The order, and whether its transaction has its entry in the clearing account."""
    return f"""
       SELECT made.amount, made.currency, made.status = '{described.settled}', EXISTS (
              SELECT FROM transactions_transactionledger entry
               WHERE entry.transaction_id = made.transaction_id
                 AND (entry.account, entry.entry_type, entry.amount, entry.currency)
                   = ('{described.account}', '{described.entry_type}', made.amount, made.currency))
         FROM (SELECT * FROM {described.table}
                WHERE gateway_reference = wanted.reference OFFSET 0) made
        WHERE wanted.subject = '{described.subject}' AND made.gateway = %(gateway)s"""  # noqa: S608 - the descriptions are ours


# One line in two reports that overlap is one line; twice in one report, or at two moments, it is
# two. Both sides are looked up by their indexes, one reference after the other: joined, whole
# tables would be read. And by nothing but the reference (OFFSET 0 sees to it): what PostgreSQL
# knows of a table that was just filled may be that it is empty, and then all indexes seem alike.
_COMPARED = f"""
INSERT INTO compared
SELECT wanted.*, theirs.*, ours.*
  FROM (SELECT subject, reference, bool_or(of_day) AS of_day
          FROM wanted GROUP BY subject, reference) wanted
 CROSS JOIN LATERAL (
       SELECT count(*),
              count(*) > count(DISTINCT day) OR count(DISTINCT settled_at) > 1,
              (array_agg(amount ORDER BY settled_at, id))[1],
              least(sum(amount), 9999999999999.99),
              (array_agg(currency ORDER BY settled_at, id))[1]
         FROM (SELECT * FROM payments_reconciliationline
                WHERE reference = wanted.reference OFFSET 0) line
        WHERE line.gateway = %(gateway)s AND line.subject = wanted.subject) theirs
  LEFT JOIN LATERAL ({" UNION ALL ".join(map(_our_side, DESCRIBED))}
       OFFSET 0) ours ON true;
ANALYZE compared;
"""  # noqa: S608 - the descriptions are ours


# --- What does not agree -------------------------------------------------------------------------

_FOUND = """
INSERT INTO found
SELECT %(gateway)s, compared.subject, compared.reference, told.kind, compared.of_day,
       compared.our_amount, coalesce(compared.our_currency, ''),
       CASE told.kind WHEN 'duplicate_line' THEN their_sum ELSE their_amount END,
       coalesce(compared.their_currency, '')
  FROM compared
 CROSS JOIN LATERAL (VALUES
       ('missing_here', lines > 0 AND is_settled IS NOT TRUE),
       ('missing_there', lines = 0 AND is_settled),
       ('different_amount', lines > 0 AND is_settled
           AND (our_amount, our_currency) <> (their_amount, their_currency)),
       ('duplicate_line', is_repeated),
       ('not_in_ledger', is_settled AND NOT is_in_ledger)
       ) told (kind, is_so)
 WHERE told.is_so
"""

# A reversal belongs to the order whose transaction it reverses.
_LEDGER_ONLY = f"""
INSERT INTO found
SELECT '', 'ledger', posted.reference_id, 'ledger_only', true,
       entry.amount, entry.currency, NULL, ''
  FROM transactions_transactionledger entry
  JOIN transactions_transaction posted ON posted.id = entry.transaction_id
 WHERE entry.wallet_id IS NULL AND entry.account = ANY(%(accounts)s)
   AND entry.created_at >= %(begin)s AND entry.created_at < %(end)s
   AND {
    " AND ".join(
        f"NOT EXISTS (SELECT FROM {table} made WHERE made.transaction_id ="
        " CASE posted.type WHEN 'reversal' THEN posted.parent_id ELSE posted.id END)"
        for table in dict.fromkeys(described.table for described in DESCRIBED)
    )
}
"""  # noqa: S608 - the descriptions are ours

_SAME_KEY = (
    "(broken.reference, broken.gateway, broken.subject, broken.kind)"
    " = (found.reference, found.gateway, found.subject, found.kind)"
)
_STILL = f"""
UPDATE payments_reconciliationbreak broken
   SET our_amount = found.our_amount, our_currency = found.our_currency,
       their_amount = found.their_amount, their_currency = found.their_currency,
       last_run_id = %(run)s
  FROM found
 WHERE broken.status = 'open' AND {_SAME_KEY}
"""  # noqa: S608 - the descriptions are ours
# A UUID of version 7 (RFC 9562), as our other rows have: in the order of time.
_NEW_ID = """encode(set_bit(set_bit(overlay(
           uuid_send(gen_random_uuid())
           PLACING substring(
               int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
           FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid"""
# Open already; or resolved by staff: those facts are not brought up again. In a statement of its
# own, for the next one makes breaks: looking among those it would read what it has just written.
# By the reference alone, as lines are.
_KNOWN = f"""
UPDATE found SET is_known = true
 WHERE EXISTS (
       SELECT FROM (SELECT * FROM payments_reconciliationbreak
                     WHERE reference = found.reference OFFSET 0) broken
        WHERE {_SAME_KEY}
          AND (broken.status = 'open'
               OR broken.status = 'resolved'
                  AND (broken.our_amount, broken.our_currency,
                       broken.their_amount, broken.their_currency)
                      IS NOT DISTINCT FROM
                      (found.our_amount, found.our_currency,
                       found.their_amount, found.their_currency))
       OFFSET 0)
"""  # noqa: S608 - the descriptions are ours
_NEW = f"""
INSERT INTO payments_reconciliationbreak (
    id, gateway, subject, reference, kind, our_amount, our_currency, their_amount, their_currency,
    day, first_run_id, last_run_id, status, note)
SELECT {_NEW_ID}, gateway, subject, reference, kind, our_amount, our_currency,
       their_amount, their_currency, %(day)s, %(run)s, %(run)s, 'open', ''
  FROM found
 WHERE NOT is_known
"""  # noqa: S608 - the descriptions are ours
_FOUND_LATER = f"""
UPDATE payments_reconciliationbreak broken
   SET status = 'found_later', ended_at = clock_timestamp(), last_run_id = %(run)s
 WHERE broken.gateway = %(gateway)s AND broken.status = 'open'
   AND NOT EXISTS (SELECT FROM found WHERE {_SAME_KEY})
"""  # noqa: S608 - the descriptions are ours
_COUNTS = f"""
SELECT (SELECT count(*) FROM payments_reconciliationline
         WHERE gateway = %(gateway)s AND day = %(day)s),
       (SELECT count(*) FROM compared
         WHERE of_day AND lines > 0
           AND NOT EXISTS (SELECT FROM found
                            WHERE found.reference = compared.reference
                              AND found.subject = compared.subject)),
       (SELECT count(*) FROM found
          JOIN payments_reconciliationbreak broken ON {_SAME_KEY} AND broken.status = 'open'
         WHERE found.of_day OR broken.first_run_id = %(run)s)
"""  # noqa: S608 - the descriptions are ours
