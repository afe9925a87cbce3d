"""The ledger's invariants, in PostgreSQL: it raises, whoever writes, by whatever tool.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
`search_path` is fixed on each function: a temporary table must not stand in for a real one.
"""

from django.db import migrations

APPEND_ONLY = """
CREATE FUNCTION transactions_append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is history: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_is_append_only';
END $$;

CREATE TRIGGER transactions_ledger_no_change BEFORE UPDATE OR DELETE
    ON transactions_transactionledger
    FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_ledger_no_truncate BEFORE TRUNCATE ON transactions_transactionledger
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_transaction_no_delete BEFORE DELETE ON transactions_transaction
    FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_transaction_no_truncate BEFORE TRUNCATE ON transactions_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();
"""

NO_APPEND_ONLY = """
DROP TRIGGER transactions_transaction_no_truncate ON transactions_transaction;
DROP TRIGGER transactions_transaction_no_delete ON transactions_transaction;
DROP TRIGGER transactions_ledger_no_truncate ON transactions_transactionledger;
DROP TRIGGER transactions_ledger_no_change ON transactions_transactionledger;
DROP FUNCTION transactions_append_only();
"""

# Everything but these three columns is frozen, columns added later included.
FROZEN = """
CREATE FUNCTION transactions_transaction_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY['status', 'completed_at', 'refunded_amount'];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'transaction %: what was posted never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_is_frozen';
    END IF;
    IF NEW.status <> OLD.status AND OLD.status <> 'pending'
       OR NEW.status = OLD.status AND NEW.completed_at IS DISTINCT FROM OLD.completed_at THEN
        RAISE EXCEPTION 'transaction %: status moves forward only', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_status_forward';
    END IF;
    IF NEW.refunded_amount < OLD.refunded_amount THEN
        RAISE EXCEPTION 'transaction %: refunded_amount moves upward only', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_refunds_upward';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_transaction_guard BEFORE UPDATE ON transactions_transaction
    FOR EACH ROW EXECUTE FUNCTION transactions_transaction_guard();
"""

NOT_FROZEN = """
DROP TRIGGER transactions_transaction_guard ON transactions_transaction;
DROP FUNCTION transactions_transaction_guard();
"""

# `posted_in` is the database transaction that made the row. Entries may join it only there, so the
# books of a transaction are closed when it commits. The check runs for the transaction, which must
# have entries, and for each entry: SET CONSTRAINTS can call for a check early, and what joins after
# that must be checked as well.
BALANCED = """
ALTER TABLE transactions_transaction
    ADD COLUMN posted_in xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION transactions_transaction_stamp() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.posted_in := pg_current_xact_id();
    IF NEW.status = 'failed' OR NEW.refunded_amount <> 0 THEN
        RAISE EXCEPTION 'transaction %: none begins failed or refunded', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_begins_whole';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_transaction_stamp BEFORE INSERT ON transactions_transaction
    FOR EACH ROW EXECUTE FUNCTION transactions_transaction_stamp();

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

CREATE FUNCTION transactions_ledger_balances() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_require_balance(NEW.transaction_id);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_balances
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_transaction_balances();
CREATE CONSTRAINT TRIGGER transactions_ledger_balances
    AFTER INSERT ON transactions_transactionledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_ledger_balances();
"""

NOT_BALANCED = """
DROP TRIGGER transactions_ledger_balances ON transactions_transactionledger;
DROP TRIGGER transactions_transaction_balances ON transactions_transaction;
DROP FUNCTION transactions_ledger_balances();
DROP FUNCTION transactions_transaction_balances();
DROP FUNCTION transactions_require_balance(uuid);
DROP TRIGGER transactions_transaction_stamp ON transactions_transaction;
DROP FUNCTION transactions_transaction_stamp();
ALTER TABLE transactions_transaction DROP COLUMN posted_in;
"""

# One currency per transaction and per wallet makes "debits = credits" hold per currency.
CONTINUOUS = """
CREATE FUNCTION transactions_ledger_entry_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    posted record;
    holder record;
    balance_before numeric := 0;
    time_before timestamptz;
    change numeric;
    party uuid;
BEGIN
    SELECT currency, created_at, posted_in, from_user_id, to_user_id INTO posted
      FROM transactions_transaction WHERE id = NEW.transaction_id;
    IF posted.posted_in IS DISTINCT FROM pg_current_xact_id() THEN
        RAISE EXCEPTION 'transaction %: its books are closed', NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_books_are_closed';
    END IF;
    IF NEW.currency <> posted.currency OR NEW.created_at <> posted.created_at THEN
        RAISE EXCEPTION 'transaction %: an entry has its currency and its time',
            NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_agrees_with_transaction';
    END IF;
    IF NEW.wallet_id IS NULL THEN
        RETURN NEW;
    END IF;
    SELECT currency, user_id INTO holder FROM wallet_wallet WHERE id = NEW.wallet_id;
    IF NEW.currency IS DISTINCT FROM holder.currency THEN
        RAISE EXCEPTION 'wallet %: holds %, not %', NEW.wallet_id, holder.currency, NEW.currency
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_currency_is_the_wallets';
    END IF;
    party := CASE NEW.entry_type WHEN 'debit' THEN posted.from_user_id ELSE posted.to_user_id END;
    IF party IS DISTINCT FROM holder.user_id THEN
        RAISE EXCEPTION 'wallet %: its owner is not that side of transaction %',
            NEW.wallet_id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_wallet_is_the_partys';
    END IF;
    IF NEW.sequence <> 1 THEN
        SELECT balance_after, created_at INTO balance_before, time_before
          FROM transactions_transactionledger
         WHERE wallet_id = NEW.wallet_id AND sequence = NEW.sequence - 1;
    END IF;
    IF balance_before IS NULL OR NEW.sequence < 1 THEN
        RAISE EXCEPTION 'wallet %: there is no entry before number %', NEW.wallet_id, NEW.sequence
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_numbered_without_gaps';
    END IF;
    change := CASE NEW.entry_type WHEN 'credit' THEN NEW.amount ELSE -NEW.amount END;
    IF NEW.balance_after <> balance_before + change THEN
        RAISE EXCEPTION 'wallet %, entry %: % does not follow from %',
            NEW.wallet_id, NEW.sequence, NEW.balance_after, balance_before
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_running_balance';
    END IF;
    IF NEW.created_at < time_before THEN
        RAISE EXCEPTION 'wallet %, entry %: time runs forward', NEW.wallet_id, NEW.sequence
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_time_runs_forward';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_ledger_entry_fits BEFORE INSERT ON transactions_transactionledger
    FOR EACH ROW EXECUTE FUNCTION transactions_ledger_entry_fits();
"""

NOT_CONTINUOUS = """
DROP TRIGGER transactions_ledger_entry_fits ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_entry_fits();
"""

# Both ways at commit: a wallet changed without an entry, and an entry without its wallet changed.
WALLET_AGREES = """
CREATE FUNCTION transactions_wallet_agrees(wallet uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    held record;
    newest record;
BEGIN
    SELECT balance, entry_count, last_entry_at INTO held FROM wallet_wallet WHERE id = wallet;
    SELECT sequence, balance_after, created_at INTO newest
      FROM transactions_transactionledger
     WHERE wallet_id = wallet ORDER BY sequence DESC LIMIT 1;
    IF held.balance <> coalesce(newest.balance_after, 0)
       OR held.entry_count <> coalesce(newest.sequence, 0)
       OR held.last_entry_at IS DISTINCT FROM newest.created_at THEN
        RAISE EXCEPTION 'wallet %: balance % after % entries, but its ledger says % after %',
            wallet, held.balance, held.entry_count,
            coalesce(newest.balance_after, 0), coalesce(newest.sequence, 0)
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_balance_is_its_ledgers';
    END IF;
END $$;

CREATE FUNCTION transactions_wallet_row_agrees() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_wallet_agrees(NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION transactions_ledger_row_agrees() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_wallet_agrees(NEW.wallet_id);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER wallet_wallet_balance_is_its_ledgers
    AFTER INSERT OR UPDATE OF balance, entry_count, last_entry_at ON wallet_wallet
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_wallet_row_agrees();
CREATE CONSTRAINT TRIGGER transactions_ledger_reaches_the_wallet
    AFTER INSERT ON transactions_transactionledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.wallet_id IS NOT NULL)
    EXECUTE FUNCTION transactions_ledger_row_agrees();
"""

WALLET_ALONE = """
DROP TRIGGER transactions_ledger_reaches_the_wallet ON transactions_transactionledger;
DROP TRIGGER wallet_wallet_balance_is_its_ledgers ON wallet_wallet;
DROP FUNCTION transactions_ledger_row_agrees();
DROP FUNCTION transactions_wallet_row_agrees();
DROP FUNCTION transactions_wallet_agrees(uuid);
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0001_initial"), ("wallet", "0002_wallet_rules")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([APPEND_ONLY], [NO_APPEND_ONLY]),
        migrations.RunSQL([FROZEN], [NOT_FROZEN]),
        migrations.RunSQL([BALANCED], [NOT_BALANCED]),
        migrations.RunSQL([CONTINUOUS], [NOT_CONTINUOUS]),
        migrations.RunSQL([WALLET_AGREES], [WALLET_ALONE]),
    ]
