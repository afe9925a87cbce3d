"""The servers, the databases on them, and the web servers, workers and beats that use these."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
from psycopg2 import extensions
from psycopg2.sql import SQL, Identifier

from benchmarks.processes import Ended, Program, ProgramError, run
from fintech_core.embedded import programs
from fintech_core.embedded.environment import environment_for_tests
from fintech_core.embedded.instance import throwaway_folder, throwaway_servers
from fintech_core.embedded.processes import ProcessBook, free_port

READY_SECONDS = 60.0
# Rate limits are asked on every request, and nobody meets them.
_UNREACHED = "1000000000/m"
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
    "RATE_LIMIT_TRANSFER": _UNREACHED,
    "RATE_LIMIT_PAYMENT": _UNREACHED,
}
DURABILITY = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_level",
    "max_wal_size",
    "checkpoint_timeout",
    "shared_buffers",
)


@dataclass(frozen=True)
class Database:
    """One database, and the environment of whoever uses it."""

    name: str
    environment: Mapping[str, str]

    @contextmanager
    def as_owner(self) -> Iterator[extensions.connection]:
        """A connection of the owner's, outside any transaction."""
        session = psycopg2.connect(self.environment["DATABASE_OWNER_URL"])
        session.autocommit = True
        try:
            yield session
        finally:
            session.close()

    def ask(self, question: str) -> Any:
        """The first column of the first row."""
        with self.as_owner() as session, session.cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchone()[0]


@dataclass
class Web:
    """A web server that answers on `port`."""

    port: int
    program: Program
    database: Database

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Stage:
    """The servers of a run. What is made on them is gone when the run is over."""

    folder: Path
    environment: Mapping[str, str]
    stack: ExitStack
    book: ProcessBook = field(init=False)

    def __post_init__(self) -> None:
        self.book = ProcessBook(self.folder / "processes.json")

    def create(self, purpose: str, *, template: Database | None = None) -> Database:
        """A database, empty or a copy of `template`, which nobody may be using just then."""
        made = self._database(f"{self._given.name}_{purpose}_{os.getpid()}")
        command = SQL("CREATE DATABASE {}").format(Identifier(made.name))
        if template:
            command += SQL(" TEMPLATE {}").format(Identifier(template.name))
        self._administer(command)
        self.stack.callback(self._drop, made)
        return made

    def _drop(self, database: Database) -> None:
        self._administer(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(database.name)))

    def _administer(self, command: Any) -> None:
        with self._given.as_owner() as session, session.cursor() as cursor:
            cursor.execute(command)

    @property
    def _given(self) -> Database:
        return self._database(urlsplit(self.environment["DATABASE_OWNER_URL"]).path.lstrip("/"))

    def _database(self, name: str) -> Database:
        addresses = {
            variable: urlsplit(self.environment[variable])._replace(path=f"/{name}").geturl()
            for variable in ("DATABASE_OWNER_URL", "DATABASE_URL")
        }
        return Database(name, {**self.environment, **addresses})

    def durability(self) -> dict[str, str]:
        """What the server says about waiting for the disk, and its version."""
        shown = {name: str(self._given.ask(f"SHOW {name}")) for name in DURABILITY}
        return {"version": str(self._given.ask("SELECT version()")), **shown}

    @contextmanager
    def web(self, database: Database, more: Mapping[str, str] = {}) -> Iterator[Web]:
        """The web server of `make run`, ready."""
        port = free_port()
        name = f"web-{database.name}-{port}"
        environment = {
            **database.environment,
            "PORT": str(port),
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder / f"metrics-{port}"),
            **more,
        }
        with self._program(name, programs.web(port), environment) as program:
            web = Web(port, program, database)
            program.wait_until(lambda: _is_healthy(web), READY_SECONDS)
            yield web

    @contextmanager
    def worker(self, database: Database) -> Iterator[Program]:
        """The Celery worker of `make run`, ready."""
        with self._program("worker", programs.worker(), database.environment) as program:
            program.wait_until(
                lambda: " ready." in program.log.read_text(errors="replace"), READY_SECONDS
            )
            yield program

    def beat(self, database: Database) -> Program:
        """The scheduler of `make run`."""
        return self._program("beat", programs.beat(self.folder), database.environment)

    def manage(self, database: Database, *arguments: str) -> Ended:
        """`manage.py`, run to its end."""
        return run([sys.executable, "manage.py", *arguments], database.environment)

    def _program(self, name: str, command: list[str], environment: Mapping[str, str]) -> Program:
        return Program(name, command, environment, self.folder / f"{name}.log", self.book)


def _is_healthy(web: Web) -> bool:
    try:
        with urllib.request.urlopen(f"{web.url}/api/health/", timeout=3) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def stage(*, lenient: bool) -> Iterator[Stage]:
    """Durable servers of our own, or those that the environment names.

    Raises ProgramError for a server that does not wait for the disk, unless `lenient`.
    """
    with (
        throwaway_folder() as folder,
        throwaway_servers(folder, durable=True) as servers,
        ExitStack() as stack,
    ):
        environment = {**environment_for_tests(folder), **servers.addresses, **ENVIRONMENT}
        made = Stage(folder, environment, stack)
        if not lenient:
            _require_durable(made)
        yield made


def _require_durable(made: Stage) -> None:
    said = made.durability()
    for setting in ("fsync", "synchronous_commit"):
        if said[setting] != "on":
            raise ProgramError(
                f"{setting} is {said[setting]} on this server: figures mean nothing."
            )
