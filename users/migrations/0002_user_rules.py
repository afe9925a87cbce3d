"""What Django cannot say about users: steps, records that only grow, sessions that end at once.

Every rule raises 23514 (check_violation) with a constraint name, so that Django raises
IntegrityError and logs and tests can name the rule.
"""

from django.db import migrations

# --- A name or a fact that was submitted stands still; the status moves along known steps --------
USER_STEPS = """
CREATE FUNCTION users_user_check_step() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.kyc_status <> 'not_submitted' THEN
            RAISE EXCEPTION 'a new user has submitted nothing yet'
                USING ERRCODE = '23514', CONSTRAINT = 'users_user_kyc_status_step';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.kyc_status <> OLD.kyc_status
        AND (OLD.kyc_status, NEW.kyc_status) NOT IN (
            ('not_submitted', 'pending'), ('rejected', 'pending'),
            ('pending', 'approved'), ('pending', 'rejected')
        )
    THEN
        RAISE EXCEPTION 'no KYC step leads from % to %', OLD.kyc_status, NEW.kyc_status
            USING ERRCODE = '23514', CONSTRAINT = 'users_user_kyc_status_step';
    END IF;
    IF OLD.kyc_status IN ('pending', 'approved')
        AND (NEW.first_name, NEW.last_name) IS DISTINCT FROM (OLD.first_name, OLD.last_name)
    THEN
        RAISE EXCEPTION 'names stand still while KYC is %', OLD.kyc_status
            USING ERRCODE = '23514', CONSTRAINT = 'users_user_names_are_frozen';
    END IF;
    IF NOT (OLD.kyc_status <> 'pending' AND NEW.kyc_status = 'pending')
        AND (NEW.date_of_birth, NEW.address_line1, NEW.address_line2, NEW.city,
             NEW.postal_code, NEW.country)
            IS DISTINCT FROM
            (OLD.date_of_birth, OLD.address_line1, OLD.address_line2, OLD.city,
             OLD.postal_code, OLD.country)
    THEN
        RAISE EXCEPTION 'identity facts change only by a new submission'
            USING ERRCODE = '23514', CONSTRAINT = 'users_user_identity_is_frozen';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER users_user_check_step
BEFORE INSERT OR UPDATE ON users_user
FOR EACH ROW EXECUTE FUNCTION users_user_check_step();
"""

NO_USER_STEPS = """
DROP TRIGGER users_user_check_step ON users_user;
DROP FUNCTION users_user_check_step();
"""

# --- The record of steps is a chain, and at commit its end is the user's status ------------------
STEP_CHAIN = """
ALTER TABLE users_kycstep ADD CONSTRAINT users_kycstep_submission_is_the_users
FOREIGN KEY (submission_id, user_id) REFERENCES users_kycsubmission (id, user_id)
DEFERRABLE INITIALLY DEFERRED;

CREATE FUNCTION users_kycstep_check_chain() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    newest text;
BEGIN
    -- One step of a user at a time, so that the chain cannot fork.
    PERFORM 1 FROM users_user WHERE id = NEW.user_id FOR NO KEY UPDATE;
    SELECT to_status INTO newest FROM users_kycstep
    WHERE user_id = NEW.user_id ORDER BY id DESC LIMIT 1;
    IF NEW.from_status <> coalesce(newest, '') THEN
        RAISE EXCEPTION 'the newest KYC step led to "%", not to "%"', newest, NEW.from_status
            USING ERRCODE = '23514', CONSTRAINT = 'users_kycstep_is_a_chain';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER users_kycstep_check_chain
BEFORE INSERT ON users_kycstep
FOR EACH ROW EXECUTE FUNCTION users_kycstep_check_chain();

CREATE FUNCTION users_check_status_is_recorded() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    subject uuid := CASE TG_TABLE_NAME
        WHEN 'users_user' THEN (to_jsonb(NEW) ->> 'id')::uuid
        ELSE (to_jsonb(NEW) ->> 'user_id')::uuid
    END;
    status text;
    newest text;
BEGIN
    SELECT kyc_status INTO status FROM users_user WHERE id = subject;
    SELECT to_status INTO newest FROM users_kycstep
    WHERE user_id = subject ORDER BY id DESC LIMIT 1;
    IF status IS DISTINCT FROM newest THEN
        RAISE EXCEPTION 'KYC is %, but the newest step led to %', status, newest
            USING ERRCODE = '23514', CONSTRAINT = 'users_user_kyc_status_is_recorded';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER users_user_kyc_status_is_recorded
AFTER INSERT OR UPDATE OF kyc_status ON users_user
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION users_check_status_is_recorded();

CREATE CONSTRAINT TRIGGER users_kycstep_status_is_recorded
AFTER INSERT ON users_kycstep
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION users_check_status_is_recorded();
"""

NO_STEP_CHAIN = """
DROP TRIGGER users_kycstep_status_is_recorded ON users_kycstep;
DROP TRIGGER users_user_kyc_status_is_recorded ON users_user;
DROP FUNCTION users_check_status_is_recorded();
DROP TRIGGER users_kycstep_check_chain ON users_kycstep;
DROP FUNCTION users_kycstep_check_chain();
ALTER TABLE users_kycstep DROP CONSTRAINT users_kycstep_submission_is_the_users;
"""

# --- Records that only grow ----------------------------------------------------------------------
APPEND_ONLY = ["users_kycstep", "users_kycsubmission", "users_kycdocumentaccess"]

REFUSE_CHANGE = """
CREATE FUNCTION users_refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% refused: % is a permanent record', TG_OP, TG_TABLE_NAME
        USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_is_append_only';
END $$;
""" + "".join(
    f"""
CREATE TRIGGER {table}_refuse_change
BEFORE UPDATE OR DELETE ON {table}
FOR EACH ROW EXECUTE FUNCTION users_refuse_change();

CREATE TRIGGER {table}_refuse_truncate
BEFORE TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION users_refuse_change();
"""
    for table in APPEND_ONLY
)

ALLOW_CHANGE = (
    "".join(
        f"""
DROP TRIGGER {table}_refuse_change ON {table};
DROP TRIGGER {table}_refuse_truncate ON {table};
"""
        for table in APPEND_ONLY
    )
    + "DROP FUNCTION users_refuse_change();"
)

# --- A changed password, or deactivation, ends every session, whoever made the change ------------
END_SESSIONS = """
CREATE FUNCTION users_user_end_sessions() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE users_session
    SET revoked_at = clock_timestamp(),
        revoked_reason = CASE
            WHEN OLD.password <> NEW.password THEN 'password_changed' ELSE 'deactivated'
        END
    WHERE user_id = NEW.id AND revoked_at IS NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER users_user_end_sessions
AFTER UPDATE OF password, is_active ON users_user
FOR EACH ROW
WHEN (OLD.password <> NEW.password OR (OLD.is_active AND NOT NEW.is_active))
EXECUTE FUNCTION users_user_end_sessions();
"""

KEEP_SESSIONS = """
DROP TRIGGER users_user_end_sessions ON users_user;
DROP FUNCTION users_user_end_sessions();
"""

# --- The staff's search by the beginning of a name (`istartswith` compares upper-case) -----------
NAME_INDEXES = """
CREATE INDEX users_user_first_name_prefix ON users_user (upper(first_name) text_pattern_ops);
CREATE INDEX users_user_last_name_prefix ON users_user (upper(last_name) text_pattern_ops);
"""

NO_NAME_INDEXES = """
DROP INDEX users_user_first_name_prefix;
DROP INDEX users_user_last_name_prefix;
"""


class Migration(migrations.Migration):
    dependencies = [("users", "0001_initial")]

    operations = [
        migrations.RunSQL(USER_STEPS, NO_USER_STEPS),
        migrations.RunSQL(STEP_CHAIN, NO_STEP_CHAIN),
        migrations.RunSQL(REFUSE_CHANGE, ALLOW_CHANGE),
        migrations.RunSQL(END_SESSIONS, KEEP_SESSIONS),
        migrations.RunSQL(NAME_INDEXES, NO_NAME_INDEXES),
    ]
