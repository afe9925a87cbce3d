"""A withdrawal goes to `payout_clearing`, and a reversal back the way of its parent, to the cent:
another account may not have a part of it.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations

_WITHDRAWAL = """
CREATE OR REPLACE FUNCTION transactions_withdrawal_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'pending' OR NOT EXISTS (
        SELECT FROM transactions_transactionledger
         WHERE transaction_id = NEW.id
           AND WHOLE
    ) THEN
        RAISE EXCEPTION 'transaction %: a withdrawal waits, and goes to payout_clearing', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_withdrawal_fits';
    END IF;
    RETURN NULL;
END $$;
"""
WITHDRAWAL = _WITHDRAWAL.replace(
    "WHOLE", "(account, entry_type, amount) = ('payout_clearing', 'credit', NEW.amount)"
)
WITHDRAWAL_BEFORE = _WITHDRAWAL.replace(
    "WHOLE", "(account, entry_type) = ('payout_clearing', 'credit')"
)

_REVERSAL = """
CREATE OR REPLACE FUNCTION transactions_reversal_undoes() RETURNS trigger
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
        SELECT WHOLE FROM transactions_transactionledger
         WHERE transaction_id = NEW.parent_id AND entry_type = 'credit'
        EXCEPT
        SELECT WHOLE FROM transactions_transactionledger
         WHERE transaction_id = NEW.id AND entry_type = 'debit'
    ) THEN
        RAISE EXCEPTION 'transaction %: it takes the money from elsewhere than transaction %',
            NEW.id, NEW.parent_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_undoes_its_parent';
    END IF;
    RETURN NULL;
END $$;
"""
REVERSAL = _REVERSAL.replace("WHOLE", "account, amount")
REVERSAL_BEFORE = _REVERSAL.replace("WHOLE", "account")


class Migration(migrations.Migration):
    dependencies = [("transactions", "0024_frozen_to_the_letter")]

    operations = [
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([WITHDRAWAL], [WITHDRAWAL_BEFORE]),
        migrations.RunSQL([REVERSAL], [REVERSAL_BEFORE]),
    ]
