"""Payouts remember that the gateway was asked, and which references only staff vouch for.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations, models

# Columns added later are frozen too, until they are named here.
_GUARD = """
CREATE OR REPLACE FUNCTION payments_payout_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'gateway_reference', 'failure_code', 'reversal_id', 'completed_at', 'updated_at',
        'next_poll_at', 'polls', 'last_polled_at', 'last_answer', 'needs_staff'MOVABLE
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'payout %: who, how much, where to and through whom never change', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_is_frozen';
    END IF;
    IF OLD.gateway_reference IS NOT NULLNAMED
       AND NEW.gateway_reference IS DISTINCT FROM OLD.gateway_reference THEN
        RAISE EXCEPTION 'payout %: the gateway has answered once', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_reference_set_once';
    END IF;ASKED
    IF OLD.status <> 'pending'
       AND (NEW.status, NEW.failure_code, NEW.reversal_id, NEW.completed_at)
           IS DISTINCT FROM (OLD.status, OLD.failure_code, OLD.reversal_id, OLD.completed_at) THEN
        RAISE EXCEPTION 'payout %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_settled_once';
    END IF;
    IF OLD.status = 'pending' AND NEW.status = 'paid' AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE (id, status, completed_at) = (NEW.transaction_id, 'completed', NEW.completed_at)
    ) THEN
        RAISE EXCEPTION 'payout %: its withdrawal was not completed with it', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_agrees_with_its_withdrawal';
    END IF;
    IF OLD.status = 'pending' AND NEW.status = 'failed' AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE (id, type, parent_id) = (NEW.reversal_id, 'reversal', NEW.transaction_id)
           AND posted_in = pg_current_xact_id()
    ) THEN
        RAISE EXCEPTION 'payout %: transaction % is not its reversal', OLD.id, NEW.reversal_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_reversal_is_its_own';
    END IF;
    RETURN NEW;
END $$;
"""
# What the gateway gave or confirmed can never be made to look like what staff named.
_ASKED = """
    IF NEW.named_by_staff AND NOT OLD.named_by_staff
       AND (OLD.gateway_reference IS NOT NULL OR OLD.status <> 'pending') THEN
        RAISE EXCEPTION 'payout %: it has its reference from the gateway', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_reference_set_once';
    END IF;
    IF OLD.asked_at IS NOT NULL AND NEW.asked_at IS DISTINCT FROM OLD.asked_at THEN
        RAISE EXCEPTION 'payout %: the gateway was first asked at %', OLD.id, OLD.asked_at
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_first_asked_once';
    END IF;"""
GUARD = (
    _GUARD.replace("MOVABLE", ",\n        'asked_at', 'named_by_staff'")
    .replace("NAMED", " AND NOT (OLD.named_by_staff AND OLD.status = 'pending')")
    .replace("ASKED", _ASKED)
)
GUARD_BEFORE = _GUARD.replace("MOVABLE", "").replace("NAMED", "").replace("ASKED", "")

# Nobody wrote down whether the gateway was asked about these, so it may have been.
ASKED_BEFORE = """
UPDATE payments_payout SET asked_at = created_at
 WHERE status = 'pending' AND gateway_reference IS NULL
"""


class Migration(migrations.Migration):
    dependencies = [("payments", "0011_payouts_by_day")]

    operations = [
        migrations.AddField(
            model_name="payout",
            name="asked_at",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="payout",
            name="named_by_staff",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([GUARD], [GUARD_BEFORE]),
        migrations.RunSQL([ASKED_BEFORE], migrations.RunSQL.noop),
    ]
