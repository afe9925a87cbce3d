"""Refunds of deposits: money goes back out by the gateway that brought it, and comes back into the
wallet by a reversal if the gateway cannot send it.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from importlib import import_module

from django.db import migrations

_SEALED = import_module("transactions.migrations.0014_payouts")

# A refund has two parties, or, back to the source, only the wallet that it leaves.
_TWO_PARTIES = """        WHEN 'reversal' THEN true
        ELSE parties = 2
"""
_ONE_OR_TWO = """        WHEN 'reversal' THEN true
        WHEN 'refund' THEN NEW.from_user_id IS NOT NULL
        ELSE parties = 2
"""
SEALED_TO_SOURCE = _SEALED.SUSPENSE.replace(_TWO_PARTIES, _ONE_OR_TWO)
SEALED_BETWEEN_TWO = _SEALED.SUSPENSE

# The way of the parent backwards: a deposit came from outside, which has no user.
_FITS = """
CREATE OR REPLACE FUNCTION transactions_refund_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE id = NEW.parent_id
           AND WHICH
    ) THEN
        RAISE EXCEPTION 'transaction %: it does not undo transaction %', NEW.id, NEW.parent_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_refund_fits';
    END IF;
    RETURN NEW;
END $$;
"""
_OF_PAYMENTS = """type IN ('transfer', 'capture')
           AND (currency, to_user_id, from_user_id)
             = (NEW.currency, NEW.from_user_id, NEW.to_user_id)"""
_OF_DEPOSITS_TOO = """(currency, to_user_id) = (NEW.currency, NEW.from_user_id)
           AND from_user_id IS NOT DISTINCT FROM NEW.to_user_id
           AND (type IN ('transfer', 'capture') AND from_user_id IS NOT NULL
                OR type = 'deposit' AND status = 'completed' AND NEW.effect_key IS NOT NULL)"""
FITS_DEPOSITS = _FITS.replace("WHICH", _OF_DEPOSITS_TOO)
FITS_PAYMENTS = _FITS.replace("WHICH", _OF_PAYMENTS)

# `refunded_amount` only ever rises. Of a deposit it is the most that was on its way back at any one
# time: a refund that came back no longer counts, so its room can be used again. Whoever refunds
# holds the deposit's row, and what comes back only makes room: two cannot pass each other unseen.
_AGREE = """
CREATE OR REPLACE FUNCTION transactions_refunds_agree(original uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    said numeric;
    refunded numeric;DECLARED
BEGIN
    SELECT refunded_amount, (SELECT coalesce(sum(amount), 0) FROM transactions_transaction
                              WHERE parent_id = original AND type = 'refund')READ
      INTO said, refundedINTO_TOO FROM transactions_transaction WHERE id = original;
    IF DISAGREE THEN
        RAISE EXCEPTION 'transaction %: says % was refunded, its refunds are %',
            original, said, refunded
            USING ERRCODE = '23514',
                  CONSTRAINT = 'transactions_transaction_refunds_are_its_children';
    END IF;
END $$;
"""
_RETURNED = """,
           (SELECT coalesce(sum(reversal.amount), 0)
              FROM transactions_transaction refund
              JOIN transactions_transaction reversal
                ON reversal.parent_id = refund.id AND reversal.type = 'reversal'
             WHERE refund.parent_id = original AND refund.type = 'refund'),
           type = 'deposit'"""
AGREE_LESS_RETURNED = (
    _AGREE.replace("DECLARED", "\n    returned numeric;\n    to_source boolean;")
    .replace("READ", _RETURNED)
    .replace("INTO_TOO", ", returned, to_source")
    .replace(
        "DISAGREE",
        "to_source AND said NOT BETWEEN refunded - returned AND refunded\n"
        "       OR NOT to_source AND said <> refunded",
    )
)
AGREE_EXACTLY = (
    _AGREE.replace("DECLARED", "")
    .replace("READ", "")
    .replace("INTO_TOO", "")
    .replace("DISAGREE", "said <> refunded")
)

# The sealing sees that the sides balance and what the parties move; here is where the other side
# is. A reversal of anything else than such a refund is not judged here.
OTHER_SIDE = """
CREATE FUNCTION transactions_refund_reaches_the_gateway() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transactions_transactionledger
                    WHERE transaction_id = NEW.id
                      AND (account, entry_type, amount)
                        = ('gateway_clearing', 'credit', NEW.amount)) THEN
        RAISE EXCEPTION 'transaction %: it does not go back to the gateway', NEW.id
            USING ERRCODE = '23514',
                  CONSTRAINT = 'transactions_transaction_refund_reaches_the_gateway';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION transactions_refund_comes_back() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    undone record;
BEGIN
    SELECT type, amount, currency, from_user_id, to_user_id INTO undone
      FROM transactions_transaction WHERE id = NEW.parent_id;
    IF undone.type IS DISTINCT FROM 'refund' THEN
        RETURN NULL;
    END IF;
    IF undone.to_user_id IS NOT NULL
       OR NEW.from_user_id IS NOT NULL
       OR NEW.to_user_id IS DISTINCT FROM undone.from_user_id
       OR (NEW.amount, NEW.currency) <> (undone.amount, undone.currency)
       OR NEW.effect_key IS NULL
       OR 2 <> (SELECT count(*) FROM transactions_transactionledger
                 WHERE transaction_id = NEW.id
                   AND (account, entry_type)
                       IN (('gateway_clearing', 'debit'), ('wallet', 'credit'))) THEN
        RAISE EXCEPTION 'transaction %: it does not bring refund % back', NEW.id, NEW.parent_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_refund_comes_back';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_refund_reaches_the_gateway
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'refund' AND NEW.to_user_id IS NULL)
    EXECUTE FUNCTION transactions_refund_reaches_the_gateway();
CREATE CONSTRAINT TRIGGER transactions_transaction_refund_comes_back
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'reversal')
    EXECUTE FUNCTION transactions_refund_comes_back();
"""

NO_OTHER_SIDE = """
DROP TRIGGER transactions_transaction_refund_comes_back ON transactions_transaction;
DROP TRIGGER transactions_transaction_refund_reaches_the_gateway ON transactions_transaction;
DROP FUNCTION transactions_refund_comes_back();
DROP FUNCTION transactions_refund_reaches_the_gateway();
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0014_payouts")]

    operations = [
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([SEALED_TO_SOURCE], [SEALED_BETWEEN_TWO]),
        migrations.RunSQL([FITS_DEPOSITS], [FITS_PAYMENTS]),
        migrations.RunSQL([AGREE_LESS_RETURNED], [AGREE_EXACTLY]),
        migrations.RunSQL([OTHER_SIDE], [NO_OTHER_SIDE]),
    ]
