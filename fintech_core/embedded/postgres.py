"""A private PostgreSQL: SCRAM passwords, TCP on 127.0.0.1 alone, no Unix sockets."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psycopg2
from psycopg2 import extensions
from psycopg2.sql import SQL, Identifier, Literal

from fintech_core.embedded.accounts import find_quarters, relocated_folder
from fintech_core.embedded.binaries import postgres_folder
from fintech_core.embedded.errors import EmbeddedError
from fintech_core.embedded.files import write_private
from fintech_core.embedded.processes import (
    ProcessBook,
    began,
    command_of,
    end,
    end_of_file,
)
from fintech_core.embedded.servers import PrivateServer

SUPERUSER = "postgres"
ORDERLY = ((signal.SIGINT, 5.0), (signal.SIGQUIT, 3.0))  # PostgreSQL: "fast", then "immediate"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Only a crash of the whole machine can hurt data without these; the tests throw theirs away. A
# `synchronous_commit=off` would lose commits on a mere kill -9.
HASTY_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(PrivateServer):
    """One cluster in one folder. `durable=False` is for tests: faster, and still survives kill -9.

    with PostgresServer(tmp_path) as server:
        server.create_role("app")
        server.create_database("app", owner="app")
        psycopg2.connect(server.url_for("app", "app"))
    """

    name: ClassVar[str] = "PostgreSQL"
    stop_signals = ORDERLY

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        book: ProcessBook | None = None,
        durable: bool = True,
    ) -> None:
        super().__init__(folder, port=port, book=book)
        quarters = find_quarters(self.folder, postgres_folder())
        self.account, self.programs = quarters.account, quarters.programs
        self.data = quarters.folder / "data"
        self.settings = SETTINGS if durable else SETTINGS | HASTY_SETTINGS

    @property
    def url(self) -> str:
        """The superuser's address of the maintenance database."""
        return self.url_for(SUPERUSER, "postgres")

    def url_for(self, role: str, database: str) -> str:
        """The address of `database` for `role`."""
        return f"postgres://{role}:{self.password(role)}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the cluster if there is none, end a forgotten server on it, start."""
        if self.running:
            return
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._refuse_other_version()
        self._end_forgotten()
        super().start()

    def answers(self) -> bool:
        """Whether the superuser can connect."""
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {**self.settings, "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self._program("postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we then stop it in order
                cwd=self.data,
                **self.account.popen_options(),  # type: ignore[call-overload]
            )

    def _program(self, name: str) -> list[str]:
        return [*self.account.prefix, str(self.programs / name)]

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there: an interrupted attempt leaves
        nothing that looks like a cluster."""
        unfinished = self.data.with_name("data.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        secret = self.data.with_name("initial-password")
        write_private(secret, self.password(SUPERUSER))
        self.account.give(secret)
        try:
            self._run_initdb(unfinished, secret)
        finally:
            secret.unlink()
        unfinished.rename(self.data)

    def _run_initdb(self, target: Path, secret: Path) -> None:
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        command = [
            *self._program("initdb"),
            f"--pgdata={target}",
            f"--username={SUPERUSER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={locale}",
            "--no-instructions",
            "--no-sync",
        ]
        with self.log.open("ab") as log:
            made = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
                cwd=target.parent,
                **self.account.popen_options(),  # type: ignore[call-overload]
            )
        if made.returncode != 0:
            raise EmbeddedError(f"initdb failed:\n{end_of_file(self.log)}")

    def _refuse_other_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        shown = subprocess.run(
            [str(self.programs / "postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        ours = shown.stdout.split()[2].partition(".")[0]
        if ours != made_by:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {made_by}, and only {ours} is here.\n"
                f"Install {made_by} again, or start afresh with `make clean`."
            )

    def _end_forgotten(self) -> None:
        """A server whose runner was killed still has our data: stop it.

        Its pid file may also name a stranger who got the number since (after a reboot, or in a
        restarted container); PostgreSQL would then refuse to start, so the file goes.
        """
        pid_file = self.data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        identity = began(pid)
        command = command_of(pid)
        if identity and "postgres" in command and str(self.data) in command:
            end(pid, identity, (*ORDERLY, (signal.SIGKILL, 3.0)))
        elif identity:
            pid_file.unlink(missing_ok=True)

    @contextmanager
    def superuser(self) -> Iterator[extensions.connection]:
        """A connection outside any transaction, as CREATE DATABASE needs it."""
        session = psycopg2.connect(self.url)
        session.autocommit = True
        try:
            yield session
        finally:
            session.close()

    def create_role(self, role: str) -> None:
        """A login without any privilege of its own; its password is made and remembered."""
        with self.superuser() as session, session.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
            verb = "ALTER" if cursor.fetchone() else "CREATE"
            cursor.execute(
                SQL("{} ROLE {} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD {}").format(
                    SQL(verb), Identifier(role), Literal(self.password(role))
                )
            )

    def create_database(self, database: str, *, owner: str) -> None:
        """A database that belongs to `owner`, if it is not there yet."""
        with self.superuser() as session, session.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
            if not cursor.fetchone():
                cursor.execute(
                    SQL("CREATE DATABASE {} OWNER {}").format(
                        Identifier(database), Identifier(owner)
                    )
                )


def wipe_postgres(folder: Path) -> None:
    """Remove a cluster's folder, and the one elsewhere that `nobody` may have needed."""
    if os.geteuid() == 0:
        shutil.rmtree(relocated_folder(folder), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
