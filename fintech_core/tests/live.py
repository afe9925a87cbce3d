"""The real processes, for tests that look from outside: gunicorn, a Celery worker, beat."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from django.conf import settings

from fintech_core.embedded.processes import free_port

STOP_SECONDS = 15


class Process:
    """One process of ours: started with this test's environment, and surely ended."""

    def __init__(self, *arguments: str, log: Path, environment: Mapping[str, str] = {}) -> None:
        self.arguments = [sys.executable, "-m", *arguments]
        self.environment = {**os.environ, "LOG_DIR": "", **environment}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.arguments,
                cwd=settings.BASE_DIR,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """As an orchestrator does: SIGTERM, and SIGKILL to the whole group if that is ignored."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """As a power cut does: no process of the group can do anything about it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        """The processes that it started itself and that still run."""
        pid = self._process.pid if self._process else 0
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Web(Process):
    """gunicorn, configured as in production, on a port of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = {}) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            "gunicorn",
            "fintech_core.wsgi",
            "--config",
            "fintech_core/gunicorn_conf.py",
            log=folder / "web.log",
            environment={
                "WEB_CONCURRENCY": "1",
                "PUBLIC_BASE_URL": self.url,
                **environment,
                "PORT": str(self.port),
            },
        )

    def start(self) -> None:
        super().start()
        wait_until(lambda: self.status("/api/health/live/") == 200, 30, self.said)

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code
        except OSError:
            return 0


class Worker(Process):
    """A Celery worker, ready for work."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = {}) -> None:
        super().__init__(
            "celery",
            "--app=fintech_core",
            "worker",
            "--concurrency=2",
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",
            log=folder / "worker.log",
            environment=environment,
        )

    def start(self) -> None:
        super().start()
        wait_until(lambda: " ready." in self.said(), 30, self.said)


class Beat(Process):
    """Celery beat with a schedule file of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = {}) -> None:
        super().__init__(
            "celery",
            "--app=fintech_core.beat",
            "beat",
            f"--schedule={folder / 'schedule'}",
            "--pidfile=",
            log=folder / "beat.log",
            environment=environment,
        )


def wait_until(holds, seconds: float, explain=lambda: "") -> None:
    """Poll until `holds()`; fail with what `explain()` says."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {explain()[-3000:]}")
        time.sleep(0.1)
