"""What the migrations made: functions and triggers, read from the SQL that the migrations run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import RunSQL

# `SET search_path = public, pg_temp`, as part of a function.
_SETTING = r"\bSET (\w+) = (\w+(?:, \w+)*)"
# A statement of one of five kinds; whatever else a migration runs is passed over.
_STATEMENT = re.compile(
    r"CREATE (?:OR REPLACE )?FUNCTION (?P<function>\w+)\((?P<header>(?:(?!CREATE ).)*?)"
    r"AS \$\$(?P<body>.*?)\$\$"
    r"|ALTER FUNCTION (?P<altered>\w+)\([^)]*\) (?P<setting>SET [^;]+)"
    r"|DROP FUNCTION (?P<no_function>\w+)"
    r"|CREATE (?:CONSTRAINT )?TRIGGER (?P<trigger>\w+)\s+(?P<when>(?:BEFORE|AFTER)\s[\w\s,]+?)"
    r"\s+ON (?P<table>\w+)(?P<how>.*?)EXECUTE FUNCTION (?P<calls>\w+)\("
    r"|DROP TRIGGER (?P<no_trigger>\w+)",
    re.DOTALL,
)
# PostgreSQL's bits of a trigger's type.
_BITS = {"BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}
_ROW = 1


@dataclass(frozen=True)
class Trigger:
    """Where it is, what it calls, when (`pg_trigger.tgtype`), and whether only on a condition."""

    table: str
    function: str
    type: int
    is_conditional: bool


@dataclass(frozen=True)
class Function:
    """What it does, where that is written as text, under which settings, as its owner or not, and
    whether it does nothing when an argument is NULL.

    Without its `search_path` a table of somebody's own could stand in for one of ours.
    """

    body: str
    settings: frozenset[str]  # as in `pg_proc.proconfig`
    is_its_owners: bool
    is_strict: bool


@dataclass(frozen=True)
class Declared:
    """By name, after the last migration."""

    functions: dict[str, Function]
    triggers: dict[str, Trigger]


@cache
def declared() -> Declared:
    found = Declared({}, {})
    for sql in _statements():
        for match in _STATEMENT.finditer(sql):
            _apply(match, found)
    return found


def _apply(match: re.Match[str], found: Declared) -> None:
    if name := match["function"]:
        found.functions[name] = _function(match["body"], match["header"])
    elif name := match["altered"]:
        was = found.functions[name]
        found.functions[name] = replace(was, settings=was.settings | _settings(match["setting"]))
    elif name := match["trigger"]:
        found.triggers[name] = _trigger(match)
    elif name := match["no_function"]:
        found.functions.pop(name, None)
    else:
        found.triggers.pop(match["no_trigger"], None)


def _function(body: str, header: str) -> Function:
    return Function(body, _settings(header), "SECURITY DEFINER" in header, " STRICT" in header)


def _settings(text: str) -> frozenset[str]:
    return frozenset(f"{name}={value}" for name, value in re.findall(_SETTING, text))


def _trigger(match: re.Match[str]) -> Trigger:
    words = re.findall(r"\w+", match["when"])
    bits = sum(bit for word, bit in _BITS.items() if word in words)
    row = _ROW if "FOR EACH ROW" in match["how"] else 0
    return Trigger(match["table"], match["calls"], bits + row, "WHEN (" in match["how"])


def _statements() -> Iterator[str]:
    """In the order in which the migrations run them."""
    loader = MigrationLoader(None)
    seen = set()
    for leaf in sorted(loader.graph.leaf_nodes()):
        for key in loader.graph.forwards_plan(leaf):
            if key not in seen:
                seen.add(key)
                for operation in loader.graph.nodes[key].operations:
                    if isinstance(operation, RunSQL):
                        yield from _texts(operation)


def _texts(operation: RunSQL) -> Iterator[str]:
    parts = [operation.sql] if isinstance(operation.sql, str) else operation.sql
    for part in parts:
        yield part if isinstance(part, str) else part[0]
