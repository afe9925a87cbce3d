"""How PostgreSQL did what it was asked, statement by statement, and what is wrong with that.

PostgreSQL tells of each statement that it ran, those of triggers and functions included, how it ran
it and how many rows it touched (the `auto_explain` module, which comes with it). So what is judged
is neither a guess nor a copy of the statement, but the very execution.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection

# From so many rows on, reading a whole table is a fault. Smaller ones do not grow with use.
BIG_TABLE = 4_000
# Pages that looking for a row may cost: down an index, and the row itself. Whoever needs more reads
# the whole index.
_PAGES_FOR_A_ROW = 6
_PAGES_FOR_NONE = 60

_SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "notice",
    # A few thousand rows stand for millions: looking one up must not seem dearer than reading all.
    "random_page_cost": "1.1",
}
_REMOVED = ("Rows Removed by Filter", "Rows Removed by Index Recheck")


@dataclass(frozen=True)
class Plan:
    """One statement and how it was run, as `EXPLAIN (ANALYZE, FORMAT JSON)` says it."""

    statement: str
    root: dict[str, Any]

    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.get("Plans", [])

    def rows(self, big: set[str]) -> int:
        """Rows of these tables that were read, those included that a filter then removed."""
        return sum(_rows_of(node) for node in self.nodes() if node.get("Relation Name") in big)

    def faults(self, *, big: set[str], most: int) -> list[str]:
        """What is wrong with it; `big` are the tables that must not be read as a whole."""
        rows = self.rows(big)
        found = [
            f"reads all of {node['Relation Name']}"
            for node in self.nodes()
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in big
        ]
        found += [
            f"sorts {_rows_of(child)} rows"
            for node in self.nodes()
            if node["Node Type"] == "Sort"
            for child in node["Plans"]
            if _rows_of(child) > most
        ]
        if rows > most:
            found.append(f"reads {rows} rows")
        found += [
            f"reads {_pages_of(node)} pages of {node['Index Name']} for {_looks_of(node)} rows"
            for node in self.nodes()
            if "Index Name" in node
            and _pages_of(node) > _PAGES_FOR_NONE + _PAGES_FOR_A_ROW * _looks_of(node)
        ]
        return found


def _rows_of(node: dict[str, Any]) -> int:
    each = node["Actual Rows"] + sum(node.get(removed, 0) for removed in _REMOVED)
    return round(each * node["Actual Loops"])


def _looks_of(node: dict[str, Any]) -> int:
    """How often a row was looked for, found or not."""
    return max(_rows_of(node), round(node["Actual Loops"]))


def _pages_of(node: dict[str, Any]) -> int:
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])


class _Notices:
    """What the connection appends PostgreSQL's notices to; keeps the plans among them."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def append(self, notice: str) -> None:
        _, is_plan, told = notice.partition("plan:\n")
        if is_plan:
            said = json.loads(told)
            self.plans.append(Plan(said["Query Text"], said["Plan"]))


@contextmanager
def explaining(owner: Any) -> Iterator[None]:
    """Have every statement of new connections to this database explained; `owner` may set that."""
    _each_setting(owner, lambda name: f"SET {name} = '{_SETTINGS[name]}'")
    connection.close()
    try:
        yield
    finally:
        _each_setting(owner, lambda name: f"RESET {name}")
        connection.close()


def _each_setting(owner: Any, change: Callable[[str], str]) -> None:
    database = connection.settings_dict["NAME"]
    for name in _SETTINGS:
        owner.execute(f'ALTER DATABASE "{database}" {change(name)}')


@contextmanager
def counted_as_empty(owner: Any, *tables: str) -> Iterator[None]:
    """What PostgreSQL believes of tables that were counted before what fills them was committed.

    No rows on many pages: each index then seems as good as any other, and so does the whole table.
    """
    owner.execute(
        "UPDATE pg_class SET reltuples = 0, relpages = pg_relation_size(oid) / 8192"
        " WHERE relname = ANY (%(tables)s);"
        "DELETE FROM pg_statistic USING pg_class counted"
        " WHERE counted.oid = starelid AND relname = ANY (%(tables)s)",
        {"tables": list(tables)},
    )
    try:
        yield
    finally:
        owner.execute(f"ANALYZE {', '.join(tables)}")


def plans_of(run: Callable[[], Any]) -> list[Plan]:
    """How each statement was run that `run` caused."""
    notices = _Notices()
    connection.ensure_connection()
    connection.connection.notices = notices
    run()
    connection.connection.notices = []
    return notices.plans


def faults_of(plans: list[Plan], *, most: int) -> str:
    """What is wrong with each of them, for a person to read; empty if nothing is.

    `most` rows may be read or sorted by one statement.
    """
    big = _big_tables()
    judged = ((plan, plan.faults(big=big, most=most)) for plan in plans)
    return "\n\n".join(
        f"{', '.join(faults)}:\n{plan.statement.strip()}\n{_outline(plan.root)}"
        for plan, faults in judged
        if faults
    )


def _big_tables() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= %s", [BIG_TABLE]
        )
        return {name for (name,) in cursor.fetchall()}


def _outline(node: dict[str, Any], depth: int = 0) -> str:
    place = node.get("Index Name") or node.get("Relation Name") or ""
    lines = [f"{'  ' * depth}{node['Node Type']} {place}: {_rows_of(node)} rows"]
    return "\n".join([*lines, *(_outline(child, depth + 1) for child in node.get("Plans", []))])
