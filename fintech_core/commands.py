"""What every command of ours does when it cannot run."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fintech_core.logs import scrub

COULD_NOT_RUN = 2


class OurCommand(BaseCommand):
    """Exit code 1 is an answer, such as books that are not sound. Without an answer it is 2.

    An alarm has to tell the two apart, and Python ends with 1 whenever an exception is left over.
    `--traceback` shows where one came from, and then ends with 1, as Python does.
    """

    requires_system_checks = ()  # one that fails would end it with 1

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except CommandError:
            raise
        except Exception as exc:
            told = " ".join(scrub(f"{type(exc).__name__}: {exc}").split())
            raise CommandError(told, returncode=COULD_NOT_RUN) from exc
