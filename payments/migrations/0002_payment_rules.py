"""What intents and events never do, in PostgreSQL: it raises, whoever writes, by whatever tool.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations

# Columns added later are frozen too, until they are named here.
INTENT_RULES = """
CREATE FUNCTION payments_intent_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'transaction_id', 'gateway_reference', 'client_secret', 'checkout_url',
        'updated_at'
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'intent %: who, how much and through whom never change', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_is_frozen';
    END IF;
    IF OLD.gateway_reference IS NOT NULL
       AND (NEW.gateway_reference, NEW.client_secret, NEW.checkout_url)
           IS DISTINCT FROM (OLD.gateway_reference, OLD.client_secret, OLD.checkout_url) THEN
        RAISE EXCEPTION 'intent %: the gateway has answered once', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_reference_set_once';
    END IF;
    IF OLD.transaction_id IS NOT NULL AND NEW.transaction_id IS DISTINCT FROM OLD.transaction_id
    THEN
        RAISE EXCEPTION 'intent %: it is credited once', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_credited_once';
    END IF;
    IF NEW.status <> OLD.status AND NOT (CASE OLD.status
        WHEN 'requires_payment' THEN true
        WHEN 'processing' THEN NEW.status <> 'requires_payment'
        WHEN 'succeeded' THEN false
        ELSE NEW.status = 'succeeded'
    END) THEN
        RAISE EXCEPTION 'intent %: % does not lead to %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_status_forward';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION payments_intent_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'requires_payment' THEN
        RAISE EXCEPTION 'intent %: none begins %', NEW.id, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_begins_unpaid';
    END IF;
    RETURN NEW;
END $$;

-- The credit is this intent's own: its cause, its amount, its currency, its owner.
CREATE FUNCTION payments_intent_credit_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE id = NEW.transaction_id
           AND type = 'deposit'
           AND effect_key = 'payment_intent:' || NEW.id
           AND (amount, currency, to_user_id) = (NEW.amount, NEW.currency, NEW.user_id)
    ) THEN
        RAISE EXCEPTION 'intent %: transaction % is not its credit', NEW.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_credit_is_its_own';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION payments_keep() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is never deleted (% refused)', TG_TABLE_NAME, TG_OP
        USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_never_deleted';
END $$;

CREATE TRIGGER payments_intent_guard BEFORE UPDATE ON payments_paymentintent
    FOR EACH ROW EXECUTE FUNCTION payments_intent_guard();
CREATE TRIGGER payments_intent_begins BEFORE INSERT ON payments_paymentintent
    FOR EACH ROW EXECUTE FUNCTION payments_intent_begins();
CREATE TRIGGER payments_intent_credit_fits BEFORE UPDATE ON payments_paymentintent
    FOR EACH ROW WHEN (OLD.transaction_id IS NULL AND NEW.transaction_id IS NOT NULL)
    EXECUTE FUNCTION payments_intent_credit_fits();
CREATE TRIGGER payments_intent_no_delete BEFORE DELETE ON payments_paymentintent
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_intent_no_truncate BEFORE TRUNCATE ON payments_paymentintent
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();
"""

NO_INTENT_RULES = """
DROP TRIGGER payments_intent_no_truncate ON payments_paymentintent;
DROP TRIGGER payments_intent_no_delete ON payments_paymentintent;
DROP TRIGGER payments_intent_credit_fits ON payments_paymentintent;
DROP TRIGGER payments_intent_begins ON payments_paymentintent;
DROP TRIGGER payments_intent_guard ON payments_paymentintent;
DROP FUNCTION payments_keep();
DROP FUNCTION payments_intent_credit_fits();
DROP FUNCTION payments_intent_begins();
DROP FUNCTION payments_intent_guard();
"""

EVENT_RULES = """
CREATE FUNCTION payments_event_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    empties constant boolean :=
        OLD.payload_deleted_at IS NULL AND NEW.payload_deleted_at IS NOT NULL;
BEGIN
    IF (NEW.id, NEW.gateway, NEW.event_id, NEW.event_type, NEW.gateway_reference, NEW.received_at)
       IS DISTINCT FROM
       (OLD.id, OLD.gateway, OLD.event_id, OLD.event_type, OLD.gateway_reference, OLD.received_at)
       OR (NOT empties AND (NEW.body, NEW.headers, NEW.payload_deleted_at)
           IS DISTINCT FROM (OLD.body, OLD.headers, OLD.payload_deleted_at)) THEN
        RAISE EXCEPTION 'event %: what was received never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_webhookevent_is_frozen';
    END IF;
    IF NEW.status <> OLD.status AND NOT (CASE OLD.status
        WHEN 'received' THEN true
        WHEN 'processed' THEN false
        ELSE NEW.status = 'received'
    END) THEN
        RAISE EXCEPTION 'event %: % does not lead to %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_webhookevent_status_forward';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER payments_event_guard BEFORE UPDATE ON payments_webhookevent
    FOR EACH ROW EXECUTE FUNCTION payments_event_guard();
CREATE TRIGGER payments_event_no_delete BEFORE DELETE ON payments_webhookevent
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_event_no_truncate BEFORE TRUNCATE ON payments_webhookevent
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();
"""

NO_EVENT_RULES = """
DROP TRIGGER payments_event_no_truncate ON payments_webhookevent;
DROP TRIGGER payments_event_no_delete ON payments_webhookevent;
DROP TRIGGER payments_event_guard ON payments_webhookevent;
DROP FUNCTION payments_event_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("payments", "0001_initial"), ("transactions", "0002_ledger_rules")]

    operations = [
        # As lists: Django would split a plain text at semicolons, and stumbles over CASE … END.
        migrations.RunSQL([INTENT_RULES], [NO_INTENT_RULES]),
        migrations.RunSQL([EVENT_RULES], [NO_EVENT_RULES]),
    ]
