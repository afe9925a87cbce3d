"""What a private PostgreSQL and a private Valkey have in common: one process, one port, one log."""

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from fintech_core.embedded.errors import EmbeddedError
from fintech_core.embedded.files import remembered_secret, write_private
from fintech_core.embedded.processes import (
    POLL_SECONDS,
    ProcessBook,
    end_of_file,
    free_port,
    port_is_free,
)

START_SECONDS = 10.0
RETRY_SECONDS = 0.3


class PrivateServer(ABC):
    """A server of ours on 127.0.0.1, with its data, passwords and log in one folder.

    `start`, `stop` and `kill` may be called in any order and repeatedly; data survive all three.
    The port is kept from one start to the next while it is free, so addresses stay valid.
    """

    name: ClassVar[str]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(
        self, folder: Path, *, port: int | None = None, book: ProcessBook | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = self.folder / "server.log"
        self._port = port
        self._book = book
        self._process: subprocess.Popen[bytes] | None = None
        self._address_in_use = False  # by our clients: then the port must not change any more

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the process; it need not be ready yet."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is up and lets us in with our password."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address, password included."""

    @property
    def port(self) -> int:
        """Chosen once, remembered in the folder, changed only before a start if taken."""
        if self._port is None:
            self._choose_port()
        assert self._port is not None  # noqa: S101 - for the type checker
        return self._port

    def _choose_port(self) -> None:
        remembered = self.folder / "port"
        known = remembered.read_text().strip() if remembered.exists() else ""
        if known.isdecimal() and port_is_free(int(known)):
            self._port = int(known)
            return
        self._port = free_port()
        write_private(remembered, str(self._port))

    def password(self, role: str) -> str:
        """The password of `role`, made once and kept in a private file beside the data."""
        return remembered_secret(self.folder / "passwords.json", role)

    @property
    def running(self) -> bool:
        """Whether the process that we started is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process that we started, while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start and wait until it answers.

        Tries again for ten seconds: after a `kill -9` the children of the old server take a
        moment to go, and the new one refuses to start beside them.
        """
        if self.running:
            return
        deadline = time.monotonic() + START_SECONDS
        while not self._start_once(deadline):
            if time.monotonic() > deadline:
                self.kill()
                raise EmbeddedError(
                    f"{self.name} did not start. The end of {self.log}:\n{end_of_file(self.log)}"
                )
            time.sleep(RETRY_SECONDS)
            if not self._address_in_use and not port_is_free(self.port):
                self._choose_port()  # somebody took it since we looked
        self._address_in_use = True

    def _start_once(self, deadline: float) -> bool:
        process = self._process = self._launch()
        if self._book:
            self._book.note(self.name, process.pid)
        while process.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def stop(self) -> None:
        """End it in an orderly way; forcibly if it takes too long."""
        process = self._process
        if process is None:
            return
        for number, seconds in (*self.stop_signals, (signal.SIGKILL, 5.0)):
            if process.poll() is not None:
                break
            process.send_signal(number)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        self._ended()

    def kill(self) -> None:
        """`kill -9`, as when the power fails: no goodbye, no flush."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._ended()

    def _ended(self) -> None:
        self._process = None
        if self._book:
            self._book.forget(self.name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
