"""A key's answer is given once and kept: nobody moves a key aside to spend it again."""

from django.db import migrations, models

RULES = """
CREATE FUNCTION fintech_core_idempotency_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF (NEW.id, NEW.user_id, NEW.operation, NEW.key, NEW.fingerprint, NEW.created_at)
       IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.operation, OLD.key, OLD.fingerprint,
                         OLD.created_at)
       OR OLD.resource_id IS NOT NULL AND NEW.resource_id IS DISTINCT FROM OLD.resource_id
       OR OLD.response_status IS NOT NULL
          AND (NEW.response_status, NEW.response_body)
              IS DISTINCT FROM (OLD.response_status, OLD.response_body) THEN
        RAISE EXCEPTION 'idempotency record %: what a key stands for never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_idempotency_is_frozen';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION fintech_core_idempotency_keep() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'idempotency records are kept for ever (% refused)', TG_OP
        USING ERRCODE = '23514', CONSTRAINT = 'fintech_core_idempotency_never_deleted';
END $$;

CREATE TRIGGER fintech_core_idempotency_guard BEFORE UPDATE ON fintech_core_idempotencyrecord
    FOR EACH ROW EXECUTE FUNCTION fintech_core_idempotency_guard();
CREATE TRIGGER fintech_core_idempotency_no_delete BEFORE DELETE ON fintech_core_idempotencyrecord
    FOR EACH ROW EXECUTE FUNCTION fintech_core_idempotency_keep();
CREATE TRIGGER fintech_core_idempotency_no_truncate
    BEFORE TRUNCATE ON fintech_core_idempotencyrecord
    FOR EACH STATEMENT EXECUTE FUNCTION fintech_core_idempotency_keep();
"""

NO_RULES = """
DROP TRIGGER fintech_core_idempotency_no_truncate ON fintech_core_idempotencyrecord;
DROP TRIGGER fintech_core_idempotency_no_delete ON fintech_core_idempotencyrecord;
DROP TRIGGER fintech_core_idempotency_guard ON fintech_core_idempotencyrecord;
DROP FUNCTION fintech_core_idempotency_keep();
DROP FUNCTION fintech_core_idempotency_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("fintech_core", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="idempotencyrecord",
            name="busy_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.RunSQL([RULES], [NO_RULES]),
    ]
