"""Locking wallets, and reading what a decision about them needs, in one call of PostgreSQL.

Mechanism, not policy. The statements are planned once a session, and each sees what was committed
while the one before it waited: a single statement would read the owners before it had the locks.
"""

from django.db import migrations

# The whole of the oldest hour counts. At most 721 rows, an index range; `statement_timestamp()`
# stays the same within the statement, so it can bound the range. No search_path here: that would
# keep the function from being planned as a part of the query that calls it.
DEBITS = """
CREATE FUNCTION wallet_debits(of_wallet uuid)
RETURNS TABLE (
    daily_total numeric, daily_count bigint, monthly_total numeric, monthly_count bigint
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(sum(total) FILTER (WHERE hour >= begun.day), 0),
           coalesce(sum(count) FILTER (WHERE hour >= begun.day), 0)::bigint,
           coalesce(sum(total), 0),
           coalesce(sum(count), 0)::bigint
      FROM public.wallet_debitbucket,
           (SELECT date_trunc('hour', statement_timestamp() - interval '24 hours', 'UTC') AS day
           ) begun
     WHERE wallet_id = of_wallet
       AND hour >= date_trunc('hour', statement_timestamp() - interval '720 hours', 'UTC');
END;
"""

NO_DEBITS = "DROP FUNCTION wallet_debits(uuid);"

# Flat rows: to take composite ones apart again costs as much as all the rest.
_ROW = """
RETURNS TABLE (
    id uuid, user_id uuid, currency varchar, balance numeric, held numeric, entry_count bigint,
    last_entry_at timestamptz, status varchar, limit_override_id bigint, created_at timestamptz,
    updated_at timestamptz,
    owner_id uuid, email varchar, first_name varchar, last_name varchar, is_active boolean,
    is_staff boolean, kyc_status varchar,
    locked_at timestamptz,
    daily_total numeric, daily_count bigint, monthly_total numeric, monthly_count bigint
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
"""
_SPENT = """
    spent_daily numeric; count_daily bigint; spent_monthly numeric; count_monthly bigint;
"""
# In id order, so that opposite movements wait for each other instead of deadlocking.
_LOCK_AND_READ = """
    PERFORM FROM wallet_wallet w WHERE w.id = ANY (wanted) ORDER BY w.id FOR NO KEY UPDATE;
    IF spender IS NOT NULL THEN
        SELECT spent.* INTO spent_daily, count_daily, spent_monthly, count_monthly
          FROM wallet_wallet w, wallet_debits(w.id) spent WHERE w.user_id = spender;
    END IF;
    RETURN QUERY
    SELECT w.id, w.user_id, w.currency, w.balance, w.held, w.entry_count, w.last_entry_at,
           w.status, w.limit_override_id, w.created_at, w.updated_at,
           owner.id, owner.email, owner.first_name, owner.last_name, owner.is_active,
           owner.is_staff, owner.kyc_status,
           clock_timestamp(), spent_daily, count_daily, spent_monthly, count_monthly
      FROM wallet_wallet w
      JOIN users_user owner ON owner.id = w.user_id
     WHERE w.id = ANY (wanted)
     ORDER BY w.id;
"""

LOCK = f"""
CREATE FUNCTION wallet_lock(wanted uuid[], spender uuid DEFAULT NULL){_ROW}
DECLARE{_SPENT}BEGIN{_LOCK_AND_READ}END $$;

CREATE FUNCTION wallet_lock_parties(spender uuid, user_ids uuid[], emails varchar[]){_ROW}
DECLARE
    wanted uuid[];{_SPENT}BEGIN
    -- Two ranges of two indexes; an alternative in one condition would read the table.
    SELECT array_agg(w.id) INTO wanted
      FROM (SELECT u.id FROM users_user u WHERE u.id = ANY (user_ids || spender)
             UNION
            SELECT u.id FROM users_user u WHERE u.email = ANY (emails)) person
      JOIN wallet_wallet w ON w.user_id = person.id;
{_LOCK_AND_READ}END $$;
"""  # noqa: S608 - made of the parts above

NO_LOCK = """
DROP FUNCTION wallet_lock_parties(uuid, uuid[], varchar[]);
DROP FUNCTION wallet_lock(uuid[], uuid);
"""

RECORD = """
CREATE FUNCTION wallet_record_debits(of_wallet uuid, amounts numeric, debits integer) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO wallet_debitbucket AS bucket (wallet_id, hour, total, count)
    VALUES (of_wallet, date_trunc('hour', statement_timestamp(), 'UTC'), amounts, debits)
        ON CONFLICT (wallet_id, hour) DO UPDATE
       SET total = bucket.total + excluded.total, count = bucket.count + excluded.count;
END $$;
"""

NO_RECORD = "DROP FUNCTION wallet_record_debits(uuid, numeric, integer);"


class Migration(migrations.Migration):
    dependencies = [("wallet", "0005_record_rules"), ("users", "0005_find_session")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [
        migrations.RunSQL([DEBITS], [NO_DEBITS]),
        migrations.RunSQL([LOCK], [NO_LOCK]),
        migrations.RunSQL([RECORD], [NO_RECORD]),
    ]
