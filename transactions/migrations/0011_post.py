"""Posting in one call of PostgreSQL, however many movements: transactions, balances, entries.

Mechanism, not policy: it writes what it is told, and the ledger's rules hold for it as for every
other writer. The statements are planned once a session.
"""

from django.db import migrations

# The documents have the tables' own column names, so a column that joins later joins here, too.
POST = """
CREATE FUNCTION transactions_post(made jsonb, moved jsonb, entries jsonb, spent jsonb)
RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO transactions_transaction
    SELECT * FROM jsonb_populate_recordset(NULL::transactions_transaction, made);
    UPDATE wallet_wallet wallet
       SET balance = after.balance, entry_count = after.entry_count,
           last_entry_at = after.last_entry_at, updated_at = clock_timestamp()
      FROM jsonb_populate_recordset(NULL::wallet_wallet, moved) after
     WHERE wallet.id = after.id;
    -- In the order given: the trigger on each row looks at the wallet's entry before it.
    INSERT INTO transactions_transactionledger
    SELECT * FROM jsonb_populate_recordset(NULL::transactions_transactionledger, entries);
    IF spent IS NOT NULL THEN
        PERFORM wallet_record_debits(
            (spent ->> 'wallet_id')::uuid,
            (spent ->> 'total')::numeric,
            (spent ->> 'count')::integer
        );
    END IF;
END $$;
"""

NO_POST = "DROP FUNCTION transactions_post(jsonb, jsonb, jsonb, jsonb);"


class Migration(migrations.Migration):
    dependencies = [
        ("transactions", "0010_one_check_per_transaction"),
        ("wallet", "0006_lock"),
    ]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [migrations.RunSQL([POST], [NO_POST])]
