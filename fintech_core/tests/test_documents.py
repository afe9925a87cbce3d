"""The documents name tests, files, rules and columns. Those exist, or these tests fail."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection

ROOT = Path(settings.BASE_DIR)
SKIPPED = {"staticfiles", "node_modules", "logs", "media"}
FAILURE_MODES = ROOT / "docs/failure-modes.md"
FAILURES = 70
OURS = ("users", "wallet", "transactions", "payments", "fintech_core")
DIAGRAMS = ("flowchart", "sequenceDiagram", "erDiagram", "stateDiagram-v2", "graph")

_FENCED = re.compile(r"^(```+|~~~+)(\w*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_TEST = re.compile(r"([\w/]+\.py)::((?:\w+::)?test_\w+)")
_RULE = re.compile(rf"`((?:{'|'.join(OURS)})_\w+)`")
_ROW = re.compile(r"^\|\s*(\d+)\s*\|(.*)\|\s*$", re.MULTILINE)
_ENTITY = re.compile(r"^\s*(\w+) \{\n(.*?)^\s*\}", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    return sorted(
        path
        for path in ROOT.rglob("*.md")
        if not any(
            part in SKIPPED or part.startswith(".") for part in path.relative_to(ROOT).parts[:-1]
        )
    )


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_document = pytest.mark.parametrize("document", documents(), ids=relative)


def diagrams(text: str) -> list[str]:
    return [body for _, language, body in _FENCED.findall(text) if language == "mermaid"]


# --- Tests ---------------------------------------------------------------------------------------


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """The names of a module's tests, with and without their class."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for function in inner:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(function.name)
                if isinstance(node, ast.ClassDef):
                    names.add(f"{node.name}::{function.name}")
    return frozenset(names)


@each_document
def test_given_a_test_that_a_document_names_then_it_exists(document):
    named = _TEST.findall(document.read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or name not in names_of_tests(ROOT / path)
    ]
    assert not missing


# --- Failure modes -------------------------------------------------------------------------------


def rows() -> list[tuple[int, str]]:
    return [(int(number), rest) for number, rest in _ROW.findall(FAILURE_MODES.read_text())]


def test_given_the_failure_modes_then_each_has_one_row_in_order():
    assert [number for number, _ in rows()] == list(range(1, FAILURES + 1))


@pytest.mark.parametrize("rest", [rest for _, rest in rows()], ids=[n for n, _ in rows()])
def test_given_a_failure_mode_then_it_has_a_test_or_says_not_yet(rest):
    failure, answer, proof = [cell.strip() for cell in rest.split("|")]
    assert failure
    assert answer
    assert _TEST.search(proof) or "Not yet:" in answer


# --- Links ---------------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """What a heading can be linked by, as GitHub makes it."""
    text = _FENCED.sub("", document.read_text())
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def broken(document: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    found = (document.parent / path).resolve() if path else document
    if not found.exists() or not found.is_relative_to(ROOT):
        return True
    return bool(anchor) and found.suffix == ".md" and anchor not in anchors(found)


@each_document
def test_given_a_relative_link_then_it_leads_somewhere(document):
    text = _FENCED.sub("", document.read_text())
    targets = [link for link in _LINK.findall(text) if not re.match(r"\w+:", link)]
    assert [target for target in targets if broken(document, target)] == []


# --- Rules and columns ---------------------------------------------------------------------------


def names_in_postgresql() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint UNION SELECT tgname FROM pg_trigger "
            "UNION SELECT proname FROM pg_proc UNION SELECT relname FROM pg_class"
        )
        return {name for (name,) in cursor.fetchall()}


def names_in_migrations() -> set[str]:
    """A trigger can raise under a rule's name that no catalogue knows."""
    texts = [path.read_text() for app in OURS for path in (ROOT / app / "migrations").glob("*.py")]
    return {name for text in texts for name in re.findall(r"\w+", text)}


@pytest.mark.django_db
@each_document
def test_given_a_rule_that_a_document_names_then_postgresql_has_it(document):
    named = set(_RULE.findall(document.read_text()))
    codes = set(re.findall(r'code = "(\w+)"', "".join(map(Path.read_text, exceptions()))))
    known = names_in_postgresql() | names_in_migrations() | codes
    assert sorted(named - known) == []


def exceptions() -> list[Path]:
    return [ROOT / app / "exceptions.py" for app in OURS if (ROOT / app / "exceptions.py").exists()]


@pytest.mark.django_db
def test_given_the_schema_diagram_then_its_tables_and_columns_exist():
    entities = [
        entity
        for text in diagrams((ROOT / "ARCHITECTURE.md").read_text())
        if text.lstrip().startswith("erDiagram")
        for entity in _ENTITY.findall(text)
    ]
    assert {name for name, _ in entities} == _tables()
    for name, attributes in entities:
        shown = {line.split()[1] for line in attributes.splitlines() if line.strip()}
        assert shown <= _columns(name), name


def _tables() -> set[str]:
    """Of our own models; the tables between many and many are not drawn."""
    return {model._meta.db_table for app in OURS for model in apps.get_app_config(app).get_models()}


def _columns(table: str) -> set[str]:
    with connection.cursor() as cursor:
        return {
            column.name for column in connection.introspection.get_table_description(cursor, table)
        }


# --- Diagrams ------------------------------------------------------------------------------------


@each_document
def test_given_a_diagram_then_it_is_one(document):
    text = document.read_text()
    found = diagrams(text)
    assert len(found) == len(re.findall(r"^```mermaid\s*$", text, re.MULTILINE))
    for diagram in found:
        first, *others = [line for line in diagram.splitlines() if line.strip()]
        assert first.split()[0] in DIAGRAMS
        assert others
