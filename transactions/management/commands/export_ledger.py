"""`manage.py export_ledger`: the ledger as JSON lines, for an auditor who need not trust us."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm

from fintech_core.commands import OurCommand
from transactions import export
from transactions.checkpoints import CheckpointRefused
from wallet.models import Wallet

VERIFIER = "transactions/standalone/verify_export.py"


class Command(OurCommand):
    help = f"Write the ledger as JSON lines, which {VERIFIER} checks without this project."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--output", required=True, type=Path, help="The file to write.")
        parser.add_argument("--wallet", type=UUID, help="Only what concerns this wallet.")
        parser.add_argument(
            "--checkpoint",
            type=int,
            action="append",
            default=[],
            metavar="NUMBER",
            help="With --wallet: prove the wallet in this checkpoint, too, which somebody kept.",
        )
        parser.add_argument("--no-progress", action="store_true", help="Show no progress bar.")

    def handle(self, *args: Any, **options: Any) -> None:
        wallet_id, output = options["wallet"], options["output"]
        proved_in = options["checkpoint"]
        if proved_in and not wallet_id:
            raise CommandError("--checkpoint goes with --wallet: the whole ledger has every leaf.")
        if not output.name:
            raise CommandError(f"--output: {output} is no name of a file.")
        if output.exists() and not (output.is_file() or output.is_dir()):
            raise CommandError(f"--output: {output} is no file, and would be replaced by one.")
        progress = tqdm(
            export.lines(wallet_id, proved_in),
            total=None if wallet_id else export.line_count(),
            unit="line",
            unit_scale=True,
            disable=True if options["no_progress"] else None,  # None: only on a terminal
        )
        try:
            with _whole_file(output) as file:
                file.writelines(f"{line}\n" for line in progress)
        except Wallet.DoesNotExist as exc:
            raise CommandError("There is no such wallet.") from exc
        except export.NotInCheckpoint as exc:
            raise CommandError(str(exc)) from exc
        except CheckpointRefused as exc:
            raise CommandError(f"{exc} Run verify_ledger.") from exc
        except OSError as exc:
            raise CommandError(f"{output} cannot be written: {exc.strerror}.") from exc
        self.stdout.write(self.style.SUCCESS(f"{output}: check it with python {VERIFIER}"))


@contextmanager
def _whole_file(output: Path) -> Iterator[TextIO]:
    """The file appears when it is complete. Nobody but its owner may read it: it names people."""
    unfinished = output.with_name(f"{output.name}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            yield file
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
