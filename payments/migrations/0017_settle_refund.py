"""Staff may put right what became of refunds that their gateway lost."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0016_asked_again")]

    operations = [
        migrations.AlterModelOptions(
            name="depositrefund",
            options={
                "permissions": [
                    ("refund_deposit", "Can send deposits back to their source"),
                    ("settle_refund", "Can put right refunds that the gateway lost"),
                ]
            },
        ),
    ]
