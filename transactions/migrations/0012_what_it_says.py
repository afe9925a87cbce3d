"""Holds begin now and end in time; batches, adjustments and who decides about them are what they
say, whoever writes them.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations

# In hours, for a day is not always 24 of them in the session's time zone.
HOLDS_DATED = """
CREATE FUNCTION transactions_hold_is_dated() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.created_at NOT BETWEEN now() AND clock_timestamp()
       OR NEW.expires_at > NEW.created_at + interval '720 hours' THEN
        RAISE EXCEPTION 'hold %: it begins now, and lasts 30 days at most, not from % to %',
            NEW.id, NEW.created_at, NEW.expires_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_is_dated';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_hold_is_dated BEFORE INSERT ON transactions_hold
    FOR EACH ROW EXECUTE FUNCTION transactions_hold_is_dated();
"""

HOLDS_UNDATED = """
DROP TRIGGER transactions_hold_is_dated ON transactions_hold;
DROP FUNCTION transactions_hold_is_dated();
"""

_LEGS = """
CREATE OR REPLACE FUNCTION transactions_transferbatchleg_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    stray record;
BEGIN
    SELECT leg.batch_id, leg.index INTO stray
      FROM joined leg
      JOIN transactions_transferbatch batch ON batch.id = leg.batch_id
      LEFT JOIN transactions_transaction made ON made.id = leg.transaction_id
     WHERE leg.index >= batch.count
        OR (made.type, made.from_user_id, made.currency, made.created_at)
           <> ('transfer', batch.user_id, batch.currency, batch.created_at)MADE_WITH_IT
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'batch %: leg % is none of its own', stray.batch_id, stray.index
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transferbatchleg_fits';
    END IF;
    RETURN NULL;
END $$;
"""
LEGS_MADE_WITH_IT = _LEGS.replace(
    "MADE_WITH_IT", "\n        OR made.posted_in <> pg_current_xact_id()"
)
LEGS_OF_ITS_MOMENT = _LEGS.replace("MADE_WITH_IT", "")

# The owner of the wallet decides neither way; a decision is made when it is written.
_DECISIONS = """
CREATE OR REPLACE FUNCTION transactions_adjustment_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'decided_by_id', 'decided_at', 'rejection_reason', 'transaction_id'
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'adjustment %: what was proposed never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_is_frozen';
    END IF;
    IF OLD.status <> 'proposed' THEN
        RAISE EXCEPTION 'adjustment %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_decided_once';
    END IF;BEFORE_APPROVAL
    IF NEW.status <> 'approved' THEN
        RETURN NEW;
    END IF;AFTER_REJECTION
    IF NOT EXISTS (
        SELECT FROM transactions_transaction made
          JOIN transactions_transactionledger entry ON entry.transaction_id = made.id
         WHERE made.id = NEW.transaction_id
           AND made.effect_key = 'adjustment:' || NEW.id
           AND (made.type, made.amount, made.currency, entry.wallet_id, entry.entry_type)
             = ('adjustment', NEW.amount, NEW.currency, NEW.wallet_id, NEW.direction)
    ) THEN
        RAISE EXCEPTION 'adjustment %: transaction % does not do it', NEW.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_effect_is_its_own';
    END IF;
    RETURN NEW;
END $$;
"""
_BY_A_STRANGER = """
    IF EXISTS (SELECT FROM wallet_wallet
                WHERE id = NEW.wallet_id AND user_id = NEW.decided_by_id) THEN
        RAISE EXCEPTION 'adjustment %: nobody adjusts their own wallet', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_not_ones_own_wallet';
    END IF;"""
_NOW = """
    IF NEW.decided_at < now() OR NEW.decided_at > clock_timestamp() AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE (id, created_at) = (NEW.transaction_id, NEW.decided_at)
    ) THEN
        RAISE EXCEPTION 'adjustment %: it is not decided at %', NEW.id, NEW.decided_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_decided_now';
    END IF;"""
DECIDED_BY_STRANGERS = _DECISIONS.replace("BEFORE_APPROVAL", _BY_A_STRANGER + _NOW).replace(
    "AFTER_REJECTION", ""
)
APPROVED_BY_STRANGERS = _DECISIONS.replace("BEFORE_APPROVAL", "").replace(
    "AFTER_REJECTION", _BY_A_STRANGER
)

PROPOSED_NOW = """
CREATE FUNCTION transactions_adjustment_stamp() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.created_at := clock_timestamp();
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_adjustment_stamp BEFORE INSERT ON transactions_adjustment
    FOR EACH ROW EXECUTE FUNCTION transactions_adjustment_stamp();
"""

PROPOSED_AT_ANY_TIME = """
DROP TRIGGER transactions_adjustment_stamp ON transactions_adjustment;
DROP FUNCTION transactions_adjustment_stamp();
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0011_post")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([HOLDS_DATED], [HOLDS_UNDATED]),
        migrations.RunSQL([LEGS_MADE_WITH_IT], [LEGS_OF_ITS_MOMENT]),
        migrations.RunSQL([DECIDED_BY_STRANGERS], [APPROVED_BY_STRANGERS]),
        migrations.RunSQL([PROPOSED_NOW], [PROPOSED_AT_ANY_TIME]),
    ]
