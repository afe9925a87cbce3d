"""What staff decide is written down for good, and is what counts; what left a wallet is not
forgotten while a limit looks back at it.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations

RECORDS = ("wallet_walletstep", "wallet_limitoverride")

RECORDS_KEPT = """
CREATE FUNCTION wallet_record_keep() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is a permanent record: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_is_append_only';
END $$;

CREATE FUNCTION wallet_record_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    owner uuid;
BEGIN
    -- One record of a wallet at a time, so that there is always one newest.
    SELECT user_id INTO owner FROM wallet_wallet WHERE id = NEW.wallet_id FOR NO KEY UPDATE;
    IF owner = NEW.actor_id THEN
        RAISE EXCEPTION 'wallet %: nobody decides about their own wallet', NEW.wallet_id
            USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_not_on_oneself';
    END IF;
    RETURN NEW;
END $$;
"""

APPEND_ONLY = "".join(
    f"""
CREATE TRIGGER {table}_fits BEFORE INSERT ON {table}
    FOR EACH ROW EXECUTE FUNCTION wallet_record_fits();
CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION wallet_record_keep();
CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION wallet_record_keep();
"""
    for table in RECORDS
)

NO_APPEND_ONLY = "".join(
    f"""
DROP TRIGGER {table}_no_truncate ON {table};
DROP TRIGGER {table}_no_change ON {table};
DROP TRIGGER {table}_fits ON {table};
"""
    for table in RECORDS
)

RECORDS_NOT_KEPT = """
DROP FUNCTION wallet_record_fits();
DROP FUNCTION wallet_record_keep();
"""

# After `wallet_record_fits`, which locks the wallet: triggers of a kind run in the order of their
# names.
STEPS = """
CREATE FUNCTION wallet_walletstep_follows() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    newest text;
BEGIN
    SELECT to_status INTO newest FROM wallet_walletstep
     WHERE wallet_id = NEW.wallet_id ORDER BY id DESC LIMIT 1;
    IF NEW.from_status <> coalesce(newest, 'active') THEN
        RAISE EXCEPTION 'wallet %: it is %, not %',
            NEW.wallet_id, coalesce(newest, 'active'), NEW.from_status
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_walletstep_is_a_chain';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER wallet_walletstep_follows BEFORE INSERT ON wallet_walletstep
    FOR EACH ROW EXECUTE FUNCTION wallet_walletstep_follows();
"""

NO_STEPS = """
DROP TRIGGER wallet_walletstep_follows ON wallet_walletstep;
DROP FUNCTION wallet_walletstep_follows();
"""

# At commit, both ways: a wallet changed without a record, and a record without its wallet changed.
# Moving money touches neither column, and pays for nothing.
AGREES = """
CREATE FUNCTION wallet_records_agree(wallet uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    said record;
    led_to text;
    override bigint;
BEGIN
    SELECT status, limit_override_id INTO said FROM wallet_wallet WHERE id = wallet;
    SELECT to_status INTO led_to FROM wallet_walletstep
     WHERE wallet_id = wallet ORDER BY id DESC LIMIT 1;
    IF said.status <> coalesce(led_to, 'active') THEN
        RAISE EXCEPTION 'wallet %: it is %, but its newest step led to %',
            wallet, said.status, coalesce(led_to, 'active')
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_status_is_recorded';
    END IF;
    SELECT id INTO override FROM wallet_limitoverride
     WHERE wallet_id = wallet ORDER BY id DESC LIMIT 1;
    IF said.limit_override_id IS DISTINCT FROM override THEN
        RAISE EXCEPTION 'wallet %: its newest limits are %, not %',
            wallet, override, said.limit_override_id
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_limits_are_recorded';
    END IF;
END $$;

CREATE FUNCTION wallet_wallet_records_agree() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM wallet_records_agree(NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION wallet_record_reaches_the_wallet() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM wallet_records_agree(NEW.wallet_id);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER wallet_wallet_records_agree
    AFTER INSERT OR UPDATE OF status, limit_override_id ON wallet_wallet
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wallet_wallet_records_agree();
CREATE CONSTRAINT TRIGGER wallet_walletstep_reaches_the_wallet
    AFTER INSERT ON wallet_walletstep DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wallet_record_reaches_the_wallet();
CREATE CONSTRAINT TRIGGER wallet_limitoverride_reaches_the_wallet
    AFTER INSERT ON wallet_limitoverride DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wallet_record_reaches_the_wallet();
"""

NOT_AGREES = """
DROP TRIGGER wallet_limitoverride_reaches_the_wallet ON wallet_limitoverride;
DROP TRIGGER wallet_walletstep_reaches_the_wallet ON wallet_walletstep;
DROP TRIGGER wallet_wallet_records_agree ON wallet_wallet;
DROP FUNCTION wallet_record_reaches_the_wallet();
DROP FUNCTION wallet_wallet_records_agree();
DROP FUNCTION wallet_records_agree(uuid);
"""

# The row of the current hour is rewritten with every debit: room on its page keeps that cheap.
DEBITS = """
ALTER TABLE wallet_debitbucket SET (fillfactor = 70);
ALTER TABLE wallet_debitbucket ADD CONSTRAINT wallet_debitbucket_begins_on_the_hour
    CHECK (hour = date_trunc('hour', hour, 'UTC'));

CREATE FUNCTION wallet_debitbucket_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.hour >= date_trunc('hour', now() - interval '720 hours', 'UTC') THEN
            RAISE EXCEPTION 'wallet %: limits still look back at %', OLD.wallet_id, OLD.hour
                USING ERRCODE = '23514', CONSTRAINT = 'wallet_debitbucket_is_kept';
        END IF;
        RETURN OLD;
    END IF;
    IF (NEW.wallet_id, NEW.hour) <> (OLD.wallet_id, OLD.hour)
       OR NEW.total < OLD.total OR NEW.count < OLD.count THEN
        RAISE EXCEPTION 'wallet %: what left it only grows', OLD.wallet_id
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_debitbucket_only_grows';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER wallet_debitbucket_guard BEFORE UPDATE OR DELETE ON wallet_debitbucket
    FOR EACH ROW EXECUTE FUNCTION wallet_debitbucket_guard();
"""

NO_DEBITS = """
DROP TRIGGER wallet_debitbucket_guard ON wallet_debitbucket;
DROP FUNCTION wallet_debitbucket_guard();
ALTER TABLE wallet_debitbucket DROP CONSTRAINT wallet_debitbucket_begins_on_the_hour;
ALTER TABLE wallet_debitbucket RESET (fillfactor);
"""


class Migration(migrations.Migration):
    dependencies = [("wallet", "0004_limits_and_steps")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([RECORDS_KEPT], [RECORDS_NOT_KEPT]),
        migrations.RunSQL([APPEND_ONLY], [NO_APPEND_ONLY]),
        migrations.RunSQL([STEPS], [NO_STEPS]),
        migrations.RunSQL([AGREES], [NOT_AGREES]),
        migrations.RunSQL([DEBITS], [NO_DEBITS]),
    ]
