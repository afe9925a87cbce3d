"""What the tests of the proof share: a checkpoint, an export, the verifier, and a superuser."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management import call_command

from transactions import checkpoints
from transactions.models import LedgerCheckpoint, Transaction
from transactions.services import TransactionService

VERIFIER = Path(settings.BASE_DIR) / "transactions" / "standalone" / "verify_export.py"


def checkpoint() -> LedgerCheckpoint:
    """One that something new goes into."""
    made = checkpoints.take()
    assert made is not None
    return made


def outside(amount: str) -> Transaction:
    """A transaction that touches no wallet."""
    return TransactionService.suspend_money(
        amount=Decimal(amount), currency="USD", effect_key=f"test:{uuid4()}"
    )


def tamper(owner: Any, *statements: str) -> None:
    """As a superuser with every trigger off: what the database can no longer refuse."""
    owner.execute("SET session_replication_role = replica")
    try:
        for statement in statements:
            owner.execute(statement)
    finally:
        owner.execute("SET session_replication_role = origin")


def export(folder: Path, *arguments: str) -> Path:
    path = folder / "ledger.jsonl"
    call_command("export_ledger", "--no-progress", "--output", str(path), *arguments)
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def verifier(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Alone: without this project, its packages or its environment."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(VERIFIER), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONIOENCODING": "utf-8"},
        cwd="/",
    )
