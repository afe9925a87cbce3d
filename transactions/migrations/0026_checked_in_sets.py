"""The ledger is checked and sealed in sets: what one statement inserts by one query, what a
database transaction has made by two. The rules are the ones they were.

Row by row, a batch of a thousand transfers asked eight questions of each. Now one look at the
entries serves all rules about them, and whichever transaction's turn comes first at the commit has
all of them checked and sealed.

Each look within these queries is one key of one index. `LIMIT 1` sees to that: a join could be
planned as a scan while the tables are small, and the plan would be kept when they have grown.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from importlib import import_module

from django.db import migrations

_RULES = import_module("transactions.migrations.0002_ledger_rules")
_ONCE = import_module("transactions.migrations.0010_one_check_per_transaction")
_TO_SOURCE = import_module("transactions.migrations.0016_refunds_to_source")

# After the statement, so that entries of one wallet may come in any order. What was sealed early,
# which SET CONSTRAINTS can call for, takes no entry any more: one sealed entry tells, for all of a
# transaction's are sealed together. And what one database transaction makes has one order, that of
# the ids: two that each stand on what the other brought would make money of nothing.
ENTRIES_FIT = """
DROP TRIGGER transactions_ledger_entry_fits ON transactions_transactionledger;
DROP TRIGGER transactions_ledger_books_are_open ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_books_are_open();

CREATE OR REPLACE FUNCTION transactions_ledger_entry_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    stray record;
BEGIN
    SELECT sealed.transaction_id INTO stray FROM (
        SELECT made.transaction_id,
               (SELECT true FROM transactions_transactionledger entry
                 WHERE entry.transaction_id = made.transaction_id
                   AND (SELECT true FROM transactions_ledgerseal
                         WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence LIMIT 1)
                 LIMIT 1) AS in_wallets,
               (SELECT true FROM transactions_outsideseal
                 WHERE transaction_id = made.transaction_id LIMIT 1) AS outside
          FROM (SELECT DISTINCT transaction_id FROM posted) made
    ) sealed WHERE in_wallets OR outside LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction %: its books are closed', stray.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_books_are_closed';
    END IF;
    SELECT judged.* INTO stray FROM (
        SELECT entry.*, earlier.balance_after AS balance_before,
               CASE
                   WHEN made.posted_in IS DISTINCT FROM pg_current_xact_id()
                   THEN 'transactions_ledger_books_are_closed'
                   WHEN (entry.currency, entry.created_at) <> (made.currency, made.created_at)
                   THEN 'transactions_ledger_agrees_with_transaction'
                   WHEN entry.wallet_id IS NULL THEN NULL
                   WHEN entry.currency IS DISTINCT FROM holder.currency
                   THEN 'transactions_ledger_currency_is_the_wallets'
                   WHEN holder.user_id IS DISTINCT FROM CASE entry.entry_type
                       WHEN 'debit' THEN made.from_user_id ELSE made.to_user_id END
                   THEN 'transactions_ledger_wallet_is_the_partys'
                   WHEN entry.sequence < 1 OR entry.sequence > 1 AND earlier.balance_after IS NULL
                   THEN 'transactions_ledger_numbered_without_gaps'
                   WHEN entry.balance_after <> coalesce(earlier.balance_after, 0)
                        + CASE entry.entry_type WHEN 'credit' THEN entry.amount
                                                ELSE -entry.amount END
                   THEN 'transactions_ledger_running_balance'
                   WHEN entry.created_at < earlier.created_at
                   THEN 'transactions_ledger_time_runs_forward'
                   WHEN entry.transaction_id < earlier.transaction_id
                        AND pg_current_xact_id() = (
                            SELECT posted_in FROM transactions_transaction
                             WHERE id = earlier.transaction_id LIMIT 1)
                   THEN 'transactions_ledger_follows_one_order'
               END AS broken
          FROM posted entry
          LEFT JOIN LATERAL (SELECT posted_in, currency, created_at, from_user_id, to_user_id
                               FROM transactions_transaction
                              WHERE id = entry.transaction_id LIMIT 1) made ON true
          LEFT JOIN LATERAL (SELECT currency, user_id FROM wallet_wallet
                              WHERE id = entry.wallet_id LIMIT 1) holder ON true
          LEFT JOIN LATERAL (SELECT transaction_id, balance_after, created_at
                               FROM transactions_transactionledger
                              WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence - 1
                              LIMIT 1) earlier ON true
    ) judged WHERE broken IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction %, %: a % of % %, wallet %, entry %, from % to %',
            stray.transaction_id, stray.broken, stray.entry_type, stray.amount, stray.currency,
            stray.wallet_id, stray.sequence, stray.balance_before, stray.balance_after
            USING ERRCODE = '23514', CONSTRAINT = stray.broken;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER transactions_ledger_entry_fits AFTER INSERT ON transactions_transactionledger
    REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_ledger_entry_fits();
"""

EACH_ENTRY_FITS = (
    """
DROP TRIGGER transactions_ledger_entry_fits ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_entry_fits();
"""
    + _RULES.CONTINUOUS
    + _ONCE.CLOSED_BOOKS.replace("CREATE OR REPLACE FUNCTION", "CREATE FUNCTION").replace(
        "DROP TRIGGER transactions_ledger_books_are_open ON transactions_transactionledger;\n", ""
    )
)

# A chain over the digests of a wallet's next transactions, from the seal before them.
CHAIN = """
CREATE FUNCTION transactions_next_seal(seal bytea, earlier bytea, digest bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(coalesce(seal, earlier) || digest);

CREATE AGGREGATE transactions_seals(earlier bytea, digest bytea) (
    SFUNC = transactions_next_seal, STYPE = bytea
);
"""
NO_CHAIN = """
DROP AGGREGATE transactions_seals(bytea, bytea);
DROP FUNCTION transactions_next_seal(bytea, bytea, bytea);
"""

# An entry's wallet is its side's party already (`transactions_ledger_entry_fits`), so it is enough
# to count them. A wallet that has come as far as the entry was changed with it, and is compared
# with its ledger because it was changed.
SEALED_TOGETHER = """
CREATE OR REPLACE FUNCTION transactions_transaction_seal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    zero constant bytea := decode(repeat('00', 32), 'hex');
    judged record;
    ids uuid[];
    digests bytea[];
    outside_ids uuid[];
    outside_digests bytea[];
BEGIN
    -- Perhaps it was with the first of this database transaction.
    IF (SELECT true FROM transactions_transactionledger entry
         WHERE entry.transaction_id = NEW.id
           AND (SELECT true FROM transactions_ledgerseal
                 WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence LIMIT 1)
         LIMIT 1)
       OR NEW.from_user_id IS NULL AND NEW.to_user_id IS NULL
          AND EXISTS (SELECT FROM transactions_outsideseal WHERE transaction_id = NEW.id) THEN
        RETURN NULL;
    END IF;
    FOR judged IN
        SELECT made.id, made.type, made.amount, made.currency, made.fee, made.created_at,
               books.entries, books.debits, books.credits, books.wallets,
               transactions_books_digest(
                   transactions_transaction_text(made), books.entries, books.texts) AS digest,
               CASE
                   WHEN books.entries < 2 OR books.debits <> books.credits
                   THEN 'transactions_transaction_balances'
                   -- No fee is charged so far. Whoever charges one says here what each wallet
                   -- then moves.
                   WHEN books.debits <> made.amount OR books.parts > 0 OR made.fee <> 0
                   THEN 'transactions_transaction_says_what_it_moves'
                   WHEN books.wallets <> num_nonnulls(made.from_user_id, made.to_user_id)
                        OR NOT CASE made.type
                            WHEN 'deposit' THEN made.from_user_id IS NULL
                                AND (books.wallets = 1
                                     OR books.entries = 2 AND books.suspended = 2)
                            WHEN 'withdrawal' THEN books.wallets = 1
                                AND made.from_user_id IS NOT NULL
                            WHEN 'adjustment' THEN books.wallets = 1 AND books.elsewhere = 0
                            WHEN 'reversal' THEN true
                            WHEN 'refund' THEN made.from_user_id IS NOT NULL
                            ELSE books.wallets = 2
                        END
                   THEN 'transactions_transaction_moves_its_parties'
                   -- The moment is read after the database transaction began. But clocks step back.
                   WHEN made.created_at < now() - interval '1 minute'
                   THEN 'transactions_transaction_not_from_the_past'
                   -- A moment ahead of the clock can only be that of a wallet's previous entry.
                   WHEN made.created_at > clock_timestamp() AND NOT EXISTS (
                       SELECT FROM transactions_transactionledger entry
                        WHERE entry.transaction_id = made.id
                          AND made.created_at = (
                              SELECT created_at FROM transactions_transactionledger earlier
                               WHERE earlier.wallet_id = entry.wallet_id
                                 AND earlier.sequence = entry.sequence - 1
                               LIMIT 1))
                   THEN 'transactions_transaction_not_from_the_future'
                   WHEN books.behind > 0 THEN 'wallet_wallet_balance_is_its_ledgers'
               END AS broken
          FROM transactions_transaction made
         CROSS JOIN LATERAL (
               SELECT count(*) AS entries,
                      count(entry.wallet_id) AS wallets,
                      coalesce(sum(entry.amount) FILTER (WHERE entry.entry_type = 'debit'), 0)
                          AS debits,
                      coalesce(sum(entry.amount) FILTER (WHERE entry.entry_type = 'credit'), 0)
                          AS credits,
                      count(*) FILTER (WHERE entry.wallet_id IS NOT NULL
                                         AND entry.amount <> made.amount) AS parts,
                      count(*) FILTER (WHERE entry.account NOT IN ('wallet', 'adjustments'))
                          AS elsewhere,
                      count(*) FILTER (WHERE entry.sequence > (
                          SELECT entry_count FROM wallet_wallet
                           WHERE id = entry.wallet_id LIMIT 1)) AS behind,
                      count(*) FILTER (WHERE (entry.account, entry.entry_type)
                          IN (('gateway_clearing', 'debit'), ('suspense', 'credit')))
                          AS suspended,
                      string_agg(transactions_entry_text(entry), '' ORDER BY entry.id) AS texts
                 FROM transactions_transactionledger entry
                WHERE entry.transaction_id = made.id
               ) books
         WHERE made.posted_in = pg_current_xact_id()
           -- Sealed early; or long ago, in another cluster, whose transactions had these numbers.
           AND (SELECT true FROM transactions_transactionledger entry
                 WHERE entry.transaction_id = made.id
                   AND (SELECT true FROM transactions_ledgerseal
                         WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence LIMIT 1)
                 LIMIT 1) IS NULL
           AND (SELECT true FROM transactions_outsideseal
                 WHERE transaction_id = made.id LIMIT 1) IS NULL
    LOOP
        IF judged.broken IS NOT NULL THEN
            RAISE EXCEPTION 'transaction %, %: a % of % % at %, fee %; its % entries, % of them '
                'of wallets, debit % and credit %',
                judged.id, judged.broken, judged.type, judged.amount, judged.currency,
                judged.created_at, judged.fee, judged.entries, judged.wallets, judged.debits,
                judged.credits
                USING ERRCODE = '23514', CONSTRAINT = judged.broken;
        END IF;
        IF judged.wallets > 0 THEN
            ids := ids || judged.id;
            digests := digests || judged.digest;
        ELSE
            outside_ids := outside_ids || judged.id;
            outside_digests := outside_digests || judged.digest;
        END IF;
    END LOOP;
    -- The books are right, and are sealed.
    INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)
    SELECT unsealed.wallet_id, unsealed.sequence,
           transactions_seals(unsealed.earlier, made.digest)
               OVER (PARTITION BY unsealed.wallet_id ORDER BY unsealed.sequence)
      FROM unnest(ids, digests) made (id, digest)
     CROSS JOIN LATERAL (
           SELECT entry.wallet_id, entry.sequence,
                  CASE entry.sequence WHEN 1 THEN zero ELSE (
                      SELECT seal FROM transactions_ledgerseal
                       WHERE wallet_id = entry.wallet_id AND sequence = entry.sequence - 1
                       LIMIT 1) END AS earlier
             FROM transactions_transactionledger entry
            WHERE entry.transaction_id = made.id AND entry.wallet_id IS NOT NULL
           OFFSET 0
           ) unsealed;
    IF outside_ids IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock('transactions_outsideseal'::regclass::oid::bigint);
        INSERT INTO transactions_outsideseal (sequence, transaction_id, seal)
        SELECT previous.sequence + row_number() OVER (ORDER BY made.id), made.id,
               transactions_seals(previous.seal, made.digest) OVER (ORDER BY made.id)
          FROM unnest(outside_ids, outside_digests) made (id, digest)
         CROSS JOIN (SELECT coalesce(max(sequence), 0) AS sequence,
                            coalesce((array_agg(seal))[1], zero) AS seal
                       FROM (SELECT sequence, seal FROM transactions_outsideseal
                              ORDER BY sequence DESC LIMIT 1) newest) previous;
    END IF;
    RETURN NULL;
END $$;
"""

# One look instead of two, and no function that calls another: it runs for every wallet that moves.
WALLET_AGREES = """
CREATE OR REPLACE FUNCTION transactions_wallet_row_agrees() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    books record;
BEGIN
    SELECT wallet.balance, wallet.entry_count, wallet.last_entry_at,
           newest.balance_after, newest.sequence, newest.created_at
      INTO books
      FROM wallet_wallet wallet
      LEFT JOIN LATERAL (
           SELECT sequence, balance_after, created_at FROM transactions_transactionledger
            WHERE wallet_id = wallet.id ORDER BY sequence DESC LIMIT 1) newest ON true
     WHERE wallet.id = NEW.id;
    IF books.balance <> coalesce(books.balance_after, 0)
       OR books.entry_count <> coalesce(books.sequence, 0)
       OR books.last_entry_at IS DISTINCT FROM books.created_at THEN
        RAISE EXCEPTION 'wallet %: balance % after % entries, but its ledger says % after %',
            NEW.id, books.balance, books.entry_count,
            coalesce(books.balance_after, 0), coalesce(books.sequence, 0)
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_balance_is_its_ledgers';
    END IF;
    RETURN NULL;
END $$;
DROP FUNCTION transactions_wallet_agrees(uuid);
"""

# The two functions as they were, without the triggers, which stay.
WALLET_AGREED = _RULES.WALLET_AGREES.split("CREATE FUNCTION transactions_ledger_row_agrees", 1)[
    0
].replace(
    "CREATE FUNCTION transactions_wallet_row", "CREATE OR REPLACE FUNCTION transactions_wallet_row"
)


class Migration(migrations.Migration):
    dependencies = [("transactions", "0025_to_the_cent"), ("wallet", "0008_heard")]

    operations = [
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([ENTRIES_FIT], [EACH_ENTRY_FITS]),
        migrations.RunSQL([CHAIN], [NO_CHAIN]),
        migrations.RunSQL([SEALED_TOGETHER], [_TO_SOURCE.SEALED_TO_SOURCE]),
        migrations.RunSQL([WALLET_AGREES], [WALLET_AGREED]),
    ]
