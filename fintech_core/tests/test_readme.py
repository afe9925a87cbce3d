"""The README does not rot: its session is typed against a live server, its names are looked up."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from redis import Redis

from fintech_core.tests.live import Web, Worker

PROJECT = Path(settings.BASE_DIR)
README = (PROJECT / "README.md").read_text()
PUBLIC_URL = "http://localhost:8000"
SESSION_SECONDS_MAX = 30

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
# What is new each time. Each value becomes its kind and a number: the first id, the second id, …
VOLATILE = re.compile(
    "|".join(
        f"(?P<{kind}>{pattern})"
        for kind, pattern in {
            "uuid": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            "moment": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
            "token": r"eyJ[\w-]+(?:(?:\.[\w-]+){2}|…[\w-]+)",
            "secret": r"sbx_[0-9a-f]{24}_secret_[0-9a-f]{32}",
            "sandbox_reference": r"sbx_(?:po_)?[0-9a-f]{24}",
            "reference": r"TX-[A-Z2-7]{26}",
            "request": r"\b[0-9a-f]{32}\b",
        }.items()
    )
)


@dataclass
class Step:
    """What is typed, and what the README shows that comes back (empty: it does not say)."""

    command: str
    shown: str = ""


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def session() -> list[Step]:
    steps: list[Step] = []
    for language, content in BLOCK.findall(section("A session")):
        if language == "bash":
            steps.append(Step(content))
        else:
            assert not steps[-1].shown, f"two answers to one command: {content}"
            steps[-1].shown = content
    return steps


class Shapes:
    """Replaces what is new each time, the same value by the same name throughout."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str], int] = {}

    def of(self, text: str) -> str:
        return VOLATILE.sub(self._name, text)

    def _name(self, found: re.Match[str]) -> str:
        kind = str(found.lastgroup)
        number = self.numbers.setdefault((kind, found[0]), len(self.numbers))
        return f"<{kind} {number}>"


def answer_of(text: str, header_names: set[str]) -> tuple[str, dict[str, str], str]:
    """Status line, the headers of these names, and the body, JSON in one spelling."""
    head, _, body = text.replace("\r", "").strip().partition("\n\n")
    status, *lines = head.split("\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name.lower() in header_names:
            headers[name.lower()] = value
    body = (
        json.dumps(json.loads(body), indent=1, sort_keys=True, ensure_ascii=False) if body else ""
    )
    return status, dict(sorted(headers.items())), body


def header_names_of(shown: str) -> set[str]:
    head = shown.partition("\n\n")[0]
    return {line.partition(": ")[0].lower() for line in head.split("\n")[1:]}


def type_in(steps: list[Step], folder: Path, url: str) -> list[str]:
    """Type the commands into one bash; what each printed."""
    script = 'make() { [ "$1" = verify ] && "$PYTHON" manage.py verify_ledger; }\n'
    for number, step in enumerate(steps):
        command = step.command.replace(PUBLIC_URL, url)
        script += f'{{\n{command}\n}} > "$FOLDER/{number}" 2>&1\n'
    subprocess.run(
        ["bash", "-c", script],
        cwd=PROJECT,
        env={
            **os.environ,
            "LOG_DIR": "",
            "PYTHON": sys.executable,
            "FOLDER": str(folder),
            "TMPDIR": str(folder),  # for the README's `mktemp`
        },
        stdin=subprocess.DEVNULL,
        timeout=SESSION_SECONDS_MAX,
        check=True,
    )
    printed = [folder / str(number) for number in range(len(steps))]
    return [path.read_text().replace(url, PUBLIC_URL) for path in printed]


@pytest.fixture
def service(transactional_db, tmp_path):
    """As after `make run`: the demo people, web and worker; no beat, for nothing is late here."""
    call_command(
        "createsuperuser",
        interactive=False,
        email=os.environ["DJANGO_SUPERUSER_EMAIL"],
        verbosity=0,
    )
    call_command("seed_demo", stdout=io.StringIO())
    with closing(Redis.from_url(settings.CELERY_BROKER_URL)) as redis:
        redis.flushdb()  # what earlier tests queued
    environment = {"REDIS_URL": settings.CELERY_BROKER_URL, "PUBLIC_BASE_URL": PUBLIC_URL}
    with Web(tmp_path, environment) as web, Worker(tmp_path, environment):
        yield f"http://localhost:{web.port}"


def test_given_the_session_when_typed_then_every_answer_is_as_shown(service, tmp_path):
    steps = session()
    assert len(steps) > 10
    shown_shapes, seen_shapes = Shapes(), Shapes()
    for step, printed in zip(steps, type_in(steps, tmp_path, service), strict=True):
        if not step.shown:
            continue
        if not step.shown.startswith("HTTP/"):
            assert printed == step.shown, step.command
            continue
        names = header_names_of(step.shown)
        for shown, seen in zip(
            answer_of(step.shown, names), answer_of(printed, names), strict=True
        ):
            expected, got = shown_shapes.of(str(shown)), seen_shapes.of(str(seen))
            assert got == expected, f"{step.command}\n{printed}"


class TestGuarantees:
    """Each row of the table: what holds, how, proved by."""

    ROWS = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section("What it guarantees").splitlines()
        if line.startswith("| ") and "`" in line
    ]

    @pytest.mark.django_db
    def test_given_a_rule_of_the_database_when_looked_up_then_it_is_there_and_on(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT tgname FROM pg_trigger WHERE tgenabled IN ('O', 'A') AND NOT tgisinternal"
                " UNION SELECT conname FROM pg_constraint WHERE convalidated"
                " UNION SELECT indexrelid::regclass::text FROM pg_index"
                " WHERE indisunique AND indisvalid"
            )
            there = {row[0] for row in cursor.fetchall()}
        apps = "users|wallet|transactions|payments|fintech_core"
        named = {name for row in self.ROWS for name in re.findall(rf"`((?:{apps})_\w+)`", row[1])}
        assert len(named) > 15
        assert named - there == set()

    def test_given_a_test_when_looked_up_then_a_file_named_before_it_has_it(self):
        for what, _, proof in self.ROWS:
            tests = re.findall(r"`(test_given_\w+)`", proof)
            code = "".join((PROJECT / path).read_text() for path in LINK.findall(proof))
            assert tests, what
            assert [name for name in tests if f"def {name}(" not in code] == [], what


def test_given_the_commands_when_compared_with_the_makefile_then_they_are_the_same():
    targets = re.findall(r"^([a-z]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^\| (`make .*?) \| ", section("Commands"), re.MULTILINE)
    assert sorted(re.findall(r"`make (\w+)`", " ".join(named))) == sorted(targets)


def test_given_a_variable_when_named_then_the_template_explains_it():
    template = (PROJECT / ".env.example").read_text()
    pages = README + (PROJECT / "API_DOCUMENTATION.md").read_text()
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", pages))
    assert len(named) > 10
    assert {name for name in named if f"\n{name}=" not in template} == set()
