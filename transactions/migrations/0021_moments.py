"""Reads the ledger once, while money moves on: each of its moments is one."""

from django.db import migrations

VALID = """
ALTER TABLE transactions_transaction VALIDATE CONSTRAINT transactions_transaction_has_a_moment;
ALTER TABLE transactions_transactionledger VALIDATE CONSTRAINT transactions_ledger_has_a_moment;
"""


class Migration(migrations.Migration):
    dependencies = [("transactions", "0020_checkpoint_rules")]

    operations = [migrations.RunSQL([VALID], migrations.RunSQL.noop)]
