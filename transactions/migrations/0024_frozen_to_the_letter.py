"""What was posted stays as it was written, to the letter.

As JSON, 1.0 and 1.000 are the same number; in the text that a seal covers they are not. So metadata
could be rewritten into another spelling, which moved nothing, and broke the seal.
"""

from django.db import migrations

GUARD = """
CREATE OR REPLACE FUNCTION transactions_transaction_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY['status', 'completed_at', 'refunded_amount'];
BEGIN
    IF (to_jsonb(NEW) - movable)::text <> (to_jsonb(OLD) - movable)::text THEN
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
"""

LOOSE = GUARD.replace(
    "(to_jsonb(NEW) - movable)::text <> (to_jsonb(OLD) - movable)::text",
    "to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable",
)


class Migration(migrations.Migration):
    dependencies = [("transactions", "0023_page")]

    operations = [migrations.RunSQL([GUARD], [LOOSE])]
