"""What posts, checks and seals looks each row up by its key, from the first transaction on.

Posting joins the wallets with what moves, and the triggers of 0026 have looks without a `LIMIT`.
PostgreSQL would rather read small tables as a whole, and a session keeps that plan while they grow:
in a young database each batch took longer than the one before. See wallet's `0009_lock_by_key`.
"""

from django.db import migrations

_FUNCTIONS = (
    "transactions_post(json, json, json, json)",
    "transactions_ledger_entry_fits()",
    "transactions_transaction_seal()",
    "transactions_wallet_row_agrees()",
    "transactions_transferbatchleg_fits()",
    "transactions_transferbatch_is_whole()",
)
_SETTINGS = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
BY_KEY = [f"ALTER FUNCTION {name} SET {how} = off" for name in _FUNCTIONS for how in _SETTINGS]
AS_PLANNED = [f"ALTER FUNCTION {name} RESET {how}" for name in _FUNCTIONS for how in _SETTINGS]


class Migration(migrations.Migration):
    dependencies = [("transactions", "0029_page_lines"), ("wallet", "0009_lock_by_key")]

    operations = [migrations.RunSQL(BY_KEY, AS_PLANNED)]
