"""Deactivation ends the admin's sessions for good: letting somebody in again revives none."""

from django.db import migrations, models

# On every update, so that no stale or hostile value can be written either.
COUNT = """
CREATE FUNCTION users_user_count_deactivation() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.deactivation_count :=
        OLD.deactivation_count + (OLD.is_active AND NOT NEW.is_active)::integer;
    RETURN NEW;
END $$;

CREATE TRIGGER users_user_count_deactivation
BEFORE UPDATE ON users_user
FOR EACH ROW EXECUTE FUNCTION users_user_count_deactivation();
"""

DO_NOT_COUNT = """
DROP TRIGGER users_user_count_deactivation ON users_user;
DROP FUNCTION users_user_count_deactivation();
"""


class Migration(migrations.Migration):
    dependencies = [("users", "0003_admin_indexes")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="deactivation_count",
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.RunSQL(COUNT, DO_NOT_COUNT),
    ]
