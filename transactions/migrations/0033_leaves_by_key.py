"""The seal of each new leaf is looked up by its key, whatever PostgreSQL believes of the table.

A checkpoint has no time limit. Where seals were counted before what filled their table was
committed, all of them would be read for each wallet that has moved.
"""

from django.db import migrations

_FITS = """
CREATE OR REPLACE FUNCTION transactions_checkpointleaf_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    stray record;
BEGIN
    SELECT leaf.wallet_id, leaf.entry_count INTO stray
      FROM added leaf{seals}
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
"""
BY_KEY = _FITS.format(
    seals="""
      LEFT JOIN LATERAL (
           SELECT seal FROM transactions_ledgerseal
            WHERE wallet_id = leaf.wallet_id AND sequence = leaf.entry_count OFFSET 0) seal ON true
      LEFT JOIN LATERAL (
           SELECT seal FROM transactions_outsideseal
            WHERE leaf.wallet_id = '00000000-0000-0000-0000-000000000000'
              AND sequence = leaf.entry_count OFFSET 0) outside ON true"""
)
JOINED = _FITS.format(
    seals="""
      LEFT JOIN transactions_ledgerseal seal
        ON seal.wallet_id = leaf.wallet_id AND seal.sequence = leaf.entry_count
      LEFT JOIN transactions_outsideseal outside
        ON leaf.wallet_id = '00000000-0000-0000-0000-000000000000'
       AND outside.sequence = leaf.entry_count"""
)


class Migration(migrations.Migration):
    dependencies = [("transactions", "0032_page_by_counterparty")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [migrations.RunSQL([BY_KEY], [JOINED])]
