"""For the admin's filter by status. Nearly all wallets are active and need no index to be found."""

from django.db import migrations

INDEX = """
CREATE INDEX wallet_wallet_not_active ON wallet_wallet (status, id) WHERE status <> 'active';
"""

NO_INDEX = """
DROP INDEX wallet_wallet_not_active;
"""


class Migration(migrations.Migration):
    dependencies = [("wallet", "0002_wallet_rules")]

    operations = [migrations.RunSQL(INDEX, NO_INDEX)]
