"""For the admin's filters. Staff and the deactivated are few, so their indexes are small; without
them the list would be read to its end to find the few."""

from django.db import migrations

INDEXES = """
CREATE INDEX users_user_staff ON users_user (id) WHERE is_staff;
CREATE INDEX users_user_inactive ON users_user (id) WHERE NOT is_active;
"""

NO_INDEXES = """
DROP INDEX users_user_inactive;
DROP INDEX users_user_staff;
"""


class Migration(migrations.Migration):
    dependencies = [("users", "0002_user_rules")]

    operations = [migrations.RunSQL(INDEXES, NO_INDEXES)]
