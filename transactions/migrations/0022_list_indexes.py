"""For the admin's filters of batches and adjustments: what is rare would be sought to the end."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("transactions", "0021_moments")]

    operations = [
        migrations.AlterModelOptions(
            name="transferbatch", options={"verbose_name_plural": "transfer batches"}
        ),
        migrations.AddIndex(
            model_name="transferbatch",
            index=models.Index(name="transactions_batch_by_status", fields=["status", "id"]),
        ),
        migrations.RemoveIndex(model_name="adjustment", name="transactions_adjustment_open"),
        migrations.AddIndex(
            model_name="adjustment",
            index=models.Index(name="transactions_adjustment_status", fields=["status", "id"]),
        ),
    ]
