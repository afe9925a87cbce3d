"""`migrate`, always as the owner of the tables, who then grants the serving role its rights."""

from typing import Any

from django.core.management.base import CommandParser
from django.core.management.commands import migrate

from fintech_core import roles


class Command(migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database=roles.OWNER)

    def handle(self, *args: Any, **options: Any) -> None:
        if not options.get("check_unapplied"):
            roles.ensure_serving_role()
        super().handle(*args, **options)
        if not (options.get("check_unapplied") or options.get("plan")):
            roles.grant_serving_role()
