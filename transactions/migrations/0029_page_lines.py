"""A page of one person's ledger entries, each as the JSON text that the answer shows.

PostgreSQL writes a page in less time than Python takes to receive its columns. `transactions_page`
stays for processes of the release before.
"""

from django.db import migrations

# As Django REST framework writes moments: six decimals of a second, or none.
_MOMENT = """replace(
    to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000Z', 'Z')"""
# The name is `User.display_name`.
_PARTY = """CASE WHEN {0}.id IS NULL THEN 'null' ELSE format(
    '{{"id":"%s","display_name":%s}}', {0}.id,
    to_json(btrim(concat({0}.first_name, ' ', nullif(left({0}.last_name, 1), '') || '.')))
) END"""
# What `jsonb` says as text has blanks, which the rest of the answer has not.
_METADATA = """CASE WHEN moved.metadata = '{}' OR jsonb_typeof(moved.metadata) <> 'object'
    THEN moved.metadata::text
    ELSE (SELECT format('{%s}', string_agg(format('%s:%s', to_json(key), value), ','))
            FROM jsonb_each(moved.metadata))
END"""

# As `TransactionSerializer`, `TransactionHistorySerializer` and `LedgerEntrySerializer` describe
# them. What people wrote goes through `to_json`; nothing else can hold what JSON would escape.
_TRANSACTION = f"""format(
    '{{"id":"%s","reference_id":"%s","type":"%s","status":"%s","amount":"%s","currency":"%s",'
    '"fee":"%s","from_user":%s,"to_user":%s,"description":%s,"metadata":%s,"parent_id":%s,'
    '"created_at":"%s","completed_at":%s}}',
    moved.id, moved.reference_id, moved.type, moved.status, entry.amount, entry.currency,
    moved.fee, {_PARTY.format("payer")}, {_PARTY.format("payee")}, to_json(moved.description),
    {_METADATA}, coalesce('"' || moved.parent_id || '"', 'null'),
    {_MOMENT.format("moved.created_at")},
    coalesce('"' || {_MOMENT.format("moved.completed_at")} || '"', 'null')
)"""
_LINE = f"""format(
    '{{"transaction_id":"%s","type":"%s","direction":"%s","amount":"%s%s","balance_after":"%s",'
    '"counterparty":%s,"description":%s,"created_at":"%s"}}',
    moved.id, moved.type, CASE entry.entry_type WHEN 'credit' THEN 'in' ELSE 'out' END,
    CASE entry.entry_type WHEN 'debit' THEN '-' END, entry.amount, entry.balance_after,
    CASE entry.entry_type WHEN 'credit' THEN {_PARTY.format("payer")}
                          ELSE {_PARTY.format("payee")} END,
    to_json(moved.description), {_MOMENT.format("entry.created_at")}
)"""
_ENTRY = f"""format(
    '{{"id":"%s","transaction_id":"%s","account":"%s","entry_type":"%s","amount":"%s",'
    '"currency":"%s","balance_after":"%s","created_at":"%s"}}',
    entry.id, entry.transaction_id, entry.account, entry.entry_type, entry.amount,
    entry.currency, entry.balance_after, {_MOMENT.format("entry.created_at")}
)"""

# Both directions say their order outright: a plan for either could not walk along the index. Where
# tables are small another plan may look cheaper; it would be kept for as long as the session lives.
_READ = f"""
        SELECT entry.sequence, CASE shape WHEN 'transaction' THEN {_TRANSACTION}
                                          WHEN 'line' THEN {_LINE}
                                          WHEN 'entry' THEN {_ENTRY} END
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
"""  # noqa: S608 - all of it is text of this file

PAGE = f"""
CREATE FUNCTION transactions_page_lines(
    shape text, of_user uuid, falling boolean, above bigint, below bigint, skip integer,
    most integer, since timestamptz, until timestamptz, kind varchar, state varchar, side varchar,
    amount_min numeric, amount_max numeric
)
RETURNS TABLE (sequence bigint, written text)
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
"""  # noqa: S608 - likewise

NO_PAGE = """
DROP FUNCTION transactions_page_lines(
    text, uuid, boolean, bigint, bigint, integer, integer, timestamptz, timestamptz, varchar,
    varchar, varchar, numeric, numeric
);
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0028_post_from_text")]

    operations = [migrations.RunSQL([PAGE], [NO_PAGE])]
