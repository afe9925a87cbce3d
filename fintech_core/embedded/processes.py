"""Processes that may outlive the one that started them, told apart from strangers."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from fintech_core.embedded.files import read_json, write_json

PROC = Path("/proc")
POLL_SECONDS = 0.05


def began(pid: int) -> str | None:
    """When process `pid` began, in a form that no later process repeats; None if it is gone.

    A number alone is not an identity: the system gives it to somebody else later, and after a
    reboot soon. A zombie counts as gone: it holds no port and no file.
    """
    if (PROC / "self" / "stat").exists():
        return _began_linux(pid)
    shown = _ps(pid, "state=,lstart=")
    return None if not shown or shown.startswith("Z") else shown


def _began_linux(pid: int) -> str | None:
    try:
        # The name in parentheses may itself hold spaces and parentheses: split after the last.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{started}"


def command_of(pid: int) -> str:
    """The command line of `pid`, empty if it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return "" if PROC.is_dir() and (PROC / "self").exists() else _ps(pid, "command=")


def _ps(pid: int, columns: str) -> str:
    shown = subprocess.run(
        ["ps", "-o", columns, "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


def wait_until_gone(pid: int, identity: str, seconds: float) -> bool:
    """True as soon as that very process has ended, False after `seconds`."""
    deadline = time.monotonic() + seconds
    while began(pid) == identity:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end(pid: int, identity: str, signals: tuple[tuple[signal.Signals, float], ...]) -> None:
    """Send each signal in turn, with its patience in seconds, until the process has ended."""
    for number, seconds in signals:
        if began(pid) != identity:
            return
        _send(pid, number)
        if wait_until_gone(pid, identity, seconds):
            return


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_group(leader: int, number: signal.Signals) -> None:
    """Signal all that is left of a group that we created; quietly when nothing is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


class ProcessBook:
    """The processes that a runner started, on disk, so that the next one can end leftovers.

    Matters only after a `kill -9` of the runner: otherwise it ends its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, name: str, pid: int) -> None:
        """Remember a process right after it was started."""
        self._store({**read_json(self.path), name: {"pid": pid, "began": began(pid)}})

    def forget(self, name: str) -> None:
        """Strike out a process that has ended."""
        self._store({key: entry for key, entry in read_json(self.path).items() if key != name})

    def _store(self, entries: dict[str, object]) -> None:
        write_json(self.path, entries)

    def end_leftovers(self) -> list[str]:
        """End whatever a killed runner left behind; returns the names, for a message."""
        left = [
            (name, int(entry["pid"]), str(entry["began"]))
            for name, entry in read_json(self.path).items()
            if entry.get("began") and began(int(entry["pid"])) == entry["began"]
        ]
        for _, pid, _ in left:
            _send(pid, signal.SIGTERM)
        for _, pid, identity in left:
            end(pid, identity, ((signal.SIGTERM, 4), (signal.SIGQUIT, 2)))
            end_group(pid, signal.SIGKILL)
            end(pid, identity, ((signal.SIGKILL, 3),))
        self._store({})
        return [name for name, _, _ in left]


def free_port() -> int:
    """A port on the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on `port` of the loopback interface."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def end_of_file(path: Path, lines: int = 8) -> str:
    """The last lines of a log, indented for an error message."""
    try:
        content = path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in content)
