"""A page looks up each counterparty, and its reader once, not payer and payee of each entry.

Which side is the reader's, the entry says: a debit is of the payer's wallet, a credit of the
payee's (`transactions_ledger_wallet_is_the_partys` sees to it). It writes the same to the byte.
"""

from importlib import import_module

from django.db import migrations

_LINES = import_module("transactions.migrations.0029_page_lines")

# The name is `User.display_name`.
_PARTY = """format(
    '{{"id":"%s","display_name":%s}}', {0}.id,
    to_json(btrim(concat({0}.first_name, ' ', nullif(left({0}.last_name, 1), '') || '.')))
)"""
_COUNTERPARTY = "coalesce(counterparty.written, 'null')"  # an account of ours is no party

# As `TransactionSerializer` and `TransactionHistorySerializer` describe them. What people wrote
# goes through `to_json`; nothing else can hold what JSON would escape.
_TRANSACTION = f"""format(
    '{{"id":"%s","reference_id":"%s","type":"%s","status":"%s","amount":"%s","currency":"%s",'
    '"fee":"%s","from_user":%s,"to_user":%s,"description":%s,"metadata":%s,"parent_id":%s,'
    '"created_at":"%s","completed_at":%s}}',
    moved.id, moved.reference_id, moved.type, moved.status, entry.amount, entry.currency, moved.fee,
    CASE entry.entry_type WHEN 'debit' THEN reader ELSE {_COUNTERPARTY} END,
    CASE entry.entry_type WHEN 'credit' THEN reader ELSE {_COUNTERPARTY} END,
    to_json(moved.description), {_LINES._METADATA},
    coalesce('"' || moved.parent_id || '"', 'null'), {_LINES._MOMENT.format("moved.created_at")},
    coalesce('"' || {_LINES._MOMENT.format("moved.completed_at")} || '"', 'null')
)"""
_LINE = f"""format(
    '{{"transaction_id":"%s","type":"%s","direction":"%s","amount":"%s%s","balance_after":"%s",'
    '"counterparty":%s,"description":%s,"created_at":"%s"}}',
    moved.id, moved.type, CASE entry.entry_type WHEN 'credit' THEN 'in' ELSE 'out' END,
    CASE entry.entry_type WHEN 'debit' THEN '-' END, entry.amount, entry.balance_after,
    {_COUNTERPARTY}, to_json(moved.description), {_LINES._MOMENT.format("entry.created_at")}
)"""

# Both directions say their order outright: a plan for either could not walk along the index. Where
# tables are small another plan may look cheaper; it would be kept for as long as the session lives.
_READ = f"""
        SELECT entry.sequence, CASE shape WHEN 'transaction' THEN {_TRANSACTION}
                                          WHEN 'line' THEN {_LINE}
                                          WHEN 'entry' THEN {_LINES._ENTRY} END
          FROM transactions_transactionledger entry
          JOIN transactions_transaction moved ON moved.id = entry.transaction_id
          LEFT JOIN LATERAL (
              SELECT {_PARTY.format("person")} AS written FROM users_user person
               WHERE person.id = CASE WHEN shape = 'entry' THEN NULL
                                      WHEN entry.entry_type = 'credit' THEN moved.from_user_id
                                      ELSE moved.to_user_id END
          ) counterparty ON true
         WHERE entry.wallet_id = own
           AND entry.sequence > above AND entry.sequence < below
           AND (kind IS NULL OR moved.type = kind)
           AND (state IS NULL OR moved.status = state)
           AND (side IS NULL OR entry.entry_type = side)
           AND (amount_min IS NULL OR entry.amount >= amount_min)
           AND (amount_max IS NULL OR entry.amount <= amount_max)
"""  # noqa: S608 - all of it is text of these files

PAGE = f"""
CREATE OR REPLACE FUNCTION transactions_page_lines(
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
    reader text;
    found_number bigint;
BEGIN
    SELECT wallet.id, {_PARTY.format("person")} INTO own, reader
      FROM wallet_wallet wallet JOIN users_user person ON person.id = wallet.user_id
     WHERE wallet.user_id = of_user;
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
BOTH_PARTIES = _LINES.PAGE.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


class Migration(migrations.Migration):
    dependencies = [("transactions", "0031_differences")]

    operations = [migrations.RunSQL([PAGE], [BOTH_PARTIES])]
