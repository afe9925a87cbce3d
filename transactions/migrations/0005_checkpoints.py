"""Signed checkpoints. Only ever added to; what was signed cannot be taken back quietly."""

from django.db import migrations, models

TABLES = """
ALTER TABLE transactions_ledgercheckpoint
    ADD COLUMN horizon xid8 NOT NULL,
    ADD COLUMN cluster bigint NOT NULL,
    ADD CONSTRAINT transactions_ledgercheckpoint_numbered_from_one CHECK (number >= 1),
    ADD CONSTRAINT transactions_ledgercheckpoint_hashes_are_whole
        CHECK (octet_length(root) = 32 AND octet_length(previous) = 32
               AND octet_length(public_key) = 32 AND octet_length(signature) = 64);
COMMENT ON COLUMN transactions_ledgercheckpoint.horizon IS
    'Every database transaction before this one had ended; those from it on are looked at again.';
COMMENT ON COLUMN transactions_ledgercheckpoint.cluster IS
    'Which cluster the horizon counts in: a restored database begins to count anew.';
ALTER TABLE transactions_checkpointleaf
    ALTER COLUMN seal DROP NOT NULL,
    ADD CONSTRAINT transactions_checkpointleaf_has_its_seal
        CHECK (seal IS NOT NULL AND octet_length(seal) = 32),
    ADD CONSTRAINT transactions_checkpointleaf_counts_from_one CHECK (entry_count >= 1);

CREATE TRIGGER transactions_ledgercheckpoint_no_change BEFORE UPDATE OR DELETE
    ON transactions_ledgercheckpoint FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_ledgercheckpoint_no_truncate BEFORE TRUNCATE
    ON transactions_ledgercheckpoint FOR EACH STATEMENT
    EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_checkpointleaf_no_change BEFORE UPDATE OR DELETE
    ON transactions_checkpointleaf FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_checkpointleaf_no_truncate BEFORE TRUNCATE
    ON transactions_checkpointleaf FOR EACH STATEMENT
    EXECUTE FUNCTION transactions_append_only();
"""

# A wallet's place in the tree: the first bits of the hash of its id.
BUCKETS = """
CREATE FUNCTION transactions_bucket(wallet uuid) RETURNS integer
IMMUTABLE STRICT PARALLEL SAFE
RETURN get_byte(sha256(uuid_send(wallet)), 0) * 256 + get_byte(sha256(uuid_send(wallet)), 1);

CREATE INDEX wallet_wallet_bucket ON wallet_wallet (transactions_bucket(id));
"""

NO_BUCKETS = """
DROP INDEX wallet_wallet_bucket;
DROP FUNCTION transactions_bucket(uuid);
"""


def _composite(*names: str) -> models.CompositePrimaryKey:
    return models.CompositePrimaryKey(
        *names, blank=True, editable=False, primary_key=True, serialize=False
    )


class Migration(migrations.Migration):
    dependencies = [("transactions", "0004_seals")]

    operations = [
        migrations.CreateModel(
            name="LedgerCheckpoint",
            fields=[
                (
                    "number",
                    models.BigIntegerField(editable=False, primary_key=True, serialize=False),
                ),
                ("created_at", models.DateTimeField(editable=False)),
                ("wallet_count", models.BigIntegerField(editable=False)),
                ("entry_count", models.BigIntegerField(editable=False)),
                ("outside_count", models.BigIntegerField(editable=False)),
                ("root", models.BinaryField()),
                ("previous", models.BinaryField()),
                ("payload", models.TextField(editable=False)),
                ("signature", models.BinaryField()),
                ("key_id", models.CharField(editable=False, max_length=16)),
                ("public_key", models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name="CheckpointLeaf",
            fields=[
                ("pk", _composite("wallet_id", "entry_count")),
                ("wallet_id", models.UUIDField(editable=False)),
                ("entry_count", models.BigIntegerField(editable=False)),
                ("number", models.BigIntegerField(editable=False)),
                ("seal", models.BinaryField()),
            ],
            options={
                "indexes": [models.Index(fields=["number"], name="transactions_leaf_number")],
            },
        ),
        migrations.CreateModel(
            name="CheckpointNode",
            fields=[
                ("pk", _composite("depth", "prefix")),
                ("depth", models.SmallIntegerField(editable=False)),
                ("prefix", models.IntegerField(editable=False)),
                ("leaf_count", models.BigIntegerField(editable=False)),
                ("hash", models.BinaryField()),
            ],
        ),
        migrations.RunSQL([TABLES], migrations.RunSQL.noop),
        migrations.RunSQL([BUCKETS], [NO_BUCKETS]),
    ]
