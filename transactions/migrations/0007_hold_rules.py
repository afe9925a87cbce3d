"""What a hold and a refund never do, in PostgreSQL: it raises, whoever writes, by whatever tool.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations

# Everything but these four columns is frozen, columns added later included.
HOLD = """
CREATE FUNCTION transactions_hold_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'active' THEN
        RAISE EXCEPTION 'hold %: none begins %', NEW.id, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_begins_active';
    END IF;
    IF NOT EXISTS (SELECT FROM wallet_wallet
                    WHERE (id, user_id, currency)
                        = (NEW.payer_wallet_id, NEW.from_user_id, NEW.currency))
       OR NOT EXISTS (SELECT FROM wallet_wallet
                       WHERE (id, user_id, currency)
                           = (NEW.payee_wallet_id, NEW.to_user_id, NEW.currency)) THEN
        RAISE EXCEPTION 'hold %: its wallets are not its parties'', or hold no %',
            NEW.id, NEW.currency
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_wallets_are_its_parties';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION transactions_hold_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY['status', 'captured_amount', 'transaction_id', 'resolved_at'];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'hold %: who, how much and until when never change', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_is_frozen';
    END IF;
    IF OLD.status <> 'active' THEN
        RAISE EXCEPTION 'hold %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_resolved_once';
    END IF;
    -- The capture was decided within this database transaction, so not before it began.
    IF NEW.status = 'captured' AND OLD.expires_at <= now()
       OR NEW.status = 'expired' AND OLD.expires_at > clock_timestamp() THEN
        RAISE EXCEPTION 'hold %: it cannot be %, it expires at %',
            OLD.id, NEW.status, OLD.expires_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_expires_in_time';
    END IF;
    IF NEW.status = 'captured' AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE id = NEW.transaction_id
           AND type = 'capture'
           AND (amount, currency, from_user_id, to_user_id)
             = (NEW.captured_amount, NEW.currency, NEW.from_user_id, NEW.to_user_id)
    ) THEN
        RAISE EXCEPTION 'hold %: transaction % is not its capture', OLD.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_capture_is_its_own';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION transactions_hold_keep() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'holds are never deleted (% refused)', TG_OP
        USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_never_deleted';
END $$;

CREATE TRIGGER transactions_hold_begins BEFORE INSERT ON transactions_hold
    FOR EACH ROW EXECUTE FUNCTION transactions_hold_begins();
CREATE TRIGGER transactions_hold_guard BEFORE UPDATE ON transactions_hold
    FOR EACH ROW EXECUTE FUNCTION transactions_hold_guard();
CREATE TRIGGER transactions_hold_no_delete BEFORE DELETE ON transactions_hold
    FOR EACH ROW EXECUTE FUNCTION transactions_hold_keep();
CREATE TRIGGER transactions_hold_no_truncate BEFORE TRUNCATE ON transactions_hold
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_hold_keep();
"""

NO_HOLD = """
DROP TRIGGER transactions_hold_no_truncate ON transactions_hold;
DROP TRIGGER transactions_hold_no_delete ON transactions_hold;
DROP TRIGGER transactions_hold_guard ON transactions_hold;
DROP TRIGGER transactions_hold_begins ON transactions_hold;
DROP FUNCTION transactions_hold_keep();
DROP FUNCTION transactions_hold_guard();
DROP FUNCTION transactions_hold_begins();
"""

# Both ways: a hold without its `held`, and a `held` without its hold. The wallet is written
# first, and answers at commit; the holds answer at the end of their statement, once for each wallet
# however many they are. Whoever changes the sum must write the wallet's row, so two of them cannot
# pass each other unseen.
HELD = """
CREATE FUNCTION transactions_held_agrees(wallet uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    said numeric;
    reserved numeric;
BEGIN
    SELECT held, (SELECT coalesce(sum(amount), 0) FROM transactions_hold
                   WHERE payer_wallet_id = wallet AND status = 'active')
      INTO said, reserved FROM wallet_wallet WHERE id = wallet;
    IF said <> reserved THEN
        RAISE EXCEPTION 'wallet %: % is held, its active holds reserve %', wallet, said, reserved
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_held_is_its_holds';
    END IF;
END $$;

CREATE FUNCTION transactions_wallet_held_agrees() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_held_agrees(NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION transactions_holds_agree() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_held_agrees(payer_wallet_id)
       FROM (SELECT DISTINCT payer_wallet_id FROM changed) wallets;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER wallet_wallet_held_is_its_holds
    AFTER INSERT OR UPDATE OF held ON wallet_wallet DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_wallet_held_agrees();
CREATE TRIGGER transactions_hold_reaches_the_wallet
    AFTER INSERT ON transactions_hold REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_holds_agree();
CREATE TRIGGER transactions_hold_leaves_the_wallet
    AFTER UPDATE ON transactions_hold REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_holds_agree();
"""

NOT_HELD = """
DROP TRIGGER transactions_hold_leaves_the_wallet ON transactions_hold;
DROP TRIGGER transactions_hold_reaches_the_wallet ON transactions_hold;
DROP TRIGGER wallet_wallet_held_is_its_holds ON wallet_wallet;
DROP FUNCTION transactions_holds_agree();
DROP FUNCTION transactions_wallet_held_agrees();
DROP FUNCTION transactions_held_agrees(uuid);
"""

CAPTURES = """
CREATE FUNCTION transactions_capture_has_its_hold() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transactions_hold
                    WHERE transaction_id = NEW.id AND status = 'captured') THEN
        RAISE EXCEPTION 'transaction %: no hold was captured by it', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_capture_has_its_hold';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_capture_has_its_hold
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'capture')
    EXECUTE FUNCTION transactions_capture_has_its_hold();
"""

NO_CAPTURES = """
DROP TRIGGER transactions_transaction_capture_has_its_hold ON transactions_transaction;
DROP FUNCTION transactions_capture_has_its_hold();
"""

# A refund takes the way of its parent backwards, and the parent counts what came back.
REFUNDS = """
CREATE FUNCTION transactions_refund_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE id = NEW.parent_id
           AND type IN ('transfer', 'capture')
           AND (currency, to_user_id, from_user_id)
             = (NEW.currency, NEW.from_user_id, NEW.to_user_id)
    ) THEN
        RAISE EXCEPTION 'transaction %: it does not undo transaction %', NEW.id, NEW.parent_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_refund_fits';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_transaction_refund_fits BEFORE INSERT ON transactions_transaction
    FOR EACH ROW WHEN (NEW.type = 'refund') EXECUTE FUNCTION transactions_refund_fits();

CREATE FUNCTION transactions_refunds_agree(original uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    said numeric;
    refunded numeric;
BEGIN
    SELECT refunded_amount, (SELECT coalesce(sum(amount), 0) FROM transactions_transaction
                              WHERE parent_id = original AND type = 'refund')
      INTO said, refunded FROM transactions_transaction WHERE id = original;
    IF said <> refunded THEN
        RAISE EXCEPTION 'transaction %: says % was refunded, its refunds are %',
            original, said, refunded
            USING ERRCODE = '23514',
                  CONSTRAINT = 'transactions_transaction_refunds_are_its_children';
    END IF;
END $$;

CREATE FUNCTION transactions_original_agrees() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_refunds_agree(NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION transactions_refund_agrees() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_refunds_agree(NEW.parent_id);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_refunds_are_its_children
    AFTER UPDATE OF refunded_amount ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_original_agrees();
CREATE CONSTRAINT TRIGGER transactions_transaction_refund_reaches_its_parent
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'refund') EXECUTE FUNCTION transactions_refund_agrees();
"""

NO_REFUNDS = """
DROP TRIGGER transactions_transaction_refund_reaches_its_parent ON transactions_transaction;
DROP TRIGGER transactions_transaction_refunds_are_its_children ON transactions_transaction;
DROP FUNCTION transactions_refund_agrees();
DROP FUNCTION transactions_original_agrees();
DROP FUNCTION transactions_refunds_agree(uuid);
DROP TRIGGER transactions_transaction_refund_fits ON transactions_transaction;
DROP FUNCTION transactions_refund_fits();
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0006_holds")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([HOLD], [NO_HOLD]),
        migrations.RunSQL([HELD], [NOT_HELD]),
        migrations.RunSQL([CAPTURES], [NO_CAPTURES]),
        migrations.RunSQL([REFUNDS], [NO_REFUNDS]),
    ]
