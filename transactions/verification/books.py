"""Transactions and their entries: balanced, numbered, running, sealed.

A chunk is a range of transactions, because the digest of each is the dearest part and is computed
once. Ids follow time, so what a chunk holds of a wallet is mostly one unbroken run of its entries:
the run and its seals are read together, from one entry before it, and each entry is judged beside
the one before it. If every link holds, the whole chain holds, so nothing is walked in order.
"""

from collections.abc import Iterator

from fintech_core.database import execute, query
from transactions.verification.findings import Breach, Rule, Step, breaches, select_broken
from transactions.verification.ranges import Range, ranges
from transactions.verification.snapshot import in_parallel

CHUNK = 20_000

_THE_TRANSACTION = "concat('transaction ', books.id)"
_REFUNDED = "CASE books.type WHEN 'refund' THEN books.parent_id ELSE books.id END"
_SAID_REFUNDED = f"(SELECT refunded_amount FROM transactions_transaction WHERE id = {_REFUNDED})"  # noqa: S608
_REFUNDS = (
    "(SELECT sum(amount) FILTER (WHERE type = 'refund') FROM transactions_transaction"  # noqa: S608
    f" WHERE parent_id = {_REFUNDED})"
)
# Counted, for PostgreSQL would read the whole table once for each chunk to answer EXISTS.
_HOLDS = "(SELECT count(*) FROM transactions_hold WHERE transaction_id = books.id)"
# Of a deposit's refunds some came back: `refunded_amount` is the most that was out at one time.
_RETURNED = (
    "(SELECT coalesce(sum(reversal.amount), 0) FROM transactions_transaction refund"  # noqa: S608
    " JOIN transactions_transaction reversal"
    " ON reversal.parent_id = refund.id AND reversal.type = 'reversal'"
    f" WHERE refund.parent_id = {_REFUNDED} AND refund.type = 'refund')"
)
_TO_SOURCE = "(books.type = 'deposit' OR books.type = 'refund' AND books.to_user_id IS NULL)"
_UNDONE = (
    "(SELECT count(*) FROM transactions_transaction undone WHERE undone.id = books.parent_id"
    " AND undone.type IN ('transfer', 'capture', 'deposit')"
    " AND (undone.type = 'deposit') = (books.to_user_id IS NULL)"
    " AND (undone.currency, undone.to_user_id) = (books.currency, books.from_user_id)"
    " AND undone.from_user_id IS NOT DISTINCT FROM books.to_user_id)"
)
_ORDERS = "(SELECT count(*) FROM payments_depositrefund WHERE transaction_id = books.id)"
_FAILURES = "(SELECT count(*) FROM payments_depositrefund WHERE reversal_id = books.id)"
_REFUNDS_UNDONE = (
    "(SELECT count(*) FROM transactions_transaction undone WHERE undone.id = books.parent_id"
    " AND undone.type = 'refund')"
)
_APPROVALS = (
    "(SELECT count(*) FROM transactions_adjustment WHERE transaction_id = {}.{}"
    " AND status = 'approved')"
)
_ACCOUNTS = (
    "(SELECT count(*) FROM transactions_transactionledger entry"
    " WHERE entry.transaction_id = books.id AND (entry.account, entry.entry_type) IN ({}))"
)
_TO_SUSPENSE = _ACCOUNTS.format("('gateway_clearing', 'debit'), ('suspense', 'credit')")
_TO_CLEARING = (
    "(SELECT count(*) FROM transactions_transactionledger entry"
    " WHERE entry.transaction_id = books.id AND (entry.account, entry.entry_type, entry.amount)"
    " = ('payout_clearing', 'credit', books.amount))"
)
_PAYOUTS = "(SELECT count(*) FROM payments_payout WHERE transaction_id = books.id)"
_REVERSALS = (
    "(SELECT count(*) FROM transactions_transaction reversal"
    " WHERE reversal.parent_id = books.id AND reversal.type = 'reversal')"
)
_REVERSED = (
    "(SELECT count(*) FROM transactions_transaction undone WHERE undone.id = books.parent_id"
    " AND (undone.type = 'withdrawal' AND undone.status = 'failed' OR undone.type = 'refund')"
    " AND undone.to_user_id IS NULL AND books.from_user_id IS NULL"
    " AND (undone.amount, undone.currency, undone.from_user_id)"
    " = (books.amount, books.currency, books.to_user_id))"
)
_FROM_ELSEWHERE = (
    "(SELECT count(*) FROM transactions_transactionledger entry"
    " WHERE entry.transaction_id = books.id AND entry.entry_type = 'debit'"
    " AND (entry.account, entry.amount)"
    " NOT IN (SELECT account, amount FROM transactions_transactionledger"
    " WHERE transaction_id = books.parent_id AND entry_type = 'credit'))"
)
_OUTSIDE_SEALS = "(SELECT count(*) FROM transactions_outsideseal WHERE transaction_id = books.id)"

_TRANSACTION_RULES = [
    Rule(
        1,
        "books.entries < 2 OR books.debits <> books.credits",
        "concat(books.entries, ' entries, debits ', books.debits, ', credits ', books.credits)",
        _THE_TRANSACTION,
    ),
    Rule(
        2,
        "books.debits = books.credits AND books.debits <> books.amount + books.fee",
        "concat('its entries move ', books.debits, ', it says ', books.amount + books.fee)",
        _THE_TRANSACTION,
    ),
    Rule(
        4,
        "NOT (books.amount > 0 AND books.amount < 1e13 AND books.fee >= 0"
        " AND books.refunded_amount >= 0 AND books.refunded_amount <= books.amount)",
        "'its amount, its fee or its refunds are out of bounds'",
        _THE_TRANSACTION,
    ),
    Rule(
        4,
        "(books.refunded_amount <> 0 OR books.type = 'refund')"
        f" AND NOT {_TO_SOURCE} AND {_SAID_REFUNDED} IS DISTINCT FROM {_REFUNDS}",
        "'what was refunded is not the sum of the refunds'",
        f"concat('transaction ', {_REFUNDED})",
    ),
    Rule(
        4,
        f"(books.refunded_amount <> 0 OR books.type = 'refund') AND {_TO_SOURCE}"
        f" AND {_SAID_REFUNDED} NOT BETWEEN coalesce({_REFUNDS}, 0) - {_RETURNED}"
        f" AND coalesce({_REFUNDS}, 0)",
        "'what was refunded is not the sum of the refunds'",
        f"concat('transaction ', {_REFUNDED})",
    ),
    Rule(
        5,
        f"books.type = 'refund' AND {_UNDONE} <> 1",
        "'it does not undo the transaction that it names'",
        _THE_TRANSACTION,
    ),
    Rule(
        5,
        f"books.type = 'refund' AND books.to_user_id IS NULL AND {_ORDERS} <> 1",
        "'nobody ordered this refund to its source'",
        _THE_TRANSACTION,
    ),
    Rule(
        5,
        f"books.type = 'reversal' AND {_FAILURES} <> {_REFUNDS_UNDONE}",
        "'the refund that it brings back has not failed'",
        _THE_TRANSACTION,
    ),
    Rule(
        5,
        f"books.type = 'capture' AND {_HOLDS} <> 1",
        "'no hold was captured by it'",
        _THE_TRANSACTION,
    ),
    Rule(
        5,
        f"books.type = 'adjustment' AND {_APPROVALS.format('books', 'id')} <> 1",
        "'nobody approved this adjustment'",
        _THE_TRANSACTION,
    ),
    Rule(
        2,
        f"books.type = 'deposit' AND books.to_user_id IS NULL AND {_TO_SUSPENSE} <> 2",
        "'it is for nobody, and not in suspense'",
        _THE_TRANSACTION,
    ),
    Rule(
        2,
        f"books.type = 'withdrawal' AND {_TO_CLEARING} <> 1",
        "'its money is not in payout_clearing'",
        _THE_TRANSACTION,
    ),
    Rule(
        5,
        f"books.type = 'withdrawal' AND {_PAYOUTS} <> 1",
        "'there is no payout for it'",
        _THE_TRANSACTION,
    ),
    Rule(
        5,
        "books.type = 'withdrawal'"
        f" AND {_REVERSALS} <> CASE books.status WHEN 'failed' THEN 1 ELSE 0 END",
        f"concat('it is ', books.status, ' and has ', {_REVERSALS}, ' reversals')",
        _THE_TRANSACTION,
    ),
    Rule(
        5,
        f"books.type = 'reversal' AND ({_REVERSED} <> 1 OR {_FROM_ELSEWHERE} <> 0)",
        "'it does not undo the transaction that it names'",
        _THE_TRANSACTION,
    ),
    Rule(
        2,
        "books.in_wallets <> num_nonnulls(books.from_user_id, books.to_user_id)",
        "'it names parties whose wallets it does not touch, or touches others'",
        _THE_TRANSACTION,
    ),
    Rule(
        2,
        "books.fee <> 0 OR NOT CASE books.type"
        " WHEN 'deposit' THEN books.from_user_id IS NULL"
        " WHEN 'withdrawal' THEN books.to_user_id IS NULL"
        " WHEN 'adjustment' THEN num_nonnulls(books.from_user_id, books.to_user_id) = 1"
        " WHEN 'reversal' THEN true"
        " WHEN 'refund' THEN books.from_user_id IS NOT NULL"
        " ELSE num_nonnulls(books.from_user_id, books.to_user_id) = 2 END",
        "concat('its fee or its parties are not those of a ', books.type)",
        _THE_TRANSACTION,
    ),
    Rule(
        2,
        "books.type <> 'withdrawal' AND books.completed_at IS DISTINCT FROM books.created_at",
        "'it was not completed when it was made'",
        _THE_TRANSACTION,
    ),
    Rule(
        7,
        f"books.in_wallets = 0 AND {_OUTSIDE_SEALS} <> 1",
        "'has no seal'",
        _THE_TRANSACTION,
    ),
]

_THE_ENTRY = (
    "CASE WHEN entry.wallet_id IS NULL THEN concat('entry ', entry.id) "
    "ELSE concat('wallet ', entry.wallet_id, ', entry ', entry.sequence) END"
)
_BALANCE_BEFORE = "CASE entry.sequence WHEN 1 THEN 0 ELSE before.balance_after END"

_ENTRY_RULES = [
    Rule(
        2,
        "entry.wallet_id IS NOT NULL AND wallet.id IS NULL",
        "'its wallet is gone'",
        _THE_ENTRY,
    ),
    Rule(
        2,
        "wallet.user_id IS DISTINCT FROM CASE entry.entry_type"
        " WHEN 'debit' THEN books.from_user_id ELSE books.to_user_id END"
        " AND wallet.id IS NOT NULL",
        "concat('its owner is not a party to transaction ', books.id)",
        _THE_ENTRY,
    ),
    Rule(
        2,
        "entry.wallet_id IS NOT NULL AND entry.amount <> books.amount",
        "concat('it moves another amount than transaction ', books.id)",
        _THE_ENTRY,
    ),
    Rule(
        2,
        "entry.created_at <> books.created_at",
        "concat('it has another time than transaction ', books.id)",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "entry.wallet_id IS NOT NULL AND entry.number IS NULL",
        "'has no proper number'",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "entry.number_before = entry.number",
        "'its number was given twice'",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "entry.number > 1 AND before.sequence IS NULL",
        "concat('there is no entry ', entry.number - 1, ': entries are missing')",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "(entry.sequence = 1 OR before.sequence IS NOT NULL)"
        f" AND entry.balance_after IS DISTINCT FROM {_BALANCE_BEFORE}"
        "   + CASE entry.entry_type WHEN 'credit' THEN entry.amount ELSE -entry.amount END",
        f"concat('balance ', entry.balance_after, ' does not follow from ', {_BALANCE_BEFORE})",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "entry.created_at < before.created_at",
        "'is older than the one before'",
        _THE_ENTRY,
    ),
    Rule(
        5,
        f"entry.account = 'adjustments' AND {_APPROVALS.format('entry', 'transaction_id')} <> 1",
        "'nobody approved this adjustment'",
        _THE_ENTRY,
    ),
    Rule(
        5,
        "books.type = 'refund' AND entry.wallet_id IS NULL"
        " AND (entry.account, entry.entry_type) <> ('gateway_clearing', 'credit')",
        "'a refund goes to a wallet or back to the gateway'",
        _THE_ENTRY,
    ),
    Rule(
        6,
        "entry.currency <> books.currency OR entry.currency <> wallet.currency",
        "concat('is in ', entry.currency, ', its transaction in ', books.currency)",
        _THE_ENTRY,
    ),
    Rule(
        7,
        "entry.wallet_id IS NOT NULL AND own.seal IS NULL",
        "'has no seal'",
        _THE_ENTRY,
    ),
    Rule(
        7,
        "own.is_second",
        "'its number was sealed twice'",
        _THE_ENTRY,
    ),
    Rule(
        7,
        "own.seal <> sha256(CASE entry.sequence WHEN 1 THEN decode(repeat('00', 32), 'hex')"
        "                   ELSE coalesce(own.previous, '') END || books.digest)",
        "concat('its seal does not fit: it, transaction ', books.id,"
        " ', or what came before was changed')",
        _THE_ENTRY,
    ),
]

# A number less its rank is the same all along a run. Within one, an entry follows the row before
# it; what else comes before an entry is looked up, for of a number given twice each counts. What
# lies in an index is looked up there (OFFSET 0 sees to it), whatever the planner believes about the
# sizes of the tables: else it would read whole tables for each chunk. An entry by its number: other
# indexes have its wallet, too, but none of them this order. Frames are of one row, for
# nothing looks at them. The texts are the first of the sums, so that the ids by which they are
# ordered stand before other texts: what stands behind one is found anew for each comparison.
_CHUNK = """
WITH mine AS MATERIALIZED (
    SELECT one.*,
           lag(number) OVER numbers AS number_before,
           lag(balance_after) OVER numbers AS balance_before,
           lag(created_at) OVER numbers AS created_before,
           wallet_id IS NOT NULL AND lag(number) OVER numbers = number - 1
               AND lag(number, 2) OVER numbers IS DISTINCT FROM number - 1 AS follows,
           number - row_number() OVER numbers AS run
      FROM (SELECT *, CASE WHEN sequence >= 1 THEN sequence END AS number
              FROM transactions_transactionledger
             WHERE transaction_id BETWEEN %(first)s AND %(last)s OFFSET 0) one
    WINDOW numbers AS (PARTITION BY wallet_id ORDER BY number
                       ROWS BETWEEN CURRENT ROW AND CURRENT ROW)
), earlier AS (
    SELECT mine.id, one.*
      FROM mine
     CROSS JOIN LATERAL (
           SELECT sequence, balance_after, created_at FROM transactions_transactionledger
            WHERE wallet_id = mine.wallet_id
              AND sequence BETWEEN mine.number - 1 AND mine.number - 1
            ORDER BY sequence OFFSET 0) one
     WHERE mine.follows IS NOT TRUE
), sums AS (
    SELECT one.transaction_id,
           string_agg(transactions_entry_text(one), '' ORDER BY one.id) AS texts,
           count(*) AS entries,
           count(one.wallet_id) AS in_wallets,
           coalesce(sum(one.amount) FILTER (WHERE one.entry_type = 'debit'), 0) AS debits,
           coalesce(sum(one.amount) FILTER (WHERE one.entry_type = 'credit'), 0) AS credits
      FROM transactions_transactionledger one
     WHERE one.transaction_id BETWEEN %(first)s AND %(last)s
     GROUP BY one.transaction_id
), books AS MATERIALIZED (
    SELECT made.id, made.type, made.status, made.amount, made.fee, made.refunded_amount,
           made.currency, made.from_user_id, made.to_user_id, made.parent_id,
           made.created_at, made.completed_at,
           coalesce(sums.entries, 0) AS entries,
           coalesce(sums.in_wallets, 0) AS in_wallets,
           coalesce(sums.debits, 0) AS debits,
           coalesce(sums.credits, 0) AS credits,
           transactions_books_digest(
               transactions_transaction_text(made), sums.entries, sums.texts) AS digest
      FROM transactions_transaction made
      LEFT JOIN sums ON sums.transaction_id = made.id
     WHERE made.id BETWEEN %(first)s AND %(last)s
), run AS MATERIALIZED (
    SELECT wallet_id, min(number) - 1 AS before, max(number) AS last
      FROM mine WHERE wallet_id IS NOT NULL
     GROUP BY wallet_id, run
), sealed AS (
    SELECT run.wallet_id, one.*
      FROM run
     CROSS JOIN LATERAL (
           SELECT sequence, seal,
                  lag(sequence) OVER numbers = sequence AS is_second,
                  CASE WHEN lag(sequence) OVER numbers = sequence - 1
                       THEN lag(seal) OVER numbers END AS previous
             FROM transactions_ledgerseal
            WHERE wallet_id = run.wallet_id AND sequence BETWEEN run.before AND run.last
           WINDOW numbers AS (ORDER BY sequence ROWS BETWEEN CURRENT ROW AND CURRENT ROW)) one
     WHERE one.sequence > run.before
), wallet AS MATERIALIZED (
    SELECT one.*
      FROM (SELECT DISTINCT wallet_id AS id FROM run) touched
     CROSS JOIN LATERAL (
           SELECT id, user_id, currency FROM wallet_wallet WHERE id = touched.id OFFSET 0) one
)"""

_BROKEN = " UNION ALL ".join(
    [
        _CHUNK + select_broken(_TRANSACTION_RULES, " FROM books"),
        select_broken(
            _ENTRY_RULES,
            """
  FROM mine entry
  JOIN books ON books.id = entry.transaction_id
  LEFT JOIN wallet ON wallet.id = entry.wallet_id
  LEFT JOIN sealed own ON (own.wallet_id, own.sequence) = (entry.wallet_id, entry.sequence)
  LEFT JOIN earlier ON earlier.id = entry.id
 CROSS JOIN LATERAL (
       SELECT CASE WHEN follows THEN number_before ELSE earlier.sequence END AS sequence,
              CASE WHEN follows THEN balance_before ELSE earlier.balance_after END AS balance_after,
              CASE WHEN follows THEN created_before ELSE earlier.created_at END AS created_at
       ) before
""",
        ),
    ]
)

_ENTRIES_AND_ORPHANS = """
SELECT count(*), array_agg(entry.id) FILTER (WHERE made.id IS NULL)
  FROM transactions_transactionledger entry
  LEFT JOIN transactions_transaction made
    ON made.id = entry.transaction_id AND made.id BETWEEN %(first)s AND %(last)s
 WHERE entry.transaction_id BETWEEN %(first)s AND %(last)s
"""


def check(snapshot: str) -> Iterator[Step]:
    yield from in_parallel(snapshot, _check_range, ranges("transactions_transaction", CHUNK))


def _check_range(part: Range) -> Step:
    """The transactions with ids in the range, and the entries that say they belong to them."""
    # The parts of a chunk are joined whole. Statistics that are behind make the planner believe
    # that they are a row or two, and compare each with each.
    execute("SET LOCAL enable_nestloop = off")
    [(entries, orphans)] = query(_ENTRIES_AND_ORPHANS, first=part.first, last=part.last)
    found = breaches(query(_BROKEN, first=part.first, last=part.last))
    execute("SET LOCAL enable_nestloop = on")
    found += [Breach(2, f"entry {entry}", "its transaction is gone") for entry in orphans or []]
    return Step(entries, found)
