"""Who locks a wallet learns whether anybody listens to what happens to it.

Nearly nobody does, and to write down what nobody hears cost a transfer a tenth of its time.
"""

from importlib import import_module

from django.db import migrations

_LOCKING = import_module("wallet.migrations.0006_lock")

_HEARD = """
           EXISTS (SELECT FROM fintech_core_webhookendpoint endpoint
                    WHERE endpoint.user_id = w.user_id AND endpoint.status = 'active')
           OR EXISTS (SELECT FROM fintech_core_webhookendpoint endpoint
                       WHERE endpoint.scope = 'everybody' AND endpoint.status = 'active'),"""
LOCK = _LOCKING.LOCK.replace(
    "locked_at timestamptz,", "locked_at timestamptz, is_heard boolean,"
).replace("clock_timestamp(), spent_daily", f"clock_timestamp(),{_HEARD} spent_daily")


class Migration(migrations.Migration):
    dependencies = [
        ("wallet", "0007_records_in_order"),
        ("fintech_core", "0006_webhook_rules"),
    ]

    operations = [
        # Its rows get a column, so it cannot be replaced.
        migrations.RunSQL([_LOCKING.NO_LOCK + LOCK], [_LOCKING.NO_LOCK + _LOCKING.LOCK])
    ]
