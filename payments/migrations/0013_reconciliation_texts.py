"""What a run's `breaks` counts, told as it is; nothing changes in the database."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("payments", "0012_asked_once")]

    operations = [
        migrations.AlterField(
            model_name="reconciliationrun",
            name="breaks",
            field=models.PositiveIntegerField(
                default=0, help_text="Open ones of the day, and new ones."
            ),
        ),
    ]
