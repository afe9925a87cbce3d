"""Payouts by the day on which they were settled: reconciliation reads them so."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0010_reconciliation"),
        ("transactions", "0024_frozen_to_the_letter"),
        ("wallet", "0007_records_in_order"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddIndex(
            model_name="payout",
            index=models.Index(
                fields=["gateway", "completed_at"], name="payments_payout_completed"
            ),
        ),
    ]
