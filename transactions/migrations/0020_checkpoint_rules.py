"""Checkpoints extend what is there, whoever writes them; and every moment of the ledger is one.

Both tables of a checkpoint are only ever added to, so a row that does not belong there would be
for ever. What PostgreSQL cannot check is the signature. Breaches carry SQLSTATE 23514 and the name
of the rule, so that Django raises IntegrityError.
"""

from django.db import migrations

# All at once, for a first checkpoint has a leaf for each wallet there is.
LEAVES = """
CREATE FUNCTION transactions_checkpointleaf_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    stray record;
BEGIN
    SELECT leaf.wallet_id, leaf.entry_count INTO stray
      FROM added leaf
      LEFT JOIN transactions_ledgerseal seal
        ON seal.wallet_id = leaf.wallet_id AND seal.sequence = leaf.entry_count
      LEFT JOIN transactions_outsideseal outside
        ON leaf.wallet_id = '00000000-0000-0000-0000-000000000000'
       AND outside.sequence = leaf.entry_count
     WHERE leaf.seal IS DISTINCT FROM coalesce(seal.seal, outside.seal)
        OR leaf.number <> (SELECT coalesce(max(number), 0) + 1
                             FROM transactions_ledgercheckpoint)
        OR EXISTS (SELECT FROM transactions_checkpointleaf other
                    WHERE other.wallet_id = leaf.wallet_id
                      AND other.entry_count <> leaf.entry_count
                      AND (other.entry_count > leaf.entry_count OR other.number >= leaf.number))
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'leaf of wallet %: % is not where it stands after the last checkpoint',
            stray.wallet_id, stray.entry_count
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_checkpointleaf_fits';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER transactions_checkpointleaf_fits AFTER INSERT ON transactions_checkpointleaf
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_checkpointleaf_fits();

CREATE FUNCTION transactions_checkpointleaf_is_signed() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transactions_ledgercheckpoint WHERE number = NEW.number) THEN
        RAISE EXCEPTION 'leaf of wallet %: there is no checkpoint %', NEW.wallet_id, NEW.number
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_checkpointleaf_is_signed';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_checkpointleaf_is_signed
    AFTER INSERT ON transactions_checkpointleaf DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_checkpointleaf_is_signed();
"""

NO_LEAVES = """
DROP TRIGGER transactions_checkpointleaf_is_signed ON transactions_checkpointleaf;
DROP FUNCTION transactions_checkpointleaf_is_signed();
DROP TRIGGER transactions_checkpointleaf_fits ON transactions_checkpointleaf;
DROP FUNCTION transactions_checkpointleaf_fits();
"""

NODES = """
CREATE FUNCTION transactions_checkpointnode_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF (SELECT coalesce(max(number), 0) FROM transactions_checkpointleaf)
       <= (SELECT coalesce(max(number), 0) FROM transactions_ledgercheckpoint) THEN
        RAISE EXCEPTION 'the tree of a checkpoint grows with leaves alone'
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_checkpointnode_fits';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER transactions_checkpointnode_fits BEFORE INSERT OR UPDATE
    ON transactions_checkpointnode
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_checkpointnode_fits();
"""

NO_NODES = """
DROP TRIGGER transactions_checkpointnode_fits ON transactions_checkpointnode;
DROP FUNCTION transactions_checkpointnode_fits();
"""

CHECKPOINTS = """
CREATE FUNCTION transactions_ledgercheckpoint_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    newest transactions_ledgercheckpoint;
BEGIN
    SELECT * INTO newest FROM transactions_ledgercheckpoint ORDER BY number DESC LIMIT 1;
    IF NEW.number <> coalesce(newest.number, 0) + 1
       OR NEW.previous <> coalesce(sha256(convert_to(newest.payload, 'UTF8')),
                                   decode(repeat('00', 32), 'hex'))
       OR NEW.root IS DISTINCT FROM
          (SELECT hash FROM transactions_checkpointnode WHERE depth = 0 AND prefix = 0)
       OR NEW.payload::jsonb <> jsonb_build_object(
              'format', 'fintech-core/checkpoint/1',
              'number', NEW.number,
              'created_at', to_char(NEW.created_at AT TIME ZONE 'UTC',
                                    'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
              'wallet_count', NEW.wallet_count,
              'entry_count', NEW.entry_count,
              'outside_count', NEW.outside_count,
              'root', encode(NEW.root, 'hex'),
              'previous', encode(NEW.previous, 'hex'),
              'key_id', NEW.key_id)
       OR NOT EXISTS (SELECT FROM transactions_checkpointleaf WHERE number = NEW.number) THEN
        RAISE EXCEPTION 'checkpoint %: it does not extend checkpoint %',
            NEW.number, newest.number
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledgercheckpoint_fits';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_ledgercheckpoint_fits BEFORE INSERT ON transactions_ledgercheckpoint
    FOR EACH ROW EXECUTE FUNCTION transactions_ledgercheckpoint_fits();
"""

NO_CHECKPOINTS = """
DROP TRIGGER transactions_ledgercheckpoint_fits ON transactions_ledgercheckpoint;
DROP FUNCTION transactions_ledgercheckpoint_fits();
"""

# What is hashed is written with four digits for the year; an infinite moment would be written as
# nothing at all. What is there already is read by the next migration, while money moves on.
MOMENTS = """
ALTER TABLE transactions_transaction
    ADD CONSTRAINT transactions_transaction_has_a_moment
        CHECK (created_at >= '1970-01-01T00:00:00Z' AND created_at < '3000-01-01T00:00:00Z')
        NOT VALID;
ALTER TABLE transactions_transactionledger
    ADD CONSTRAINT transactions_ledger_has_a_moment
        CHECK (created_at >= '1970-01-01T00:00:00Z' AND created_at < '3000-01-01T00:00:00Z')
        NOT VALID;
"""
NO_MOMENTS = """
ALTER TABLE transactions_transactionledger DROP CONSTRAINT transactions_ledger_has_a_moment;
ALTER TABLE transactions_transaction DROP CONSTRAINT transactions_transaction_has_a_moment;
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0013_by_whom")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([LEAVES], [NO_LEAVES]),
        migrations.RunSQL([NODES], [NO_NODES]),
        migrations.RunSQL([CHECKPOINTS], [NO_CHECKPOINTS]),
        migrations.RunSQL([MOMENTS], [NO_MOMENTS]),
    ]
