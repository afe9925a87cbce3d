"""Invariant 7: every entry seals its wallet's history, at commit, in PostgreSQL.

The encoding that is hashed is public and permanent (`docs/ledger-proof.md`). A column that joins
the ledger later must join the encoding too, under a new name in its first field.
"""

import django.db.models.deletion
from django.db import migrations, models

# Netstrings (`length:value,`; NULL is `-`), so no two histories have the same text. Values whose
# length is fixed have it written out. These functions are inlined into the queries that use them.
TEXT = """
CREATE FUNCTION transactions_moment_text(moment timestamptz) RETURNS text
STABLE PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'UTC', '"27:"YYYY-MM-DD"T"HH24:MI:SS.US"Z,"');

CREATE FUNCTION transactions_transaction_text(made transactions_transaction) RETURNS text
STABLE PARALLEL SAFE
RETURN concat(
    '26:fintech-core/transaction/1,36:', (made).id,
    ',', octet_length((made).reference_id), ':', (made).reference_id,
    ',', octet_length((made).type), ':', (made).type,
    ',', length((made).amount::text), ':', (made).amount,
    ',3:', (made).currency,
    ',', length((made).fee::text), ':', (made).fee, ',',
    CASE WHEN (made).from_user_id IS NULL THEN '-'
         ELSE concat('36:', (made).from_user_id, ',') END,
    CASE WHEN (made).to_user_id IS NULL THEN '-'
         ELSE concat('36:', (made).to_user_id, ',') END,
    CASE WHEN (made).parent_id IS NULL THEN '-'
         ELSE concat('36:', (made).parent_id, ',') END,
    octet_length((made).description), ':', (made).description,
    ',', octet_length((made).metadata::text), ':', (made).metadata, ',',
    CASE WHEN (made).effect_key IS NULL THEN '-'
         ELSE concat(octet_length((made).effect_key), ':', (made).effect_key, ',') END,
    transactions_moment_text((made).created_at)
);

CREATE FUNCTION transactions_entry_text(entry transactions_transactionledger) RETURNS text
STABLE PARALLEL SAFE
RETURN concat(
    '36:', (entry).id,
    ',', octet_length((entry).account), ':', (entry).account, ',',
    CASE WHEN (entry).wallet_id IS NULL THEN '-'
         ELSE concat('36:', (entry).wallet_id, ',') END,
    CASE WHEN (entry).sequence IS NULL THEN '-'
         ELSE concat(length((entry).sequence::text), ':', (entry).sequence, ',') END,
    octet_length((entry).entry_type), ':', (entry).entry_type,
    ',', length((entry).amount::text), ':', (entry).amount,
    ',3:', (entry).currency, ',',
    CASE WHEN (entry).balance_after IS NULL THEN '-'
         ELSE concat(length((entry).balance_after::text), ':', (entry).balance_after, ',') END,
    transactions_moment_text((entry).created_at)
);

CREATE FUNCTION transactions_books_digest(made text, entries bigint, entry_texts text)
RETURNS bytea STABLE PARALLEL SAFE
RETURN sha256(convert_to(
    concat(made, length(entries::text), ':', entries, ',', entry_texts), 'UTF8'
));

CREATE FUNCTION transactions_digest(transaction uuid) RETURNS bytea
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = public, pg_temp AS $$
DECLARE
    digest bytea;
BEGIN
    SELECT transactions_books_digest(
               transactions_transaction_text(made), books.entries, books.texts)
      INTO digest
      FROM transactions_transaction made,
           (SELECT count(*) AS entries,
                   string_agg(transactions_entry_text(entry), '' ORDER BY entry.id) AS texts
              FROM transactions_transactionledger entry
             WHERE entry.transaction_id = transaction) books
     WHERE made.id = transaction;
    RETURN digest;
END $$;
"""

NO_TEXT = """
DROP FUNCTION transactions_digest(uuid);
DROP FUNCTION transactions_books_digest(text, bigint, text);
DROP FUNCTION transactions_entry_text(transactions_transactionledger);
DROP FUNCTION transactions_transaction_text(transactions_transaction);
DROP FUNCTION transactions_moment_text(timestamptz);
"""

# By CHECK, not by NOT NULL, so that a missing previous seal is refused under a name that says so.
TABLES = """
ALTER TABLE transactions_ledgerseal
    ALTER COLUMN seal DROP NOT NULL,
    ADD CONSTRAINT transactions_ledgerseal_continues_the_chain
        CHECK (seal IS NOT NULL AND octet_length(seal) = 32),
    ADD CONSTRAINT transactions_ledgerseal_numbered_from_one CHECK (sequence >= 1),
    -- In a checkpoint this id stands for the transactions outside all wallets.
    ADD CONSTRAINT transactions_ledgerseal_is_a_wallets
        CHECK (wallet_id <> '00000000-0000-0000-0000-000000000000');
ALTER TABLE transactions_outsideseal
    ALTER COLUMN seal DROP NOT NULL,
    ADD CONSTRAINT transactions_outsideseal_continues_the_chain
        CHECK (seal IS NOT NULL AND octet_length(seal) = 32),
    ADD CONSTRAINT transactions_outsideseal_numbered_from_one CHECK (sequence >= 1);

CREATE TRIGGER transactions_ledgerseal_no_change BEFORE UPDATE OR DELETE
    ON transactions_ledgerseal FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_ledgerseal_no_truncate BEFORE TRUNCATE
    ON transactions_ledgerseal FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_outsideseal_no_change BEFORE UPDATE OR DELETE
    ON transactions_outsideseal FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_outsideseal_no_truncate BEFORE TRUNCATE
    ON transactions_outsideseal FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();

-- What was posted since a checkpoint, and so which wallets have moved.
CREATE INDEX transactions_transaction_posted_in ON transactions_transaction (posted_in);
"""

# The tables go with the models.
NO_TABLES = """
DROP INDEX transactions_transaction_posted_in;
"""

# The owner's rights, because nobody else may write a seal; nobody may call it but the trigger.
# A transaction outside all wallets waits for the one before it, for it has no wallet's lock; there
# are few, and they wait only while one commits. The trigger on the transaction was queued before
# those on its entries, so at commit each entry finds its seal.
SEALED = """
CREATE FUNCTION transactions_transaction_seal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    zero constant bytea := decode(repeat('00', 32), 'hex');
    digest constant bytea := transactions_digest(NEW.id);
BEGIN
    INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)
    SELECT entry.wallet_id, entry.sequence,
           sha256(CASE entry.sequence WHEN 1 THEN zero ELSE previous.seal END || digest)
      FROM transactions_transactionledger entry
      LEFT JOIN transactions_ledgerseal previous
        ON previous.wallet_id = entry.wallet_id AND previous.sequence = entry.sequence - 1
     WHERE entry.transaction_id = NEW.id AND entry.wallet_id IS NOT NULL;
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock('transactions_outsideseal'::regclass::oid::bigint);
        INSERT INTO transactions_outsideseal (sequence, transaction_id, seal)
        SELECT coalesce(max(sequence), 0) + 1, NEW.id,
               sha256(coalesce((array_agg(seal))[1], zero) || digest)
          FROM (SELECT sequence, seal FROM transactions_outsideseal
                 ORDER BY sequence DESC LIMIT 1) previous;
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION transactions_transaction_seal() FROM PUBLIC;

CREATE CONSTRAINT TRIGGER transactions_transaction_seal
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_transaction_seal();

CREATE FUNCTION transactions_ledger_row_is_sealed() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transactions_ledgerseal
                    WHERE wallet_id = NEW.wallet_id AND sequence = NEW.sequence) THEN
        RAISE EXCEPTION 'wallet %, entry %: it joined transaction % after that was sealed',
            NEW.wallet_id, NEW.sequence, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_entry_is_sealed';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_ledger_entry_is_sealed
    AFTER INSERT ON transactions_transactionledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.wallet_id IS NOT NULL)
    EXECUTE FUNCTION transactions_ledger_row_is_sealed();
"""

NOT_SEALED = """
DROP TRIGGER transactions_ledger_entry_is_sealed ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_row_is_sealed();
DROP TRIGGER transactions_transaction_seal ON transactions_transaction;
DROP FUNCTION transactions_transaction_seal();
"""

# SET CONSTRAINTS … IMMEDIATE closes the books before the commit. A wallet's entry after that finds
# no seal; an outside entry has none of its own, so it must find the books open.
OPEN_BOOKS = """
CREATE FUNCTION transactions_ledger_books_are_open() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM transactions_outsideseal WHERE transaction_id = NEW.transaction_id)
       OR EXISTS (SELECT FROM transactions_transactionledger entry
                    JOIN transactions_ledgerseal seal
                      ON seal.wallet_id = entry.wallet_id AND seal.sequence = entry.sequence
                   WHERE entry.transaction_id = NEW.transaction_id) THEN
        RAISE EXCEPTION 'transaction %: its books are closed', NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_ledger_books_are_closed';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_ledger_books_are_open
    BEFORE INSERT ON transactions_transactionledger
    FOR EACH ROW WHEN (NEW.wallet_id IS NULL)
    EXECUTE FUNCTION transactions_ledger_books_are_open();
"""

NOT_OPEN_BOOKS = """
DROP TRIGGER transactions_ledger_books_are_open ON transactions_transactionledger;
DROP FUNCTION transactions_ledger_books_are_open();
"""

# The triggers above hold off writers until this is committed, so no entry slips through between.
SEAL_WHAT_IS_THERE = """
DO $$
DECLARE
    zero constant bytea := decode(repeat('00', 32), 'hex');
    entry record;
    seal bytea;
    number bigint := 0;
BEGIN
    FOR entry IN
        SELECT wallet_id, sequence, transaction_id FROM transactions_transactionledger
         WHERE wallet_id IS NOT NULL ORDER BY wallet_id, sequence
    LOOP
        IF entry.sequence = 1 THEN
            number := 0;
            seal := zero;
        END IF;
        number := number + 1;
        IF entry.sequence <> number THEN
            RAISE EXCEPTION 'wallet %: entry % is missing; find out why before sealing',
                entry.wallet_id, number;
        END IF;
        seal := sha256(seal || transactions_digest(entry.transaction_id));
        INSERT INTO transactions_ledgerseal VALUES (entry.wallet_id, entry.sequence, seal);
    END LOOP;
    number := 0;
    seal := zero;
    FOR entry IN
        SELECT id FROM transactions_transaction made
         WHERE NOT EXISTS (SELECT FROM transactions_transactionledger books
                            WHERE books.transaction_id = made.id AND books.wallet_id IS NOT NULL)
         ORDER BY created_at, id
    LOOP
        number := number + 1;
        seal := sha256(seal || transactions_digest(entry.id));
        INSERT INTO transactions_outsideseal VALUES (number, entry.id, seal);
    END LOOP;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0003_admin_indexes"), ("wallet", "0003_admin_index")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.CreateModel(
            name="LedgerSeal",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "wallet_id",
                        "sequence",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "wallet",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        editable=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="wallet.wallet",
                    ),
                ),
                ("sequence", models.BigIntegerField(editable=False)),
                ("seal", models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name="OutsideSeal",
            fields=[
                (
                    "sequence",
                    models.BigIntegerField(editable=False, primary_key=True, serialize=False),
                ),
                (
                    "transaction",
                    models.OneToOneField(
                        db_constraint=False,
                        editable=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="transactions.transaction",
                    ),
                ),
                ("seal", models.BinaryField()),
            ],
        ),
        migrations.RunSQL([TEXT], [NO_TEXT]),
        migrations.RunSQL([TABLES], [NO_TABLES]),
        migrations.RunSQL([SEALED], [NOT_SEALED]),
        migrations.RunSQL([OPEN_BOOKS], [NOT_OPEN_BOOKS]),
        migrations.RunSQL([SEAL_WHAT_IS_THERE], migrations.RunSQL.noop),
    ]
