"""What the admin needs: a permission, and an index for its filter by status."""

from django.db import migrations

INDEX = """
CREATE INDEX payments_intent_by_status ON payments_paymentintent (status, id);
"""

NO_INDEX = """
DROP INDEX payments_intent_by_status;
"""


class Migration(migrations.Migration):
    dependencies = [("payments", "0002_payment_rules")]

    operations = [
        migrations.AlterModelOptions(
            name="webhookevent",
            options={"permissions": [("process_again", "Can have events processed again")]},
        ),
        migrations.RunSQL(INDEX, NO_INDEX),
    ]
