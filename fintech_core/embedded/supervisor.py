"""Web, worker and beat side by side: their output on one screen, restarted when they die.

A dozen lines would do with a process manager from a package; the ones at hand wait for ever when
one of their own helper processes is killed, and write nothing down that a later start could use.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import IO

from fintech_core.embedded.errors import EmbeddedError
from fintech_core.embedded.processes import ProcessBook, accepts_connections, end_group
from fintech_core.embedded.servers import PrivateServer
from fintech_core.embedded.stopping import StopSignals

RESTARTS_MAX = 5
RESTARTS_WINDOW_SECONDS = 60.0
ORDERLY_SECONDS = 5.0  # requests and tasks in flight may finish
QUICK_SECONDS = 2.0  # then SIGQUIT, which Celery takes for "now"; then SIGKILL
SERVER_DOWN_SECONDS = 10.0  # long enough to watch how the service behaves without it
COLOURS = {"web": "36", "worker": "35", "beat": "33"}


class Screen:
    """Whole lines from several threads, each with the name of its source."""

    def __init__(self, output: IO[str] = sys.stdout) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._coloured = output.isatty()
        self._closed = False

    def write(self, source: str, line: str) -> None:
        """One line. When nobody reads any more (`make run | head`), silence, not an end."""
        prefix = f"{source:<6} |"
        if self._coloured and source in COLOURS:
            prefix = f"\033[{COLOURS[source]}m{prefix}\033[0m"
        self.say(f"{prefix} {line}")

    def say(self, text: str) -> None:
        """A message of our own."""
        with self._lock:
            if self._closed:
                return
            try:
                print(text, file=self._output, flush=True)
            except OSError:
                self._closed = True


@dataclass
class Child:
    """One command that should always run."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=RESTARTS_MAX))
    due: float = 0.0

    def may_restart(self, now: float) -> bool:
        """Not if it died five times within a minute: then something is wrong with it."""
        full = len(self.restarts) == RESTARTS_MAX
        return not full or now - self.restarts[0] > RESTARTS_WINDOW_SECONDS


class Supervisor:
    """Keeps children and servers up until told to stop, then ends them all."""

    def __init__(self, signals: StopSignals, book: ProcessBook, screen: Screen) -> None:
        self._signals = signals
        self._book = book
        self._screen = screen
        self._children: list[Child] = []
        self._down_since: dict[str, float] = {}

    def add(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """A command to run; it is started by `run`."""
        self._children.append(Child(name, command, environment))

    def run(self, servers: list[PrivateServer]) -> None:
        """Start everything, and keep it up. Ends only by StopRequested or EmbeddedError."""
        try:
            for child in self._children:
                self._start(child)
            while True:
                self._signals.sleep()
                for child in self._children:
                    self._look_after(child)
                for server in servers:
                    self._look_after_server(server)
        finally:
            self._stop()

    def _start(self, child: Child) -> None:
        child.process = subprocess.Popen(
            child.command,
            env=child.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own group, so that nothing of it can be left over
        )
        self._book.note(child.name, child.process.pid)
        assert child.process.stdout is not None  # noqa: S101 - for the type checker
        reader = threading.Thread(
            target=self._show, args=(child.name, child.process.stdout), daemon=True
        )
        reader.start()

    def _show(self, name: str, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._screen.write(name, line.decode("utf-8", "replace").rstrip())

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.due:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        end_group(child.process.pid, signal.SIGKILL)
        child.process = None
        if not child.may_restart(now):
            raise EmbeddedError(f"{child.name} keeps dying (last: {ending(code)}).")
        self._screen.say(f"{child.name} died ({ending(code)}); starting it again.")
        child.restarts.append(now)
        child.due = now + 1.0

    def _look_after_server(self, server: PrivateServer) -> None:
        """Start a server again that has been away for a while; someone else may have."""
        now = time.monotonic()
        if server.running or accepts_connections(server.port):
            self._down_since.pop(server.name, None)
            return
        since = self._down_since.setdefault(server.name, now)
        if since == now:
            self._screen.say(
                f"{server.name} is down; starting it again in {SERVER_DOWN_SECONDS:.0f} s."
            )
        if now - since >= SERVER_DOWN_SECONDS:
            server.start()
            self._down_since.pop(server.name)
            self._screen.say(f"{server.name} is up again.")

    def _stop(self) -> None:
        left = [child.process for child in self._children if child.process is not None]
        for process in left:
            process.terminate()
        _wait(left, ORDERLY_SECONDS)
        for process in left:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
        _wait(left, QUICK_SECONDS)
        for process in left:
            end_group(process.pid, signal.SIGKILL)
            process.wait()
        for child in self._children:
            self._book.forget(child.name)


def _wait(processes: "list[subprocess.Popen[bytes]]", seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.05)


def ending(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def python(*arguments: str) -> list[str]:
    """A command of this very interpreter: scripts in the virtual environment name its path, and
    break when the project's folder is moved."""
    return [sys.executable, *arguments]


def inherited_environment(extra: dict[str, str]) -> dict[str, str]:
    """The environment of a child: ours, with `extra` on top, unbuffered so that logs are live."""
    return {**os.environ, **extra, "PYTHONUNBUFFERED": "1"}
