"""Nothing more is written for an endpoint that hears of everybody once its owner is not active
staff any more."""

from importlib import import_module

from django.db import migrations

_RULES = import_module("fintech_core.migrations.0006_webhook_rules")

_EVERYBODY = "WHERE scope = 'everybody' AND status = 'active'"
_TO_STAFF = """
               AND EXISTS (SELECT FROM users_user staff
                            WHERE staff.id = fintech_core_webhookendpoint.user_id
                              AND staff.is_staff AND staff.is_active)"""
_ANYBODY = _RULES.OUTBOX.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
_STAFF = _ANYBODY.replace(_EVERYBODY, _EVERYBODY + _TO_STAFF)


class Migration(migrations.Migration):
    dependencies = [("fintech_core", "0006_webhook_rules"), ("users", "0001_initial")]

    # As lists: Django would split a plain text at semicolons, inside function bodies, too.
    operations = [migrations.RunSQL([_STAFF], [_ANYBODY])]
