"""Posting looks up each wallet that moves by its key: see wallet's `0009_lock_by_key`."""

from django.db import migrations

_POST = "ALTER FUNCTION transactions_post(json, json, json, json)"
_SETTINGS = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
BY_KEY = [f"{_POST} SET {how} = off" for how in _SETTINGS]
AS_PLANNED = [f"{_POST} RESET {how}" for how in _SETTINGS]


class Migration(migrations.Migration):
    dependencies = [("transactions", "0029_page_lines"), ("wallet", "0009_lock_by_key")]

    operations = [migrations.RunSQL(BY_KEY, AS_PLANNED)]
