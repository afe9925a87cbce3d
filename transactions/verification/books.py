"""Transactions and their entries: balanced, numbered, running, sealed.

Each entry is judged beside the wallet's entry before it and the seals of both. If every link
holds, the whole chain holds, so nothing has to be walked in order.
"""

from collections.abc import Iterator
from uuid import UUID

from fintech_core.database import query
from transactions.verification.findings import Breach, Rule, Step, breaches, select_broken
from transactions.verification.snapshot import in_parallel

CHUNK = 10_000
_FIRST = UUID(int=0)
_LAST = UUID(int=2**128 - 1)

_THE_TRANSACTION = "concat('transaction ', books.id)"
_THE_ENTRY = (
    "CASE WHEN entry.wallet_id IS NULL THEN concat('entry ', entry.id) "
    "ELSE concat('wallet ', entry.wallet_id, ', entry ', entry.sequence) END"
)
_REFUNDED = "CASE books.type WHEN 'refund' THEN books.parent_id ELSE books.id END"
_SAID_REFUNDED = f"(SELECT refunded_amount FROM transactions_transaction WHERE id = {_REFUNDED})"  # noqa: S608
_REFUNDS = (
    "(SELECT sum(amount) FROM transactions_transaction"  # noqa: S608 - our own words
    f" WHERE parent_id = {_REFUNDED} AND type = 'refund')"
)

_RULES = [
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
        f" AND {_SAID_REFUNDED} IS DISTINCT FROM {_REFUNDS}",
        "'what was refunded is not the sum of the refunds'",
        f"concat('transaction ', {_REFUNDED})",
    ),
    Rule(
        5,
        "books.type = 'capture' AND NOT EXISTS (SELECT FROM transactions_hold"
        "                                        WHERE transaction_id = books.id)",
        "'no hold was captured by it'",
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
        "books.type <> 'withdrawal' AND books.completed_at IS DISTINCT FROM books.created_at",
        "'it was not completed when it was made'",
        _THE_TRANSACTION,
    ),
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
        "entry.created_at <> books.created_at",
        "concat('it has another time than transaction ', books.id)",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "entry.wallet_id IS NOT NULL AND coalesce(entry.sequence, 0) < 1",
        "'has no proper number'",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "entry.sequence > 1 AND before.id IS NULL",
        "concat('there is no entry ', entry.sequence - 1, ': entries are missing')",
        _THE_ENTRY,
    ),
    Rule(
        3,
        "(entry.sequence = 1 OR before.id IS NOT NULL)"
        " AND entry.balance_after <> coalesce(before.balance_after, 0)"
        "   + CASE entry.entry_type WHEN 'credit' THEN entry.amount ELSE -entry.amount END",
        "concat('balance ', entry.balance_after, ' does not follow from ',"
        " coalesce(before.balance_after, 0))",
        _THE_ENTRY,
    ),
    Rule(3, "entry.created_at < before.created_at", "'is older than the one before'", _THE_ENTRY),
    Rule(
        6,
        "entry.currency <> books.currency OR entry.currency <> wallet.currency",
        "concat('is in ', entry.currency, ', its transaction in ', books.currency)",
        _THE_ENTRY,
    ),
    Rule(
        7,
        "entry.wallet_id IS NOT NULL AND seal.seal IS NULL",
        "'has no seal'",
        _THE_ENTRY,
    ),
    Rule(
        7,
        "seal.seal <> sha256(CASE entry.sequence WHEN 1 THEN decode(repeat('00', 32), 'hex')"
        "                    ELSE coalesce(sealed_before.seal, '') END || books.digest)",
        "concat('its seal does not fit: it, transaction ', books.id,"
        " ', or what came before was changed')",
        _THE_ENTRY,
    ),
    Rule(
        7,
        "books.in_wallets = 0 AND NOT EXISTS (SELECT FROM transactions_outsideseal"
        "                                      WHERE transaction_id = books.id)",
        "'has no seal'",
        _THE_TRANSACTION,
    ),
]

# Every join is a look-up in an index (OFFSET 0 sees to it), whatever the planner believes about the
# sizes of the tables: else it would read whole tables for each chunk.
_BROKEN = select_broken(
    _RULES,
    """
  FROM transactions_transaction made
  JOIN LATERAL (
       SELECT count(*) AS entries,
              count(one.wallet_id) AS in_wallets,
              coalesce(sum(one.amount) FILTER (WHERE one.entry_type = 'debit'), 0) AS debits,
              coalesce(sum(one.amount) FILTER (WHERE one.entry_type = 'credit'), 0) AS credits,
              string_agg(transactions_entry_text(one), '' ORDER BY one.id) AS texts
         FROM transactions_transactionledger one
        WHERE one.transaction_id = made.id) sums ON true
  JOIN LATERAL (
       SELECT made.*, sums.entries, sums.in_wallets, sums.debits, sums.credits,
              transactions_books_digest(
                  transactions_transaction_text(made), sums.entries, sums.texts) AS digest
       OFFSET 0) books ON true
  LEFT JOIN LATERAL (
       SELECT * FROM transactions_transactionledger
        WHERE transaction_id = made.id OFFSET 0) entry ON true
  LEFT JOIN LATERAL (
       SELECT id, user_id, currency FROM wallet_wallet
        WHERE id = entry.wallet_id OFFSET 0) wallet ON true
  LEFT JOIN LATERAL (
       SELECT id, balance_after, created_at FROM transactions_transactionledger
        WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence - 1 OFFSET 0) before ON true
  LEFT JOIN LATERAL (
       SELECT seal FROM transactions_ledgerseal
        WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence OFFSET 0) seal ON true
  LEFT JOIN LATERAL (
       SELECT seal FROM transactions_ledgerseal
        WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence - 1 OFFSET 0
       ) sealed_before ON true
""",
    within="made.id BETWEEN %(first)s AND %(last)s",
)

_LAST_OF_RANGE = """
SELECT id FROM transactions_transaction WHERE id >= %(first)s ORDER BY id OFFSET %(chunk)s LIMIT 1
"""

_ENTRIES_AND_ORPHANS = """
SELECT count(*), array_agg(entry.id) FILTER (WHERE made.id IS NULL)
  FROM transactions_transactionledger entry
  LEFT JOIN transactions_transaction made
    ON made.id = entry.transaction_id AND made.id BETWEEN %(first)s AND %(last)s
 WHERE entry.transaction_id BETWEEN %(first)s AND %(last)s
"""

_Range = tuple[UUID, UUID]  # of transactions' ids: the first and the last


def check(snapshot: str) -> Iterator[Step]:
    ranges = _ranges()
    yield _check_range(next(ranges))
    yield from in_parallel(snapshot, _check_range, ranges)


def _ranges() -> Iterator[_Range]:
    """Together they hold every id there can be, for an entry may name one that there is not."""
    first = _FIRST
    while ends := query(_LAST_OF_RANGE, first=first, chunk=CHUNK - 1):
        last = ends[0][0]
        yield first, last
        if last == _LAST:
            return
        first = UUID(int=last.int + 1)
    yield first, _LAST


def _check_range(bounds: _Range) -> Step:
    """The transactions with ids in the range, and the entries that say they belong to them."""
    first, last = bounds
    [(entries, orphans)] = query(_ENTRIES_AND_ORPHANS, first=first, last=last)
    found = breaches(query(_BROKEN, first=first, last=last))
    found += [Breach(2, f"entry {entry}", "its transaction is gone") for entry in orphans or []]
    return Step(entries, found)
