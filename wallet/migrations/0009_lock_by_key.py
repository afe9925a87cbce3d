"""Who locks wallets looks each up by its key, however few there are.

With one or two thousand people PostgreSQL thinks it cheaper to read the whole table and hash it,
for it does not know that two are asked for; and a session keeps the plan. That cost a transfer more
than a fifth of PostgreSQL's work. The settings hold within the functions alone.
"""

from django.db import migrations

_FUNCTIONS = ("wallet_lock(uuid[], uuid)", "wallet_lock_parties(uuid, uuid[], varchar[])")
_SETTINGS = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
BY_KEY = [f"ALTER FUNCTION {name} SET {how} = off" for name in _FUNCTIONS for how in _SETTINGS]
AS_PLANNED = [f"ALTER FUNCTION {name} RESET {how}" for name in _FUNCTIONS for how in _SETTINGS]


class Migration(migrations.Migration):
    dependencies = [("wallet", "0008_heard")]

    operations = [migrations.RunSQL(BY_KEY, AS_PLANNED)]
