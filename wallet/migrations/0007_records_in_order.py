"""What staff decide about a wallet is numbered and dated by PostgreSQL, whoever writes it.

An early number would have joined the middle of the history, the last one would have ended it.
"""

from django.db import migrations

# Under the wallet's lock, so a wallet's later record has the higher number and the later moment.
_FITS = """
CREATE OR REPLACE FUNCTION wallet_record_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    owner uuid;
BEGIN
    -- One record of a wallet at a time, so that there is always one newest.
    SELECT user_id INTO owner FROM wallet_wallet WHERE id = NEW.wallet_id FOR NO KEY UPDATE;
    IF owner = NEW.actor_id THEN
        RAISE EXCEPTION 'wallet %: nobody decides about their own wallet', NEW.wallet_id
            USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_not_on_oneself';
    END IF;STAMP
    RETURN NEW;
END $$;
"""
STAMPED = _FITS.replace(
    "STAMP",
    """
    NEW.id := nextval(pg_get_serial_sequence(TG_TABLE_NAME, 'id'));
    NEW.created_at := clock_timestamp();""",
)
AS_WRITTEN = _FITS.replace("STAMP", "")


class Migration(migrations.Migration):
    dependencies = [("wallet", "0006_lock")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [migrations.RunSQL([STAMPED], [AS_WRITTEN])]
