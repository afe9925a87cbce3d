"""The commands' exit codes: what is wrong can be told from what could not be looked at."""

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections

AWAY = [
    ("checkpoint_ledger",),
    ("export_ledger", "--output", "ledger.jsonl", "--no-progress"),
    ("migrate", "--verbosity", "0"),
    ("reconcile", "--gateway", "sandbox", "--date", "2026-11-22", "--no-progress"),
    ("seed_demo",),
    ("trial_balance",),
    ("verify_ledger", "--no-progress"),
]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env=os.environ | environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )


@pytest.mark.django_db(transaction=True, databases=["default", "owner"])
@pytest.mark.parametrize("command", AWAY, ids=lambda command: command[0])
def test_given_no_database_when_called_then_one_line_and_exit_code_2(
    command, monkeypatch, tmp_path
):
    for alias in ("default", "owner"):
        connections[alias].close()
        monkeypatch.setitem(connections[alias].settings_dict, "PORT", 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="refused") as end:
        call_command(*command)
    assert end.value.returncode == 2
    assert str(end.value).startswith("OperationalError: ")
    assert str(end.value).splitlines() == [str(end.value)]
    assert list(tmp_path.iterdir()) == []


def test_given_no_database_when_run_then_a_line_without_a_traceback():
    away = "postgresql://fintech_app:hunter22@127.0.0.1:1/fintech"
    done = run("verify_ledger", DATABASE_URL=away, DATABASE_OWNER_URL=away)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "hunter22" not in done.stderr


def test_given_a_setting_is_missing_when_run_then_a_line_and_exit_code_2():
    done = run("verify_ledger", SECRET_KEY="short")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "SECRET_KEY" in done.stderr
