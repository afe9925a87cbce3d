"""What `python -m fintech_core.embedded` can do: one function for each word."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fintech_core.embedded import programs
from fintech_core.embedded.environment import (
    LOCAL,
    PROJECT,
    environment_for_tests,
    offline_addresses,
    production_environment,
    run_environment,
)
from fintech_core.embedded.errors import EmbeddedError, StopRequested
from fintech_core.embedded.files import locked, read_json, write_json
from fintech_core.embedded.instance import (
    LOCK,
    SERVER_VARIABLES,
    STATE,
    exclusive,
    lasting_servers,
    throwaway_folder,
    throwaway_servers,
    wipe,
)
from fintech_core.embedded.processes import ProcessBook, port_is_free
from fintech_core.embedded.servers import PrivateServer
from fintech_core.embedded.stopping import StopSignals, end_child
from fintech_core.embedded.supervisor import Screen, Supervisor, inherited_environment, python

LOGINS = LOCAL / "demo-logins.txt"
HEALTH_SECONDS = 60.0
TEST_PATIENCE_SECONDS = 10.0


def run() -> int:
    """Everything on this machine, until Ctrl-C or SIGTERM."""
    signals = StopSignals().install()
    screen = Screen()
    try:
        _run(signals, screen)
    except StopRequested:
        screen.say("Stopped. The data stay in .local/ for the next start.")
    # Asked to stop, it stopped: that is success, and make then prints no error after Ctrl-C.
    return 0


def _run(signals: StopSignals, screen: Screen) -> None:
    environment = run_environment()
    port = _valid_port(environment["PORT"])
    with exclusive() as book:
        if not port_is_free(port):
            raise EmbeddedError(
                f"Port {port} is taken by another program. Choose one: make run PORT=8001"
            )
        screen.say("Starting PostgreSQL and Valkey ...")
        with lasting_servers(environment, book) as servers:
            signals.check()
            complete = inherited_environment(environment | servers.addresses)
            public = {name: complete[name] for name in SERVER_VARIABLES if name in complete}
            url = f"http://localhost:{port}"
            write_json(STATE, {"pid": os.getpid(), "url": url, "addresses": public})
            _prepare(signals, book, complete)
            _serve(signals, book, screen, complete, servers.started)


def _valid_port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise EmbeddedError(f"PORT must be a number from 1 to 65535, not {text!r}.")
    return int(text)


def _prepare(signals: StopSignals, book: ProcessBook, environment: dict[str, str]) -> None:
    """Migrations and the rest; in its own session, so that Ctrl-C reaches it through us."""
    process = subprocess.Popen(
        python("-m", "fintech_core.embedded.prepare", str(LOGINS)),
        env=environment,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    book.note("prepare", process.pid)
    code = signals.wait_for(process)
    book.forget("prepare")
    if code != 0:
        raise EmbeddedError("The database could not be prepared; the reason stands above.")


def _serve(
    signals: StopSignals,
    book: ProcessBook,
    screen: Screen,
    environment: dict[str, str],
    servers: list[PrivateServer],
) -> None:
    port = environment["PORT"]
    metrics = LOCAL / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    supervisor = Supervisor(signals, book, screen)
    supervisor.add(
        "web", programs.web(port), {**environment, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    )
    supervisor.add("worker", programs.worker(), environment)
    supervisor.add("beat", programs.beat(LOCAL), environment)
    threading.Thread(target=_announce, args=(screen, port), daemon=True).start()
    supervisor.run(servers)


def _announce(screen: Screen, port: str) -> None:
    """Say where to go, as soon as going there makes sense."""
    deadline = time.monotonic() + HEALTH_SECONDS
    while not _healthy(port):
        if time.monotonic() > deadline:
            screen.say(f"The web server did not get healthy within {HEALTH_SECONDS:.0f} s.")
            return
        time.sleep(0.2)
    logins = LOGINS.read_text() if LOGINS.exists() else ""
    screen.say(banner(f"http://localhost:{port}", logins))


def _healthy(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health/", timeout=3) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def banner(url: str, logins: str) -> str:
    """What a newcomer needs to know now."""
    indented = "\n".join(f"  {line}" for line in logins.splitlines())
    return f"""
==============================================================================
  Fintech Core is up.  Ctrl-C stops it; the data stay in .local/.

  API documentation   {url}/api/docs/
  Admin               {url}/admin/
  Health              {url}/api/health/

{indented}
==============================================================================
"""


def manage(arguments: list[str]) -> int:
    """`manage.py` with the environment of `make run`, on its servers; starts them if need be."""
    signals = StopSignals().install().leave_ctrl_c_to_the_foreground()
    with _lasting_environment() as environment:
        return _foreground(python("manage.py", *arguments), environment, signals)


@contextmanager
def _lasting_environment() -> Iterator[dict[str, str]]:
    environment = run_environment()
    with locked(LOCK) as idle:
        pass
    if not idle:
        yield inherited_environment(environment | _addresses_of_the_running(environment))
        return
    with exclusive() as book, lasting_servers(environment, book) as servers:
        yield inherited_environment(environment | servers.addresses)


def _addresses_of_the_running(environment: dict[str, str]) -> dict[str, str]:
    addresses: dict[str, str] = read_json(STATE).get("addresses", {})
    if not addresses and "DATABASE_URL" not in environment:
        raise EmbeddedError("Something else is using .local/ just now; try again in a moment.")
    return addresses


def private(command: list[str]) -> int:
    """Any command beside fresh servers of its own, which end with it."""
    signals = StopSignals().install()
    try:
        with throwaway_folder() as folder, throwaway_servers(folder) as servers:
            signals.check()
            environment = environment_for_tests(folder) | servers.addresses
            return _foreground(command, environment, signals)
    except StopRequested:
        return 128 + (signals.received or signal.SIGTERM)


def test(arguments: list[str]) -> int:
    """The test suite."""
    return private(python("-m", "pytest", *arguments))


def offline(command: list[str]) -> int:
    """A command that reads the settings and needs no server."""
    environment = environment_for_tests(LOCAL / "offline") | offline_addresses() | {"LOG_DIR": ""}
    return _foreground(command, environment)


def deploy_check() -> int:
    """`check --deploy` as a production server would see it."""
    return _foreground(
        python("manage.py", "check", "--deploy", "--fail-level", "WARNING"),
        production_environment(),
    )


def clean() -> int:
    """Forget everything in `.local/`."""
    wipe()
    return 0


def stop() -> int:
    """End a `make run` elsewhere, and wait for it."""
    with locked(LOCK) if LOCK.exists() else _nothing() as idle:
        pass
    if idle:
        print("Nothing is running.")
        return 0
    os.kill(int(read_json(STATE)["pid"]), signal.SIGTERM)
    for _ in range(150):
        with locked(LOCK) as idle:
            if idle:
                print("Stopped.")
                return 0
        time.sleep(0.1)
    raise EmbeddedError("It was told to stop and has not yet.")


@contextmanager
def _nothing() -> Iterator[bool]:
    yield True


def status() -> int:
    """Whether `make run` is up, as JSON; exit code 1 if not. Passwords are left out."""
    state = read_json(STATE)
    with locked(LOCK) if LOCK.exists() else _nothing() as idle:
        pass
    print(json.dumps({"running": not idle, "url": None if idle else state.get("url")}))
    return int(idle)


def logs() -> int:
    """The end of the log files; goes on if somebody watches."""
    folder = Path(run_environment()["LOG_DIR"] or PROJECT / "logs")
    files = [str(path) for path in sorted((PROJECT / folder).glob("*.log"))]
    if not files:
        print(f"No log file in {folder} yet: they are written while `make run` is up.")
        return 0
    follow = ["-F"] if sys.stdout.isatty() else []
    return _foreground(["tail", "-n", "100", *follow, *files], dict(os.environ))


def _foreground(
    command: list[str], environment: dict[str, str], signals: StopSignals | None = None
) -> int:
    """Run a command that owns the terminal: it gets Ctrl-C itself, we wait until it is done."""
    signals = signals or StopSignals().install()
    process = subprocess.Popen(command, env=environment, cwd=PROJECT)
    try:
        while True:
            try:
                return process.wait(0.2)
            except subprocess.TimeoutExpired:
                signals.check()
    except StopRequested:
        _interrupt(process, reached=signals.received == signal.SIGINT)
        return 128 + (signals.received or signal.SIGTERM)


def _interrupt(process: "subprocess.Popen[bytes]", *, reached: bool) -> None:
    """As Ctrl-C would: pytest then still runs its fixtures' endings, which stop what they started.

    In a terminal Ctrl-C `reached` it as well, and a second one would cut the endings short.
    """
    for patience in (5, TEST_PATIENCE_SECONDS):
        if not reached:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            reached = False
    end_child(process, 3)
