"""A page of one person's ledger entries, in one round trip and by one plan.

To spell the query out and plan four joined tables took longer, each time, than to read the page.
"""

from django.db import migrations

# Both directions say their order outright: a plan for either could not walk along the index. Where
# tables are small another plan may look cheaper; it would be kept for as long as the session lives.
_READ = """
        SELECT entry.sequence, entry.id::text, entry.transaction_id::text,
               entry.entry_type::text, entry.amount::text, entry.currency::text,
               entry.balance_after::text, entry.created_at,
               moved.reference_id::text, moved.type::text, moved.status::text, moved.fee::text,
               moved.description::text, moved.metadata::text, moved.parent_id::text,
               moved.created_at, moved.completed_at,
               payer.id::text, payer.first_name::text, payer.last_name::text,
               payee.id::text, payee.first_name::text, payee.last_name::text
          FROM transactions_transactionledger entry
          JOIN transactions_transaction moved ON moved.id = entry.transaction_id
          LEFT JOIN users_user payer ON payer.id = moved.from_user_id
          LEFT JOIN users_user payee ON payee.id = moved.to_user_id
         WHERE entry.wallet_id = own
           AND entry.sequence > above AND entry.sequence < below
           AND (kind IS NULL OR moved.type = kind)
           AND (state IS NULL OR moved.status = state)
           AND (side IS NULL OR entry.entry_type = side)
           AND (amount_min IS NULL OR entry.amount >= amount_min)
           AND (amount_max IS NULL OR entry.amount <= amount_max)
"""

PAGE = f"""
CREATE FUNCTION transactions_page(
    of_user uuid, falling boolean, above bigint, below bigint, skip integer, most integer,
    since timestamptz, until timestamptz, kind varchar, state varchar, side varchar,
    amount_min numeric, amount_max numeric
)
RETURNS TABLE (
    sequence bigint, id text, transaction_id text, entry_type text, amount text, currency text,
    balance_after text, entered_at timestamptz, reference_id text, type text, status text,
    fee text, description text, metadata text, parent_id text, created_at timestamptz,
    completed_at timestamptz, payer_id text, payer_first_name text, payer_last_name text,
    payee_id text, payee_first_name text, payee_last_name text
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    own uuid;
    found_number bigint;
BEGIN
    SELECT wallet.id INTO own FROM wallet_wallet wallet WHERE wallet.user_id = of_user;
    -- Time runs forward with the numbers (a trigger sees to it), so a bound in time is a bound in
    -- numbers, found in one look-up.
    IF since IS NOT NULL THEN
        SELECT entry.sequence INTO found_number FROM transactions_transactionledger entry
         WHERE entry.wallet_id = own AND entry.created_at >= since
         ORDER BY entry.created_at, entry.sequence LIMIT 1;
        IF NOT FOUND THEN RETURN; END IF;
        above := greatest(above, found_number - 1);
    END IF;
    IF until IS NOT NULL THEN
        SELECT entry.sequence INTO found_number FROM transactions_transactionledger entry
         WHERE entry.wallet_id = own AND entry.created_at < until
         ORDER BY entry.created_at DESC, entry.sequence DESC LIMIT 1;
        IF NOT FOUND THEN RETURN; END IF;
        below := least(below, found_number + 1);
    END IF;
    IF falling THEN
        RETURN QUERY {_READ} ORDER BY entry.wallet_id DESC, entry.sequence DESC
         LIMIT most OFFSET skip;
    ELSE
        RETURN QUERY {_READ} ORDER BY entry.wallet_id, entry.sequence LIMIT most OFFSET skip;
    END IF;
END $$;
"""  # noqa: S608 - all of it is text of this file

NO_PAGE = """
DROP FUNCTION transactions_page(
    uuid, boolean, bigint, bigint, integer, integer, timestamptz, timestamptz, varchar, varchar,
    varchar, numeric, numeric
);
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0016_refunds_to_source"), ("wallet", "0007_records_in_order")]

    operations = [migrations.RunSQL([PAGE], [NO_PAGE])]
