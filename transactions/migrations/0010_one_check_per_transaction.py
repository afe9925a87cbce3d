"""One deferred check per transaction: it moves what it says, between whom it says, now; and then it
is sealed.

The checks ran for each entry as well, because SET CONSTRAINTS can call for one early, and what
joined after that went unchecked. Now nothing joins after that: a sealed transaction's books are
closed to every entry, and what seals it checks it first.

The ledger balanced, but who wrote past the application could make a fee of any size move more than
a hold, a refund or an approval allowed, take the money from somebody else's account, and date it at
will.
"""

from django.db import migrations

# One reading of the entries is enough for all of it. An entry's wallet is its side's party already
# (`transactions_ledger_entry_fits`), so it is enough to count them. A wallet that has come as far
# as the entry was changed with it, and is compared with its ledger because it was changed.
SEALED_ONCE_CHECKED = """
CREATE OR REPLACE FUNCTION transactions_transaction_seal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    zero constant bytea := decode(repeat('00', 32), 'hex');
    parties constant integer := num_nonnulls(NEW.from_user_id, NEW.to_user_id);
    books record;
    digest bytea;
BEGIN
    SELECT count(*) AS entries,
           count(entry.wallet_id) AS wallets,
           coalesce(sum(entry.amount) FILTER (WHERE entry.entry_type = 'debit'), 0) AS debits,
           coalesce(sum(entry.amount) FILTER (WHERE entry.entry_type = 'credit'), 0) AS credits,
           count(*) FILTER (WHERE entry.wallet_id IS NOT NULL AND entry.amount <> NEW.amount)
               AS parts,
           count(*) FILTER (WHERE entry.account NOT IN ('wallet', 'adjustments')) AS elsewhere,
           count(*) FILTER (WHERE wallet.entry_count < entry.sequence) AS behind,
           string_agg(transactions_entry_text(entry), '' ORDER BY entry.id) AS texts
      INTO books
      FROM transactions_transactionledger entry
      LEFT JOIN wallet_wallet wallet ON wallet.id = entry.wallet_id
     WHERE entry.transaction_id = NEW.id;
    IF books.entries < 2 OR books.debits <> books.credits THEN
        RAISE EXCEPTION 'transaction %: % entries, debits % and credits % do not balance',
            NEW.id, books.entries, books.debits, books.credits
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_balances';
    END IF;
    -- No fee is charged so far. Whoever charges one says here what each wallet then moves.
    IF books.debits <> NEW.amount OR books.parts > 0 OR NEW.fee <> 0 THEN
        RAISE EXCEPTION 'transaction %: entries move %, the transaction says % and a fee of %',
            NEW.id, books.debits, NEW.amount, NEW.fee
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_says_what_it_moves';
    END IF;
    IF books.wallets <> parties OR NOT (CASE NEW.type
        WHEN 'deposit' THEN parties = 1 AND NEW.to_user_id IS NOT NULL
        WHEN 'withdrawal' THEN parties = 1 AND NEW.from_user_id IS NOT NULL
        WHEN 'adjustment' THEN parties = 1 AND books.elsewhere = 0
        WHEN 'reversal' THEN true
        ELSE parties = 2
    END) THEN
        RAISE EXCEPTION 'transaction %: a % with % parties moves % wallets and % other accounts',
            NEW.id, NEW.type, parties, books.wallets, books.entries - books.wallets
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_moves_its_parties';
    END IF;
    -- The moment is read after the database transaction began. But clocks step back.
    IF NEW.created_at < now() - interval '1 minute' THEN
        RAISE EXCEPTION 'transaction %: % is over', NEW.id, NEW.created_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_not_from_the_past';
    END IF;
    -- A moment ahead of the clock can only be that of a wallet's previous entry.
    IF NEW.created_at > clock_timestamp() AND NOT EXISTS (
        SELECT 1
          FROM transactions_transactionledger entry
          JOIN transactions_transactionledger earlier
            ON earlier.wallet_id = entry.wallet_id AND earlier.sequence = entry.sequence - 1
         WHERE entry.transaction_id = NEW.id AND earlier.created_at = NEW.created_at
    ) THEN
        RAISE EXCEPTION 'transaction %: % has not come yet', NEW.id, NEW.created_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_not_from_the_future';
    END IF;
    IF books.behind > 0 THEN
        RAISE EXCEPTION 'transaction %: a wallet does not know of its entry', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_balance_is_its_ledgers';
    END IF;
    -- The books are right, and are sealed.
    digest := transactions_books_digest(
        transactions_transaction_text(NEW), books.entries, books.texts);
    INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)
    SELECT entry.wallet_id, entry.sequence,
           sha256(CASE entry.sequence WHEN 1 THEN zero ELSE previous.seal END || digest)
      FROM transactions_transactionledger entry
      LEFT JOIN transactions_ledgerseal previous
        ON previous.wallet_id = entry.wallet_id AND previous.sequence = entry.sequence - 1
     WHERE entry.transaction_id = NEW.id AND entry.wallet_id IS NOT NULL;
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock('transactions_outsideseal'::regclass::oid::bigint);
        INSERT INTO transactions_outsideseal (sequence, transaction_id, seal)
        SELECT coalesce(max(sequence), 0) + 1, NEW.id,
               sha256(coalesce((array_agg(seal))[1], zero) || digest)
          FROM (SELECT sequence, seal FROM transactions_outsideseal
                 ORDER BY sequence DESC LIMIT 1) previous;
    END IF;
    RETURN NULL;
END $$;
"""

SEALED_ALONE = """
CREATE OR REPLACE FUNCTION transactions_transaction_seal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    zero constant bytea := decode(repeat('00', 32), 'hex');
    digest constant bytea := transactions_digest(NEW.id);
BEGIN
    INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)
    SELECT entry.wallet_id, entry.sequence,
           sha256(CASE entry.sequence WHEN 1 THEN zero ELSE previous.seal END || digest)
      FROM transactions_transactionledger entry
      LEFT JOIN transactions_ledgerseal previous
        ON previous.wallet_id = entry.wallet_id AND previous.sequence = entry.sequence - 1
     WHERE entry.transaction_id = NEW.id AND entry.wallet_id IS NOT NULL;
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock('transactions_outsideseal'::regclass::oid::bigint);
        INSERT INTO transactions_outsideseal (sequence, transaction_id, seal)
        SELECT coalesce(max(sequence), 0) + 1, NEW.id,
               sha256(coalesce((array_agg(seal))[1], zero) || digest)
          FROM (SELECT sequence, seal FROM transactions_outsideseal
                 ORDER BY sequence DESC LIMIT 1) previous;
    END IF;
    RETURN NULL;
END $$;
"""

# For every entry, where it was for outside ones: a wallet's found itself without a seal later. One
# sealed entry tells, for all of a transaction's are sealed together. Each look is one key of one
# index; a join could be planned as a scan while the tables are small.
CLOSED_BOOKS = """
CREATE OR REPLACE FUNCTION transactions_ledger_books_are_open() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    earlier record;
    sealed boolean;
BEGIN
    SELECT wallet_id, sequence INTO earlier FROM transactions_transactionledger
     WHERE transaction_id = NEW.transaction_id AND wallet_id IS NOT NULL LIMIT 1;
    IF FOUND THEN
        sealed := EXISTS (SELECT FROM transactions_ledgerseal
                           WHERE wallet_id = earlier.wallet_id AND sequence = earlier.sequence);
    ELSE
        sealed := EXISTS (SELECT FROM transactions_outsideseal
                           WHERE transaction_id = NEW.transaction_id);
    END IF;
    IF sealed THEN
        RAISE EXCEPTION 'transaction %: its books are closed', NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_books_are_closed';
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER transactions_ledger_books_are_open ON transactions_transactionledger;
CREATE TRIGGER transactions_ledger_books_are_open
    BEFORE INSERT ON transactions_transactionledger
    FOR EACH ROW EXECUTE FUNCTION transactions_ledger_books_are_open();
"""

OUTSIDE_BOOKS = """
CREATE OR REPLACE FUNCTION transactions_ledger_books_are_open() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM transactions_outsideseal WHERE transaction_id = NEW.transaction_id)
       OR EXISTS (SELECT FROM transactions_transactionledger entry
                    JOIN transactions_ledgerseal seal
                      ON seal.wallet_id = entry.wallet_id AND seal.sequence = entry.sequence
                   WHERE entry.transaction_id = NEW.transaction_id) THEN
        RAISE EXCEPTION 'transaction %: its books are closed', NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_books_are_closed';
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER transactions_ledger_books_are_open ON transactions_transactionledger;
CREATE TRIGGER transactions_ledger_books_are_open
    BEFORE INSERT ON transactions_transactionledger
    FOR EACH ROW WHEN (NEW.wallet_id IS NULL)
    EXECUTE FUNCTION transactions_ledger_books_are_open();
"""

ONCE = """
DROP TRIGGER transactions_ledger_entry_is_sealed ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_row_is_sealed();
DROP TRIGGER transactions_ledger_reaches_the_wallet ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_row_agrees();
DROP TRIGGER transactions_ledger_balances ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_balances();
DROP TRIGGER transactions_transaction_balances ON transactions_transaction;
DROP FUNCTION transactions_transaction_balances();
DROP FUNCTION transactions_require_balance(uuid);
"""

EACH_TIME = """
CREATE FUNCTION transactions_require_balance(checked uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    posted record;
    entries bigint;
    debits numeric;
    credits numeric;
BEGIN
    SELECT amount + fee AS moves, created_at INTO posted
      FROM transactions_transaction WHERE id = checked;
    SELECT count(*),
           coalesce(sum(amount) FILTER (WHERE entry_type = 'debit'), 0),
           coalesce(sum(amount) FILTER (WHERE entry_type = 'credit'), 0)
      INTO entries, debits, credits
      FROM transactions_transactionledger
     WHERE transaction_id = checked;
    IF entries < 2 OR debits <> credits THEN
        RAISE EXCEPTION 'transaction %: % entries, debits % and credits % do not balance',
            checked, entries, debits, credits
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_balances';
    END IF;
    IF debits IS DISTINCT FROM posted.moves THEN
        RAISE EXCEPTION 'transaction %: entries move %, the transaction says %',
            checked, debits, posted.moves
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_says_what_it_moves';
    END IF;
    -- A moment ahead of the clock can only be that of a wallet's previous entry: clocks step back.
    IF posted.created_at > clock_timestamp() AND NOT EXISTS (
        SELECT 1
          FROM transactions_transactionledger entry
          JOIN transactions_transactionledger earlier
            ON earlier.wallet_id = entry.wallet_id AND earlier.sequence = entry.sequence - 1
         WHERE entry.transaction_id = checked AND earlier.created_at = posted.created_at
    ) THEN
        RAISE EXCEPTION 'transaction %: % has not come yet', checked, posted.created_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_not_from_the_future';
    END IF;
END $$;

CREATE FUNCTION transactions_transaction_balances() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_require_balance(NEW.id);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER transactions_transaction_balances
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_transaction_balances();

CREATE FUNCTION transactions_ledger_balances() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_require_balance(NEW.transaction_id);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER transactions_ledger_balances
    AFTER INSERT ON transactions_transactionledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_ledger_balances();

CREATE FUNCTION transactions_ledger_row_agrees() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_wallet_agrees(NEW.wallet_id);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER transactions_ledger_reaches_the_wallet
    AFTER INSERT ON transactions_transactionledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.wallet_id IS NOT NULL)
    EXECUTE FUNCTION transactions_ledger_row_agrees();

CREATE FUNCTION transactions_ledger_row_is_sealed() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transactions_ledgerseal
                    WHERE wallet_id = NEW.wallet_id AND sequence = NEW.sequence) THEN
        RAISE EXCEPTION 'wallet %, entry %: it joined transaction % after that was sealed',
            NEW.wallet_id, NEW.sequence, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_entry_is_sealed';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER transactions_ledger_entry_is_sealed
    AFTER INSERT ON transactions_transactionledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.wallet_id IS NOT NULL)
    EXECUTE FUNCTION transactions_ledger_row_is_sealed();
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0009_batches")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([SEALED_ONCE_CHECKED], [SEALED_ALONE]),
        migrations.RunSQL([CLOSED_BOOKS], [OUTSIDE_BOOKS]),
        migrations.RunSQL([ONCE], [EACH_TIME]),
    ]
