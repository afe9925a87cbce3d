"""For the list of events of one gateway, a retired one among them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("payments", "0003_admin")]

    operations = [
        migrations.AddIndex(
            model_name="webhookevent",
            index=models.Index(name="payments_event_by_gateway", fields=["gateway", "-id"]),
        ),
    ]
