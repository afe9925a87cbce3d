"""Claiming an idempotency key: a lock that ends with the transaction, then a look at the record.

Two numbers name the lock: the table, and a hash of the key. Two keys with one hash wait for each
other and no more. The index on the user alone goes: the unique one begins with it.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# Waiting is the exception; only then is a sub-transaction worth its price, to say what was waited
# for: FC002, no class that PostgreSQL knows.
CLAIM = """
CREATE FUNCTION fintech_core_lock_key(caller uuid, called text, with_key text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    space constant integer := 'fintech_core_idempotencyrecord'::regclass::oid::integer;
    name constant integer := hashtext(concat_ws(' ', caller, called, with_key));
BEGIN
    IF NOT pg_try_advisory_xact_lock(space, name) THEN
        BEGIN
            PERFORM pg_advisory_xact_lock(space, name);
        EXCEPTION WHEN lock_not_available THEN
            RAISE EXCEPTION 'the key is still being worked on' USING ERRCODE = 'FC002';
        END;
    END IF;
END $$;

CREATE FUNCTION fintech_core_claim(caller uuid, called text, with_key text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fintech_core_lock_key(caller, called, with_key);
    IF EXISTS (SELECT FROM fintech_core_idempotencyrecord
                WHERE user_id = caller AND operation = called AND key = with_key) THEN
        RAISE EXCEPTION 'the key is taken' USING ERRCODE = 'FC001';
    END IF;
END $$;
"""

NO_CLAIM = """
DROP FUNCTION fintech_core_claim(uuid, text, text);
DROP FUNCTION fintech_core_lock_key(uuid, text, text);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("fintech_core", "0002_idempotency_rules"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([CLAIM], [NO_CLAIM]),
        migrations.AlterField(
            model_name="idempotencyrecord",
            name="user",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
    ]
