"""`migrate`, always as the owner of the tables, who then grants the serving role its rights.

Backwards it drops no table that has rows: that is looked at once, before the first step.
"""

from typing import Any

from django.apps import apps as installed
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import connections
from django.db.migrations import CreateModel, Migration
from django.db.models.signals import pre_migrate
from psycopg2 import sql

from fintech_core import roles
from fintech_core.commands import OurCommand


class Command(OurCommand, migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database=roles.OWNER)

    def handle(self, *args: Any, **options: Any) -> None:
        if not options.get("check_unapplied"):
            roles.ensure_serving_role()
        # Django tells the plan to each app before the first step. One of them is enough.
        told = installed.get_app_config("fintech_core")
        if not options["fake"]:  # which drops nothing
            pre_migrate.connect(_refuse_to_drop_rows, sender=told)
        try:
            super().handle(*args, **options)
        finally:
            pre_migrate.disconnect(_refuse_to_drop_rows, sender=told)
        if not (options.get("check_unapplied") or options.get("plan")):
            roles.grant_serving_role()


def _refuse_to_drop_rows(
    *, plan: list[tuple[Migration, bool]], using: str, apps: Any, **_: Any
) -> None:
    """Triggers guard orders and history row by row, and none of them hears of DROP TABLE."""
    dropped = [
        apps.get_model(migration.app_label, operation.name)._meta.db_table
        for migration, backwards in plan
        if backwards
        for operation in migration.operations
        if isinstance(operation, CreateModel)
    ]
    with connections[using].cursor() as cursor:
        full = [table for table in dropped if _has_rows(cursor, table)]
    if full:
        raise CommandError(f"Nothing was changed. It would throw away: {', '.join(full)}.")


def _has_rows(cursor: Any, table: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier("public", table))
    cursor.execute(query)
    return bool(cursor.fetchone()[0])
