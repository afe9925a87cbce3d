"""Ledgers of any length, made inside the database: ten million entries in minutes.

The triggers are off meanwhile, so the rows must be exactly what they would have let in: numbered,
running, sealed, each wallet at its newest entry. `verify_ledger` is the judge of that.

One statement makes a batch of transfers, small enough to be sorted and joined in memory, and the
next one goes on where it left the wallets: so the time grows as the ledger does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import extensions

from benchmarks.servers import Database

BATCH = 100_000  # transfers

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = "".join(first + second for first in _LETTERS for second in _LETTERS)

# What `transactions.posting` computes in Python: the reference that an id stands for, from the bits
# of it, two letters at a time.
_REFERENCE = "'TX-' || convert_from({}, 'UTF8')".format(
    " || ".join(
        f"substring('{_PAIRS}'::bytea FROM 1 + 2 * substring(bits FROM {first} FOR 10)::int FOR 2)"
        for first in range(1, 131, 10)
    )
)

# UUIDs of version 7, in the order of the ledger: those of one millisecond by its microseconds, and
# then by `place`, for which there are two bits.
_NEW_ID = """
CREATE FUNCTION pg_temp.new_id(micros bigint, place int) RETURNS uuid LANGUAGE sql
RETURN encode(int8send((micros / 1000 << 16) | x'7000'::int | (micros % 1000 << 2) | place)
              || int8send((1::bigint << 63) | random(0, (1::bigint << 62) - 1)), 'hex')::uuid;
"""

# Whoever has money pays. The merchant comes last among those who are paid. Time runs from the
# newest entry to now.
_STAGE = """
CREATE TEMPORARY TABLE payers ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY id) AS place, id AS wallet_id, user_id, currency
  FROM wallet_wallet WHERE entry_count > 0;

CREATE TEMPORARY TABLE payees ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY people.email = %(merchant)s, wallet.id) AS place,
       wallet.id AS wallet_id, wallet.user_id
  FROM wallet_wallet wallet JOIN users_user people ON people.id = wallet.user_id
 WHERE people.kyc_status = 'approved' AND wallet.entry_count = 0;

CREATE TEMPORARY TABLE span ON COMMIT DROP AS
SELECT max(last_entry_at) AS begins, clock_timestamp() - max(last_entry_at) AS length
  FROM wallet_wallet;

ANALYZE payers, payees, span;
"""

# Amounts stay below 10.00, so that nobody's money runs out.
_MOVEMENTS = """
drawn AS MATERIALIZED (
    SELECT number, span.begins + span.length * (number / %(transfers)s::float8) AS moment,
           1 + floor(random() * (SELECT count(*) FROM payers))::int AS payer,
           CASE WHEN number %% %(merchant_every)s = 0 THEN (SELECT count(*) FROM payees)
                ELSE 1 + floor(random() * (SELECT count(*) - 1 FROM payees))::int END AS payee,
           ((1 + floor(random() * 999)) / 100)::numeric(15, 2) AS amount
      FROM generate_series(%(first)s, %(last)s) number CROSS JOIN span
), timed AS MATERIALIZED (
    SELECT *, (extract(epoch FROM moment) * 1000000)::bigint AS micros FROM drawn
), movements AS MATERIALIZED (
    SELECT pg_temp.new_id(micros, 0) AS id, number, moment, micros, amount, payer.currency,
           payer.wallet_id AS payer_wallet, payer.user_id AS payer_user,
           payee.wallet_id AS payee_wallet, payee.user_id AS payee_user
      FROM timed
      JOIN payers payer ON payer.place = timed.payer
      JOIN payees payee ON payee.place = timed.payee
), sides AS MATERIALIZED (
    SELECT side.*, wallet.entry_count + row_number() OVER history AS sequence,
           wallet.balance + sum(CASE entry_type WHEN 'credit' THEN amount ELSE -amount END)
                            OVER history AS balance_after
      FROM (SELECT id, number, moment, micros, amount, currency, payer_wallet AS wallet_id,
                   1 AS place, 'debit' AS entry_type FROM movements
            UNION ALL
            SELECT id, number, moment, micros, amount, currency, payee_wallet, 2, 'credit'
              FROM movements) side
      JOIN wallet_wallet wallet ON wallet.id = side.wallet_id
    WINDOW history AS (PARTITION BY wallet_id ORDER BY number)
)"""

# The texts that are sealed are those of the rows as they were stored.
_LEDGER = f"""
made AS (
    INSERT INTO transactions_transaction AS made (
        id, reference_id, type, status, amount, currency, fee, refunded_amount, from_user_id,
        to_user_id, description, metadata, created_at, completed_at)
    SELECT id, {_REFERENCE}, 'transfer', 'completed', amount, currency, 0, 0, payer_user,
           payee_user, '', '{{}}', moment, moment
      FROM (SELECT *, ('x' || encode(uuid_send(id), 'hex'))::bit(130) AS bits
              FROM movements ORDER BY number OFFSET 0) movement
    RETURNING id, transactions_transaction_text(made) AS text
), entries AS (
    INSERT INTO transactions_transactionledger AS entry (
        id, transaction_id, account, wallet_id, sequence, entry_type, amount, currency,
        balance_after, created_at)
    SELECT pg_temp.new_id(micros, place), id, 'wallet', wallet_id, sequence, entry_type, amount,
           currency, balance_after, moment
      FROM sides ORDER BY number, place
    RETURNING id, transaction_id, wallet_id, sequence, transactions_entry_text(entry) AS text
), spent AS (
    INSERT INTO wallet_debitbucket AS bucket (wallet_id, hour, total, count)
    SELECT payer_wallet, date_trunc('hour', moment, 'UTC'), sum(amount), count(*)
      FROM movements GROUP BY 1, 2
    ON CONFLICT (wallet_id, hour) DO UPDATE
       SET total = bucket.total + excluded.total, count = bucket.count + excluded.count
)"""  # noqa: S608 - our own words

# OFFSET 0: a wallet's newest seal is looked up, however long the table seems to be.
_SEALS = """
digests AS MATERIALIZED (
    SELECT made.id, transactions_books_digest(
               made.text, count(*), string_agg(entries.text, '' ORDER BY entries.id)) AS digest
      FROM made JOIN entries ON entries.transaction_id = made.id
     GROUP BY made.id, made.text
), heads AS MATERIALIZED (
    SELECT wallet.id, coalesce(newest.seal, decode(repeat('00', 32), 'hex')) AS seal
      FROM wallet_wallet wallet
      LEFT JOIN LATERAL (
           SELECT seal FROM transactions_ledgerseal
            WHERE wallet_id = wallet.id AND sequence = wallet.entry_count OFFSET 0) newest ON true
), seals AS (
    INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)
    SELECT entries.wallet_id, entries.sequence,
           transactions_seals(heads.seal, digests.digest)
           OVER (PARTITION BY entries.wallet_id ORDER BY entries.sequence)
      FROM entries
      JOIN digests ON digests.id = entries.transaction_id
      JOIN heads ON heads.id = entries.wallet_id
)"""

_WALLETS = """
UPDATE wallet_wallet wallet
   SET balance = newest.balance_after, entry_count = newest.sequence,
       last_entry_at = newest.moment, updated_at = newest.moment
  FROM (SELECT DISTINCT ON (wallet_id) wallet_id, balance_after, sequence, moment
          FROM sides ORDER BY wallet_id, sequence DESC) newest
 WHERE wallet.id = newest.wallet_id
"""

_TRANSFERS = "WITH " + ", ".join([_MOVEMENTS, _LEDGER, _SEALS]) + _WALLETS

# Sorting an index once takes a fraction of the time of finding each row its place, above all when
# the index no longer fits into memory. Nothing is dropped that could come back another: PostgreSQL
# is told that these indexes lag behind, as after a failed CREATE INDEX CONCURRENTLY, and REINDEX is
# what ends that. It refuses what is not unique.
_INDEXED_LATER = ("transactions_transaction", "transactions_transactionledger")
_LAG = """
UPDATE pg_index SET indisready = false, indisvalid = false WHERE indrelid = %(table)s::regclass
"""


def grow(
    database: Database, *, transfers: int, merchant: str, merchant_every: int, seed: int
) -> None:
    """Two entries for each transfer, in a copy of the people that nobody has used yet.

    One in `merchant_every` transfers goes to the person with the email `merchant`. The owner must
    be a superuser.
    """
    facts = {"transfers": transfers, "merchant": merchant, "merchant_every": merchant_every}
    with database.as_owner() as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        _settle(cursor, seed)
        cursor.execute(_NEW_ID)
        cursor.execute(_STAGE, facts)
        with _indexed_later(cursor):
            for first in range(1, transfers + 1, BATCH):
                last = min(first + BATCH - 1, transfers)
                cursor.execute(_TRANSFERS, {**facts, "first": first, "last": last})
        cursor.execute("COMMIT")
        cursor.execute("VACUUM (ANALYZE)")


def _settle(cursor: extensions.cursor, seed: int) -> None:
    cursor.execute("SET LOCAL session_replication_role = replica")
    cursor.execute("SET LOCAL work_mem = '256MB'")
    cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
    cursor.execute("SET LOCAL jit = off")  # it would compile anew for each batch
    cursor.execute("SELECT setseed(%s)", [seed % 1000 / 1000])


@contextmanager
def _indexed_later(cursor: extensions.cursor) -> Iterator[None]:
    """Within the transaction of the caller, so nobody ever sees an index that lags behind."""
    for table in _INDEXED_LATER:
        cursor.execute(_LAG, {"table": table})
    yield
    for table in _INDEXED_LATER:
        cursor.execute(f"REINDEX TABLE {table}")
