"""What a wallet never does: change hands or currency, come back from closed, disappear."""

from django.db import migrations

RULES = """
CREATE FUNCTION wallet_wallet_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF (NEW.id, NEW.user_id, NEW.currency, NEW.created_at)
       IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.currency, OLD.created_at) THEN
        RAISE EXCEPTION 'wallet %: owner, currency and creation time never change', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_identity_is_frozen';
    END IF;
    IF OLD.status = 'closed' AND NEW.status <> 'closed' THEN
        RAISE EXCEPTION 'wallet %: a closed wallet stays closed', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_closed_is_final';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION wallet_wallet_keep() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'wallets are never deleted (% refused)', TG_OP
        USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_never_deleted';
END $$;

CREATE TRIGGER wallet_wallet_guard BEFORE UPDATE ON wallet_wallet
    FOR EACH ROW EXECUTE FUNCTION wallet_wallet_guard();
CREATE TRIGGER wallet_wallet_no_delete BEFORE DELETE ON wallet_wallet
    FOR EACH ROW EXECUTE FUNCTION wallet_wallet_keep();
CREATE TRIGGER wallet_wallet_no_truncate BEFORE TRUNCATE ON wallet_wallet
    FOR EACH STATEMENT EXECUTE FUNCTION wallet_wallet_keep();
"""

NO_RULES = """
DROP TRIGGER wallet_wallet_no_truncate ON wallet_wallet;
DROP TRIGGER wallet_wallet_no_delete ON wallet_wallet;
DROP TRIGGER wallet_wallet_guard ON wallet_wallet;
DROP FUNCTION wallet_wallet_keep();
DROP FUNCTION wallet_wallet_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("wallet", "0001_initial")]

    operations = [migrations.RunSQL([RULES], [NO_RULES])]
