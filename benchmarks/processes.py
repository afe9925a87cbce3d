"""Processes of a run: each in a group of its own, which surely ends with it; what they use up."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from fintech_core.embedded.environment import PROJECT
from fintech_core.embedded.processes import PROC, ProcessBook, end_group, end_of_file

STOP_SECONDS = 15.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class ProgramError(Exception):
    """A program did not do what it was started for; the message says which, and what it said."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended. `memory`: the most bytes that it had in memory at once.

    `cpu_seconds`: in user and system mode, its ended children included.
    """

    code: int
    output: str
    errors: str
    seconds: float
    memory: int
    cpu_seconds: float

    def require(self, refusal: str) -> None:
        """Raises ProgramError unless all went well."""
        if self.code:
            raise ProgramError(f"{refusal}:\n{self.errors[-3000:]}")


def run(command: list[str], environment: Mapping[str, str]) -> Ended:
    """A command in the project's folder, to its end, whatever that is."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command,
            cwd=PROJECT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
        return Ended(
            code=process.returncode,
            output=_read(output),
            errors=_read(errors),
            seconds=seconds,
            memory=used.ru_maxrss * 1024,
            cpu_seconds=used.ru_utime + used.ru_stime,
        )


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


class Program:
    """One long-running command. `log` gets its output, `book` its number, for the next runner."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        book: ProcessBook,
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = dict(environment)
        self._book = book
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self._command,
                cwd=PROJECT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._book.note(self.name, self._process.pid)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            end_group(process.pid, signal.SIGKILL)
            process.wait()
            self._book.forget(self.name)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def members(self) -> list[int]:
        """It and its children: whoever is in its group."""
        leader = self._process.pid if self._process else None
        return [pid for pid, fields in _stats() if int(fields[2]) == leader]

    def cpu_seconds(self) -> float:
        """What it and its living children have used so far, in user and system mode."""
        leader = self._process.pid if self._process else None
        ticks = (
            int(fields[11]) + int(fields[12]) for _, fields in _stats() if int(fields[2]) == leader
        )
        return sum(ticks) / _TICKS_PER_SECOND

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Poll. Raises ProgramError when it takes too long or the program has ended."""
        deadline = time.monotonic() + seconds
        while not holds():
            if not self.alive or time.monotonic() > deadline:
                raise ProgramError(f"{self.name} did not get ready:\n{end_of_file(self.log, 30)}")
            time.sleep(0.1)


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Each process, with the fields of its `stat` after its name (state, parent, group, …)."""
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended since
            yield int(folder.name), fields
