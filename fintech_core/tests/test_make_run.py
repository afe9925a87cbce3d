"""`make run` and `make test` as commands, for real, in a copy of the project."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import pytest

from fintech_core.embedded.environment import DEMO_SUPERUSER
from fintech_core.embedded.processes import accepts_connections, began, free_port, port_is_free
from fintech_core.tests.test_embedded import PROJECT, ask


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's code on a path with a space, so that the developer's own data are safe."""
    folder = tmp_path_factory.mktemp("a copy") / "fintech core"
    skipped = shutil.ignore_patterns(
        ".venv", ".git", ".local", ".env", "logs", "tests", "staticfiles", "__pycache__", ".*_cache"
    )
    shutil.copytree(PROJECT, folder, ignore=skipped)
    return folder


def clean_environment(**changes: str) -> dict[str, str]:
    """Without the variables of this test run, which would name its servers."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | changes


def embedded(folder: Path, *words: str, **changes: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fintech_core.embedded", *words],
        cwd=folder,
        env=clean_environment(**changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class TestPrivateServers:
    """What `make test` does around pytest."""

    def test_given_a_command_when_it_fails_then_its_exit_code_is_ours_and_nothing_stays(
        self, copy: Path
    ) -> None:
        # When
        script = "import os, sys; print(os.environ['DATABASE_URL']); sys.exit(7)"
        done = embedded(copy, "private", sys.executable, "-c", script)
        output, _ = done.communicate(timeout=30)
        # Then
        assert done.returncode == 7
        assert port_is_free(int(urlsplit(output.split()[-1]).port or 0))
        assert list((copy / ".local" / "test").iterdir()) == []

    def test_given_a_running_command_when_told_to_stop_then_its_servers_stop_too(
        self, copy: Path
    ) -> None:
        # Given
        script = "import os, time; print(os.environ['DATABASE_URL'], flush=True); time.sleep(60)"
        running = embedded(copy, "private", sys.executable, "-c", script)
        assert running.stdout is not None
        port = urlsplit(running.stdout.readline()).port or 0
        assert accepts_connections(port)
        # When
        running.terminate()
        running.communicate(timeout=15)
        # Then
        assert running.returncode == 128 + signal.SIGTERM
        assert port_is_free(port)


class Run:
    """`make run` in the copy, as a person would type it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.screen = folder.parent / "screen.txt"
        with self.screen.open("w") as screen:
            self.make = self._start(screen)

    def _start(self, screen: IO[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            # The environment is given: building it is another test's matter, and takes minutes.
            ["make", "--old-file=venv", f"PY={shlex.quote(sys.executable)}", "run"],
            cwd=self.folder,
            env=clean_environment(PORT=str(self.port)),
            stdin=subprocess.DEVNULL,
            stdout=screen,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def shown(self) -> str:
        return self.screen.read_text()

    def health(self) -> str | None:
        address = f"http://127.0.0.1:{self.port}/api/health/"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(json.loads(answer.read())["status"])
        except (OSError, ValueError):
            return None

    def wait_until_healthy(self, seconds: float) -> float:
        begin = time.monotonic()
        while self.health() != "ok" or "is up." not in self.shown():
            assert self.make.poll() is None, self.shown()
            assert time.monotonic() - begin < seconds, self.shown()
            time.sleep(0.1)
        return time.monotonic() - begin

    def processes(self) -> dict[int, str | None]:
        """Everything that was started, with the identity that outlives the number."""
        book = json.loads((self.folder / ".local" / "processes.json").read_text())
        runner = json.loads((self.folder / ".local" / "state.json").read_text())["pid"]
        return {pid: began(pid) for pid in [runner, *(entry["pid"] for entry in book.values())]}

    def end(self) -> None:
        if self.make.poll() is None:
            self.make.terminate()
            self.make.wait(15)
        self.make.wait()


@pytest.fixture(scope="module")
def first_run(copy: Path) -> Iterator[Run]:
    """The first start, with an empty `.local/`; the tests that need one share it."""
    run = Run(copy, free_port())
    run.wait_until_healthy(90)
    yield run
    run.end()


@pytest.fixture
def stopped_run(first_run: Run) -> Run:
    """The same after its end: its data are there, and nothing runs."""
    first_run.end()
    return first_run


def all_gone(processes: dict[int, str | None], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(began(pid) == identity for pid, identity in processes.items()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class TestMakeRun:
    """In order: the first start, what happens beside it, its end, the next start, a `kill -9`."""

    def test_given_nothing_when_started_then_it_says_where_to_go_and_who_may_sign_in(
        self, first_run: Run
    ) -> None:
        shown = first_run.shown()
        assert f"http://localhost:{first_run.port}/api/docs/" in shown
        assert f"http://localhost:{first_run.port}/admin/" in shown
        assert DEMO_SUPERUSER["DJANGO_SUPERUSER_EMAIL"] in shown

    def test_given_the_servers_when_asked_then_the_serving_role_owns_nothing(
        self, first_run: Run
    ) -> None:
        state = json.loads((first_run.folder / ".local" / "state.json").read_text())
        owned = "SELECT count(*) FROM pg_tables WHERE tableowner = current_user"
        assert ask(state["addresses"]["DATABASE_URL"], owned) == 0
        question = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        assert ask(state["addresses"]["DATABASE_OWNER_URL"], question) is False

    def test_given_a_run_when_started_again_then_it_says_so_and_disturbs_nothing(
        self, first_run: Run
    ) -> None:
        second = embedded(first_run.folder, "run", PORT=str(free_port()))
        output, _ = second.communicate(timeout=20)
        assert second.returncode == 1
        assert f"already running at http://localhost:{first_run.port}" in output
        assert first_run.health() == "ok"

    def test_given_a_run_when_cleaning_then_refused(self, first_run: Run) -> None:
        cleaning = embedded(first_run.folder, "clean")
        output, _ = cleaning.communicate(timeout=20)
        assert cleaning.returncode == 1
        assert "already running" in output
        assert first_run.health() == "ok"

    def test_given_a_run_when_managing_then_its_own_database_is_meant(self, first_run: Run) -> None:
        checking = embedded(first_run.folder, "manage", "migrate", "--check")
        output, _ = checking.communicate(timeout=30)
        assert checking.returncode == 0, output

    def test_given_sigterm_to_make_when_running_then_everything_is_gone_within_ten_seconds(
        self, first_run: Run
    ) -> None:
        # Given
        processes = first_run.processes()
        assert len(processes) == 6  # the runner, two servers, web, worker, beat
        # When
        first_run.make.terminate()
        # Then
        assert all_gone(processes, 10), first_run.shown()
        first_run.make.wait(5)
        assert port_is_free(first_run.port)
        assert "The data stay" in first_run.shown()

    def test_given_a_taken_port_when_started_then_it_says_so(self, stopped_run: Run) -> None:
        with stranger_on_a_port() as taken:
            port = str(taken.getsockname()[1])
            refused = embedded(stopped_run.folder, "run", PORT=port)
            output, _ = refused.communicate(timeout=20)
        assert refused.returncode == 1
        assert f"Port {port} is taken" in output

    def test_given_data_when_started_again_then_healthy_within_ten_seconds_and_after_kill_9_too(
        self, stopped_run: Run
    ) -> None:
        # Given: a warm start
        second = Run(stopped_run.folder, stopped_run.port)
        try:
            assert second.wait_until_healthy(30) < 10
            # When: the runner dies without a word, and leaves everything behind
            processes = second.processes()
            os.kill(next(iter(processes)), signal.SIGKILL)
            second.make.wait(5)
        finally:
            second.end()
        # Then: the next start ends the leftovers and goes on
        third = Run(stopped_run.folder, stopped_run.port)
        try:
            third.wait_until_healthy(30)
            assert "left behind: " in third.shown()
            assert all_gone(processes, 1)
        finally:
            third.end()

    def test_given_nothing_running_when_cleaned_then_the_data_are_gone(
        self, stopped_run: Run
    ) -> None:
        cleaning = embedded(stopped_run.folder, "clean")
        assert cleaning.wait(20) == 0
        assert [path.name for path in (stopped_run.folder / ".local").iterdir()] == ["lock"]


def stranger_on_a_port() -> socket.socket:
    """A stranger that listens on a port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener
