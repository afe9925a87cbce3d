"""An instance: the servers of `make run` (lasting) or of one `make test` (thrown away)."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fintech_core.embedded.environment import LOCAL, prepare_local
from fintech_core.embedded.errors import EmbeddedError
from fintech_core.embedded.files import locked, read_json, write_json
from fintech_core.embedded.postgres import SUPERUSER, PostgresServer, wipe_postgres
from fintech_core.embedded.processes import ProcessBook
from fintech_core.embedded.servers import PrivateServer
from fintech_core.embedded.valkey import ValkeyServer

OWNER_ROLE = "fintech_owner"
SERVING_ROLE = "fintech_app"
DATABASE = "fintech"
TEST_DATABASE = "fintech_test"

LOCK = LOCAL / "lock"
STATE = LOCAL / "state.json"
BOOK = LOCAL / "processes.json"
TESTS = LOCAL / "test"
SERVER_VARIABLES = ("DATABASE_OWNER_URL", "DATABASE_URL", "REDIS_URL")


@dataclass
class Servers:
    """What was started, and the variables that lead to it."""

    addresses: dict[str, str] = field(default_factory=dict)
    started: list[PrivateServer] = field(default_factory=list)


@contextmanager
def exclusive() -> Iterator[ProcessBook]:
    """The right to use `.local/`. Ends what an earlier, killed runner left behind."""
    prepare_local()
    with locked(LOCK) as mine:
        if not mine:
            raise EmbeddedError(running_message())
        write_json(STATE, {"pid": os.getpid()})
        book = ProcessBook(BOOK)
        left = book.end_leftovers()
        if left:
            print(f"Stopped what a killed run had left behind: {', '.join(left)}.", flush=True)
        try:
            yield book
        finally:
            STATE.unlink(missing_ok=True)


def running_message() -> str:
    """Who holds `.local/`, for the second `make run`."""
    state = read_json(STATE)
    where = f" at {state['url']}" if state.get("url") else ""
    return (
        f"Fintech Core is already running{where} (process {state.get('pid', 'unknown')}).\n"
        f"It was left alone. Stop it with Ctrl-C there, or: kill {state.get('pid', 'PID')}"
    )


@contextmanager
def lasting_servers(given: dict[str, str], book: ProcessBook) -> Iterator[Servers]:
    """PostgreSQL and Valkey with the data in `.local/`, each only if no address was given."""
    servers = Servers()
    with ExitStack() as stack:
        if "DATABASE_URL" not in given:
            postgres = PostgresServer(LOCAL / "postgres", book=book)
            _enter(stack, servers, postgres)
            servers.addresses |= _two_roles(postgres)
        if "REDIS_URL" not in given:
            valkey = ValkeyServer(LOCAL / "valkey", book=book)
            _enter(stack, servers, valkey)
            servers.addresses["REDIS_URL"] = valkey.url
        yield servers


def _enter(stack: ExitStack, servers: Servers, server: PrivateServer) -> None:
    stack.callback(server.stop)
    server.start()
    servers.started.append(server)


def _two_roles(postgres: PostgresServer) -> dict[str, str]:
    """One role owns the tables, the other serves and owns nothing: it cannot switch a trigger
    off. `manage.py migrate` grants it what it needs."""
    postgres.create_role(OWNER_ROLE)
    postgres.create_role(SERVING_ROLE)
    postgres.create_database(DATABASE, owner=OWNER_ROLE)
    return {
        "DATABASE_OWNER_URL": postgres.url_for(OWNER_ROLE, DATABASE),
        "DATABASE_URL": postgres.url_for(SERVING_ROLE, DATABASE),
    }


@contextmanager
def throwaway_servers(folder: Path, *, durable: bool = False) -> Iterator[Servers]:
    """Fresh servers with an empty database, whose superuser the tests may use to tamper.

    `durable`: they wait for the disk as those of `make run` do. Servers named by all three
    variables of the real environment are used instead, as they are.
    """
    named = {name: os.environ.get(name, "") for name in SERVER_VARIABLES}
    if all(named.values()):
        _refuse_real_data(named)
        yield Servers(addresses=named)
        return
    servers = Servers()
    book = ProcessBook(folder / "processes.json")
    with ExitStack() as stack:
        postgres = PostgresServer(folder / "postgres", book=book, durable=durable)
        _enter(stack, servers, postgres)
        valkey = ValkeyServer(folder / "valkey", book=book, durable=durable)
        _enter(stack, servers, valkey)
        postgres.create_role(SERVING_ROLE)
        postgres.create_database(TEST_DATABASE, owner=SUPERUSER)
        servers.addresses = {
            "DATABASE_OWNER_URL": postgres.url_for(SUPERUSER, TEST_DATABASE),
            "DATABASE_URL": postgres.url_for(SERVING_ROLE, TEST_DATABASE),
            "REDIS_URL": valkey.url,
        }
        yield servers


def _refuse_real_data(named: dict[str, str]) -> None:
    """The tests empty every table: the database must say that it is meant for them."""
    for variable in ("DATABASE_OWNER_URL", "DATABASE_URL"):
        if "test" not in urlsplit(named[variable]).path:
            raise EmbeddedError(
                f"The tests empty their database, so the name in {variable} must contain 'test'."
            )


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """A folder for one test run, gone afterwards; removes those of runs that were killed."""
    prepare_local()
    TESTS.mkdir(mode=0o700, exist_ok=True)
    for old in TESTS.iterdir():
        _remove_if_abandoned(old)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=TESTS))
    with locked(folder / "lock"):
        try:
            yield folder
        finally:
            _remove(folder)


def _remove_if_abandoned(folder: Path) -> None:
    if not (folder / "lock").exists():
        return  # it is being made at this moment; if not, `make clean` removes it
    with locked(folder / "lock") as abandoned:
        if abandoned:
            ProcessBook(folder / "processes.json").end_leftovers()
            _remove(folder)


def _remove(folder: Path) -> None:
    wipe_postgres(folder / "postgres")
    shutil.rmtree(folder, ignore_errors=True)


def wipe() -> None:
    """Remove all local data. Refuses while something uses it."""
    if not LOCAL.exists():
        return
    with exclusive():
        for folder in TESTS.glob("*"):
            _refuse_or_remove(folder)
        wipe_postgres(LOCAL / "postgres")
        for path in LOCAL.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != LOCK:
                path.unlink(missing_ok=True)


def _refuse_or_remove(folder: Path) -> None:
    with locked(folder / "lock") as abandoned:
        if not abandoned:
            raise EmbeddedError("Tests are running here; wait for them to end.")
        ProcessBook(folder / "processes.json").end_leftovers()
    _remove(folder)
