"""The staff log is searched by the id of what was changed; Django has no index for that."""

from django.db import migrations

SEARCHED = "CREATE INDEX fintech_core_staff_log_object ON django_admin_log (object_id, id)"
NOT_SEARCHED = "DROP INDEX fintech_core_staff_log_object"


class Migration(migrations.Migration):
    dependencies = [
        ("fintech_core", "0003_claim"),
        ("admin", "0003_logentry_add_action_flag_choices"),
    ]

    operations = [migrations.RunSQL([SEARCHED], [NOT_SEARCHED])]
