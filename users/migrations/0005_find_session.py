"""The look-up that every authenticated request makes, planned once a session of PostgreSQL."""

from django.db import migrations

# What a request asks of its session and of its caller; see `users.queries.find_session`. Flat, for
# to take a composite row apart costs more than to find it.
FIND = """
CREATE FUNCTION users_find_session(wanted uuid, holder uuid)
RETURNS TABLE (
    id uuid, user_id uuid, refresh_jti varchar, created_at timestamptz, expires_at timestamptz,
    revoked_at timestamptz, revoked_reason varchar,
    is_superuser boolean, person_id uuid, email varchar, phone_number varchar, first_name varchar,
    last_name varchar, is_active boolean, is_staff boolean, date_joined timestamptz,
    kyc_status varchar, kyc_rejection_reason varchar
)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.id, s.user_id, s.refresh_jti, s.created_at, s.expires_at, s.revoked_at,
           s.revoked_reason,
           u.is_superuser, u.id, u.email, u.phone_number, u.first_name, u.last_name, u.is_active,
           u.is_staff, u.date_joined, u.kyc_status, u.kyc_rejection_reason
      FROM users_session s JOIN users_user u ON u.id = s.user_id
     WHERE s.id = wanted AND s.user_id = holder;
END $$;
"""

NO_FIND = "DROP FUNCTION users_find_session(uuid, uuid);"


class Migration(migrations.Migration):
    dependencies = [("users", "0004_deactivations")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [migrations.RunSQL([FIND], [NO_FIND])]
