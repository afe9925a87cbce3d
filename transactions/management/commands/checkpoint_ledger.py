"""`manage.py checkpoint_ledger`: sign where the ledger stands, now."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from fintech_core.commands import OurCommand
from transactions import checkpoints


class Command(OurCommand):
    help = "Sign a checkpoint of the ledger, if anything was posted since the last one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--rebuild-tree",
            action="store_true",
            help="After the stored tree was emptied: compute it from the leaves, and go on.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = checkpoints.take(rebuild_tree=options["rebuild_tree"])
        except (checkpoints.CheckpointRefused, checkpoints.CheckpointInProgress) as exc:
            raise CommandError(str(exc)) from exc
        if made is None:
            self.stdout.write("Nothing was posted since the last checkpoint.")
            return
        self.stdout.write(
            self.style.SUCCESS(
                f"Checkpoint {made.number}: {made.entry_count} entries of {made.wallet_count} "
                f"wallets, root {bytes(made.root).hex()}"
            )
        )
