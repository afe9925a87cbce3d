"""`manage.py reconcile`: compare a gateway's report for a day with our books."""

from argparse import ArgumentTypeError
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm

from fintech_core.commands import OurCommand
from fintech_core.exceptions import DomainError
from fintech_core.moments import ANY_YEAR, parse_day
from payments import reconciliation
from payments.models import ReconciliationBreak, ReconciliationRun

SHOWN_MAX = 100


def _day(text: str) -> date:
    try:
        return parse_day(text, ANY_YEAR)
    except ValueError as refusal:
        raise ArgumentTypeError(str(refusal)) from refusal


class Command(OurCommand):
    help = (
        "Compare a gateway's report for a day (UTC) with our books. Exit 0: all agree; 1: breaks"
        " were found; 2: nothing was compared."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--gateway", required=True, help="Its name, such as sandbox.")
        parser.add_argument("--date", required=True, type=_day, help="YYYY-MM-DD; it must be over.")
        parser.add_argument("--csv", type=Path, help="A report to read; else the gateway is asked.")
        parser.add_argument("--no-progress", action="store_true", help="Show no progress bar.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run = self._run(**options)
        except (DomainError, reconciliation.CouldNotRun, OSError) as reason:
            raise CommandError(str(reason), returncode=2) from reason
        summary = f"{run}: {run.lines} lines, {run.matched} matched, {run.breaks} breaks."
        if run.breaks:
            self._show_breaks(run)
            raise CommandError(summary, returncode=1)
        self.stdout.write(self.style.SUCCESS(summary))

    def _run(self, **options: Any) -> ReconciliationRun:
        hidden = True if options["no_progress"] else None  # None: only on a terminal
        with ExitStack() as opened:
            path = options["csv"]
            report = opened.enter_context(path.open("rb")) if path else None
            bar = opened.enter_context(tqdm(unit="line", unit_scale=True, disable=hidden))
            return reconciliation.reconcile(
                gateway=options["gateway"],
                day=options["date"],
                csv_file=report,
                progress=bar.update,
            )

    def _show_breaks(self, run: ReconciliationRun) -> None:
        """The first of those that the run saw; the admin has them all."""
        seen = ReconciliationBreak.objects.filter(
            gateway__in=["", run.gateway], status=ReconciliationBreak.Status.OPEN, last_run=run
        )
        for broken in seen.order_by("pk")[:SHOWN_MAX]:
            self.stderr.write(str(broken))
