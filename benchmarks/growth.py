"""Ledgers of any length, made inside the database: millions of entries in minutes.

The triggers are off meanwhile, so the rows must be exactly what they would have let in: numbered,
running, sealed, each wallet at its newest entry. `verify_ledger` is the judge of that.
"""

from psycopg2 import extensions

from benchmarks.servers import Database

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_REFERENCE = " || ".join(
    f"substr('{_ALPHABET}', 1 + substring(bits FROM {first} FOR 5)::int, 1)"
    for first in range(1, 131, 5)
)

# What `transactions.posting` computes in Python: UUIDs of version 7 (`place` orders those of one
# moment), and the reference that an id stands for. And a chain of seals as a running aggregate.
_FUNCTIONS = f"""
CREATE FUNCTION pg_temp.new_id(moment timestamptz, place int) RETURNS uuid LANGUAGE sql
RETURN encode(substring(int8send(floor(extract(epoch FROM moment) * 1000)::bigint) FROM 3)
              || int2send((x'7000'::int + place)::smallint)
              || substring(uuid_send(gen_random_uuid()) FROM 9), 'hex')::uuid;

CREATE FUNCTION pg_temp.reference(id uuid) RETURNS text LANGUAGE sql AS $$
SELECT 'TX-' || {_REFERENCE}
  FROM (SELECT ('x' || replace(id::text, '-', ''))::bit(128) || B'00' AS bits) made $$;

CREATE FUNCTION pg_temp.next_seal(seal bytea, first bytea, digest bytea) RETURNS bytea
LANGUAGE sql RETURN sha256(coalesce(seal, first) || digest);
CREATE AGGREGATE pg_temp.chain(bytea, bytea) (sfunc = pg_temp.next_seal, stype = bytea);
"""  # noqa: S608 - our own words

# Whoever has money pays. The merchant comes last among those who are paid.
_PEOPLE = """
CREATE TEMPORARY TABLE payers AS
SELECT row_number() OVER (ORDER BY id) AS place, id AS wallet_id, user_id, currency
  FROM wallet_wallet WHERE entry_count > 0;

CREATE TEMPORARY TABLE payees AS
SELECT row_number() OVER (ORDER BY people.email = %(merchant)s, wallet.id) AS place,
       wallet.id AS wallet_id, wallet.user_id
  FROM wallet_wallet wallet JOIN users_user people ON people.id = wallet.user_id
 WHERE people.kyc_status = 'approved' AND wallet.entry_count = 0;
"""

# Amounts stay below 10.00, so that nobody's money runs out. Time runs from the newest entry to now.
_MOVEMENTS = """
CREATE TEMPORARY TABLE movements AS
WITH drawn AS MATERIALIZED (
    SELECT number,
           1 + floor(random() * (SELECT count(*) FROM payers))::int AS payer,
           CASE WHEN number %% %(merchant_every)s = 0 THEN (SELECT count(*) FROM payees)
                ELSE 1 + floor(random() * (SELECT count(*) - 1 FROM payees))::int END AS payee,
           ((1 + floor(random() * 999)) / 100)::numeric(15, 2) AS amount
      FROM generate_series(1, %(transfers)s) number
), span AS MATERIALIZED (
    SELECT max(last_entry_at) AS begins, clock_timestamp() - max(last_entry_at) AS length
      FROM wallet_wallet
), timed AS (
    SELECT drawn.*, span.begins + span.length * (number / %(transfers)s::float8) AS moment
      FROM drawn CROSS JOIN span
)
SELECT pg_temp.new_id(moment, 0) AS id, number, moment, amount, payer.currency,
       payer.wallet_id AS payer_wallet, payer.user_id AS payer_user,
       payee.wallet_id AS payee_wallet, payee.user_id AS payee_user
  FROM timed
  JOIN payers payer ON payer.place = timed.payer
  JOIN payees payee ON payee.place = timed.payee;

CREATE TEMPORARY TABLE sides AS
SELECT side.*, wallet.entry_count AS counted_before,
       wallet.entry_count + row_number() OVER history AS sequence,
       wallet.balance + sum(CASE entry_type WHEN 'credit' THEN amount ELSE -amount END)
                        OVER history AS balance_after
  FROM (SELECT id, number, moment, amount, currency, payer_wallet AS wallet_id,
               1 AS place, 'debit' AS entry_type FROM movements
        UNION ALL
        SELECT id, number, moment, amount, currency, payee_wallet, 2, 'credit'
          FROM movements) side
  JOIN wallet_wallet wallet ON wallet.id = side.wallet_id
WINDOW history AS (PARTITION BY wallet_id ORDER BY number);
"""

_LEDGER = """
INSERT INTO transactions_transaction (
    id, reference_id, type, status, amount, currency, fee, refunded_amount, from_user_id,
    to_user_id, description, metadata, created_at, completed_at)
SELECT id, pg_temp.reference(id), 'transfer', 'completed', amount, currency, 0, 0, payer_user,
       payee_user, '', '{}', moment, moment
  FROM movements ORDER BY number;

INSERT INTO transactions_transactionledger (
    id, transaction_id, account, wallet_id, sequence, entry_type, amount, currency,
    balance_after, created_at)
SELECT pg_temp.new_id(moment, place), id, 'wallet', wallet_id, sequence, entry_type, amount,
       currency, balance_after, moment
  FROM sides ORDER BY number, place;

INSERT INTO wallet_debitbucket (wallet_id, hour, total, count)
SELECT payer_wallet, date_trunc('hour', moment, 'UTC'), sum(amount), count(*)
  FROM movements GROUP BY 1, 2;

ANALYZE transactions_transaction, transactions_transactionledger;
"""

_SEALS = """
CREATE TEMPORARY TABLE digests AS SELECT id, transactions_digest(id) AS digest FROM movements;
ANALYZE digests, sides;

INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)
SELECT side.wallet_id, side.sequence,
       pg_temp.chain(coalesce(newest.seal, decode(repeat('00', 32), 'hex')), digests.digest)
       OVER (PARTITION BY side.wallet_id ORDER BY side.sequence)
  FROM sides side
  JOIN digests ON digests.id = side.id
  LEFT JOIN transactions_ledgerseal newest
    ON newest.wallet_id = side.wallet_id AND newest.sequence = side.counted_before;
"""

_WALLETS = """
UPDATE wallet_wallet wallet
   SET balance = newest.balance_after, entry_count = newest.sequence,
       last_entry_at = newest.moment, updated_at = newest.moment
  FROM (SELECT DISTINCT ON (wallet_id) wallet_id, balance_after, sequence, moment
          FROM sides ORDER BY wallet_id, sequence DESC) newest
 WHERE wallet.id = newest.wallet_id;
"""

_STEPS = (_FUNCTIONS, _PEOPLE, _MOVEMENTS, _LEDGER, _SEALS, _WALLETS)


def grow(
    database: Database, *, transfers: int, merchant: str, merchant_every: int, seed: int
) -> None:
    """Two entries for each transfer, in a copy of the people that nobody has used yet.

    One in `merchant_every` transfers goes to the person with the email `merchant`. The owner must
    be a superuser, or be granted SET on `session_replication_role`.
    """
    facts = {"transfers": transfers, "merchant": merchant, "merchant_every": merchant_every}
    with database.as_owner() as session:
        _write(session, facts, seed)
        with session.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")


def _write(session: extensions.connection, facts: dict[str, object], seed: int) -> None:
    with session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("SET LOCAL work_mem = '256MB'")
        cursor.execute("SELECT setseed(%s)", [seed % 1000 / 1000])
        for step in _STEPS:
            cursor.execute(step, facts if "%(" in step else None)
        cursor.execute("COMMIT")
