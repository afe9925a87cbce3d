"""For the admin's filters. What is common is found among the newest without an index; for what is
rare the list would be read to its end. A transfer or a deposit, when posted, pays for neither."""

from django.db import migrations

INDEXES = """
CREATE INDEX transactions_transaction_rare_type ON transactions_transaction (type, id)
    WHERE type NOT IN ('transfer', 'deposit');
CREATE INDEX transactions_transaction_open ON transactions_transaction (status, id)
    WHERE status <> 'completed';
"""

NO_INDEXES = """
DROP INDEX transactions_transaction_open;
DROP INDEX transactions_transaction_rare_type;
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0002_ledger_rules")]

    operations = [migrations.RunSQL(INDEXES, NO_INDEXES)]
