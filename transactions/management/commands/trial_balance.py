"""`manage.py trial_balance`: the books at a glance; exit 1 if they do not add up to zero."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from fintech_core.commands import OurCommand
from fintech_core.database import give_time
from fintech_core.moments import parse_moment
from fintech_core.money import format_amount
from transactions import trial_balance
from transactions.trial_balance import AccountBalance, TrialBalance

WIDTHS = (18, 20, 20)


class Command(OurCommand):
    help = "Show every system account and the sum of wallets; exit 1 if they do not add up to zero."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--at", metavar="RFC3339", help="As of this moment, inclusive; default: now."
        )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        give_time()  # nobody waits for a web page here
        try:
            at = None if options["at"] is None else parse_moment(options["at"])
            books = trial_balance.trial_balance(at)
        except ValueError as refusal:
            raise CommandError(f"--at: {refusal}", returncode=2) from refusal
        self._show(books)
        if not books.is_zero:
            raise CommandError("The books do not add up to zero.", returncode=1)
        self.stdout.write(self.style.SUCCESS("The books add up to zero."))

    def _show(self, books: TrialBalance) -> None:
        self.stdout.write(f"Trial balance as of {books.at.isoformat().replace('+00:00', 'Z')}")
        for currency in books.currencies:
            self.stdout.write("")
            self._line(currency, "debit", "credit")
            for row in books.of(currency):
                self._line(row.account.value, *_sides(row))
            self._line("difference", "", format_amount(books.difference(currency)))

    def _line(self, name: str, debit: str, credit: str) -> None:
        first, second, third = WIDTHS
        self.stdout.write(f"{name:<{first}}{debit:>{second}}{credit:>{third}}")


def _sides(row: AccountBalance) -> tuple[str, str]:
    """On one side or the other, as accountants write it."""
    if row.balance < 0:
        return format_amount(row.debit), ""
    return "", format_amount(row.credit)
