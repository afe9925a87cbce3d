"""`manage.py verify_ledger`: prove the books, or name each breach and exit 1."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm

from fintech_core.commands import OurCommand
from transactions import verification


class Command(OurCommand):
    help = "Check every invariant of the ledger over everything; exit 1 naming each breach."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-progress", action="store_true", help="Show no progress bar.")

    def handle(self, *args: Any, **options: Any) -> None:
        rows, breaches = 0, 0
        with tqdm(
            total=verification.rows_to_check(),
            unit="row",
            unit_scale=True,
            disable=True if options["no_progress"] else None,  # None: only on a terminal
        ) as progress:
            for step in verification.verify():
                rows += step.rows
                progress.update(step.rows)
                for breach in step.breaches:
                    breaches += 1
                    with progress.external_write_mode():
                        self.stderr.write(str(breach))
        if breaches:
            raise CommandError(f"{breaches} breaches found in {rows} rows.", returncode=1)
        self.stdout.write(self.style.SUCCESS(f"The ledger is sound: {rows} rows checked."))
