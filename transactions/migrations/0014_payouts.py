"""Withdrawals wait, then complete or fail; one that fails is undone in the same moment, once. Money
for nobody's wallet is a deposit to `suspense`.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError. The
deferred rules are named so that they come after the seal, which says first what never fits.
"""

from importlib import import_module

from django.db import migrations, models

_SEALED = import_module("transactions.migrations.0010_one_check_per_transaction")
_COUNTED = "           count(*) FILTER (WHERE wallet.entry_count < entry.sequence) AS behind,\n"
_SUSPENDED = """           count(*) FILTER (WHERE (entry.account, entry.entry_type)
               IN (('gateway_clearing', 'debit'), ('suspense', 'credit'))) AS suspended,
"""
_TO_A_WALLET = "WHEN 'deposit' THEN parties = 1 AND NEW.to_user_id IS NOT NULL"
_OR_SUSPENDED = f"""{_TO_A_WALLET}
            OR parties = 0 AND books.entries = 2 AND books.suspended = 2"""
SUSPENSE = _SEALED.SEALED_ONCE_CHECKED.replace(_COUNTED, _COUNTED + _SUSPENDED).replace(
    _TO_A_WALLET, _OR_SUSPENDED
)
NO_SUSPENSE = _SEALED.SEALED_ONCE_CHECKED

WITHDRAWALS = """
CREATE FUNCTION transactions_withdrawal_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'pending' OR NOT EXISTS (
        SELECT FROM transactions_transactionledger
         WHERE transaction_id = NEW.id
           AND (account, entry_type) = ('payout_clearing', 'credit')
    ) THEN
        RAISE EXCEPTION 'transaction %: a withdrawal waits, and goes to payout_clearing', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_withdrawal_fits';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION transactions_withdrawal_settles() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    -- A moment ahead of the clock can only be that of the withdrawal itself: clocks step back.
    IF NEW.status = 'completed' AND NEW.completed_at
       NOT BETWEEN now() AND greatest(clock_timestamp(), OLD.created_at) THEN
        RAISE EXCEPTION 'transaction %: it does not complete at %', OLD.id, NEW.completed_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_completes_now';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION transactions_withdrawal_is_undone() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE parent_id = NEW.id AND type = 'reversal' AND posted_in = pg_current_xact_id()
    ) THEN
        RAISE EXCEPTION 'transaction %: it fails, and its money does not come back', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_withdrawal_undone';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_withdrawal_fits
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'withdrawal') EXECUTE FUNCTION transactions_withdrawal_fits();
CREATE TRIGGER transactions_transaction_withdrawal_settles
    BEFORE UPDATE ON transactions_transaction
    FOR EACH ROW WHEN (OLD.status = 'pending')
    EXECUTE FUNCTION transactions_withdrawal_settles();
CREATE CONSTRAINT TRIGGER transactions_transaction_withdrawal_undone
    AFTER UPDATE ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.status <> 'failed' AND NEW.status = 'failed')
    EXECUTE FUNCTION transactions_withdrawal_is_undone();
"""

NO_WITHDRAWALS = """
DROP TRIGGER transactions_transaction_withdrawal_undone ON transactions_transaction;
DROP TRIGGER transactions_transaction_withdrawal_settles ON transactions_transaction;
DROP TRIGGER transactions_transaction_withdrawal_fits ON transactions_transaction;
DROP FUNCTION transactions_withdrawal_is_undone();
DROP FUNCTION transactions_withdrawal_settles();
DROP FUNCTION transactions_withdrawal_fits();
"""

# It takes the whole way of its parent backwards. Its parent went to the outside: a withdrawal, or a
# refund that no wallet received.
REVERSALS = """
CREATE FUNCTION transactions_reversal_undoes() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    undone record;
BEGIN
    SELECT type, status, amount, currency, from_user_id, to_user_id INTO undone
      FROM transactions_transaction WHERE id = NEW.parent_id;
    IF NOT FOUND
       OR (undone.amount, undone.currency) <> (NEW.amount, NEW.currency)
       OR undone.from_user_id IS DISTINCT FROM NEW.to_user_id
       OR undone.to_user_id IS NOT NULL OR NEW.from_user_id IS NOT NULL
       OR NOT (CASE undone.type
            WHEN 'withdrawal' THEN undone.status = 'failed'
            ELSE undone.type = 'refund'
       END) THEN
        RAISE EXCEPTION 'transaction %: it does not undo transaction %', NEW.id, NEW.parent_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_undoes_its_parent';
    END IF;
    IF EXISTS (
        SELECT account FROM transactions_transactionledger
         WHERE transaction_id = NEW.parent_id AND entry_type = 'credit'
        EXCEPT
        SELECT account FROM transactions_transactionledger
         WHERE transaction_id = NEW.id AND entry_type = 'debit'
    ) THEN
        RAISE EXCEPTION 'transaction %: it takes the money from elsewhere than transaction %',
            NEW.id, NEW.parent_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_undoes_its_parent';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_undoes_its_parent
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'reversal') EXECUTE FUNCTION transactions_reversal_undoes();
"""

NO_REVERSALS = """
DROP TRIGGER transactions_transaction_undoes_its_parent ON transactions_transaction;
DROP FUNCTION transactions_reversal_undoes();
"""

# Its money might come back, and a closed wallet takes none. Whoever withdraws has locked the
# wallet, so what is on its way is committed when the wallet can be closed.
CLOSING = """
CREATE FUNCTION transactions_wallet_closes() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM transactions_transaction
                WHERE from_user_id = NEW.user_id AND status = 'pending') THEN
        RAISE EXCEPTION 'wallet %: money that left it is still on its way', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_closes_when_settled';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER wallet_wallet_closes_when_settled BEFORE UPDATE ON wallet_wallet
    FOR EACH ROW WHEN (OLD.status <> 'closed' AND NEW.status = 'closed')
    EXECUTE FUNCTION transactions_wallet_closes();
"""

NO_CLOSING = """
DROP TRIGGER wallet_wallet_closes_when_settled ON wallet_wallet;
DROP FUNCTION transactions_wallet_closes();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("transactions", "0013_by_whom"),
        ("transactions", "0022_list_indexes"),
        ("wallet", "0002_wallet_rules"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="transaction",
            index=models.Index(
                name="transactions_pending",
                fields=["from_user"],
                condition=models.Q(status="pending"),
            ),
        ),
        migrations.AddConstraint(
            model_name="transaction",
            constraint=models.UniqueConstraint(
                name="transactions_transaction_undone_once",
                fields=["parent"],
                condition=models.Q(type="reversal"),
            ),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([SUSPENSE], [NO_SUSPENSE]),
        migrations.RunSQL([WITHDRAWALS], [NO_WITHDRAWALS]),
        migrations.RunSQL([REVERSALS], [NO_REVERSALS]),
        migrations.RunSQL([CLOSING], [NO_CLOSING]),
    ]
