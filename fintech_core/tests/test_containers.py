"""Containers, as far as they can be checked without an engine: files that agree with each other,
and the entrypoint run for real against the servers of this test run."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from django.test import Client

from fintech_core.embedded.processes import free_port
from fintech_core.tests.test_env_example import example, read_by_settings

PROJECT = Path(__file__).resolve().parents[2]
APPLICATION = ["web", "worker", "beat", "migrate"]
# The superuser is made by setup.sh, the owner's address is for `migrate` alone.
NOT_FOR_SERVING = {"DATABASE_OWNER_URL", "DJANGO_SUPERUSER_EMAIL", "DJANGO_SUPERUSER_PASSWORD"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (PROJECT / "Dockerfile").read_text()


class TestCompose:
    def test_given_the_file_when_parsed_then_all_services_are_there(
        self, compose: dict[str, Any]
    ) -> None:
        assert set(compose["services"]) == {"postgres", "redis", *APPLICATION}
        assert "version" not in compose
        assert compose["services"]["postgres"]["image"] == "postgres:15"
        assert compose["services"]["redis"]["image"] == "redis:7"

    @pytest.mark.parametrize("name", ["postgres", "redis", "web", "worker", "beat"])
    def test_given_a_lasting_service_when_it_dies_or_hangs_then_that_is_noticed(
        self, compose: dict[str, Any], name: str
    ) -> None:
        service = compose["services"][name]
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert "interval" in service["healthcheck"]

    @pytest.mark.parametrize("name", ["web", "worker", "beat"])
    def test_given_a_start_when_the_database_is_not_ready_then_the_service_waits(
        self, compose: dict[str, Any], name: str
    ) -> None:
        needs = compose["services"][name]["depends_on"]
        assert needs["postgres"]["condition"] == "service_healthy"
        assert needs["redis"]["condition"] == "service_healthy"
        assert needs["migrate"]["condition"] == "service_completed_successfully"

    @pytest.mark.parametrize("name", APPLICATION)
    def test_given_a_role_when_started_then_the_entrypoint_knows_it(
        self, compose: dict[str, Any], name: str
    ) -> None:
        assert compose["services"][name]["command"] == [name]
        assert re.search(rf"^    {name}\)$", (PROJECT / "entrypoint.sh").read_text(), re.M)

    @pytest.mark.parametrize("name", APPLICATION)
    def test_given_a_role_when_started_then_it_gets_every_variable_of_the_settings(
        self, compose: dict[str, Any], name: str
    ) -> None:
        environment = set(compose["services"][name]["environment"])
        assert read_by_settings() - NOT_FOR_SERVING - environment == set()
        assert environment - set(example()) == set()

    def test_given_the_owners_password_when_serving_then_only_migrate_has_it(
        self, compose: dict[str, Any]
    ) -> None:
        for name in ("web", "worker", "beat"):
            assert "POSTGRES_OWNER_PASSWORD" not in str(compose["services"][name])
        assert "DATABASE_OWNER_URL" in compose["services"]["migrate"]["environment"]

    def test_given_two_roles_when_connecting_then_their_names_differ(
        self, compose: dict[str, Any]
    ) -> None:
        environment = compose["services"]["migrate"]["environment"]
        owner, serving = (
            urlsplit(re.sub(r"\$\{[^}]*\}", "x", environment[name]))
            for name in ("DATABASE_OWNER_URL", "DATABASE_URL")
        )
        assert owner.username == compose["services"]["postgres"]["environment"]["POSTGRES_USER"]
        assert serving.username != owner.username
        assert serving.path == owner.path

    def test_given_volumes_when_mounted_then_each_has_a_name(self, compose: dict[str, Any]) -> None:
        used = {
            mount.split(":")[0]
            for service in compose["services"].values()
            for mount in service.get("volumes", [])
        }
        assert used == set(compose["volumes"])

    @pytest.mark.parametrize("name", APPLICATION)
    def test_given_a_container_when_broken_into_then_it_can_change_little(
        self, compose: dict[str, Any], name: str
    ) -> None:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]

    @pytest.mark.parametrize("name", ["postgres", "redis"])
    def test_given_a_server_when_it_misbehaves_then_within_limits(
        self, compose: dict[str, Any], name: str
    ) -> None:
        service = compose["services"][name]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["pids_limit"]

    def test_given_redis_when_started_then_its_password_is_no_argument(
        self, compose: dict[str, Any], tmp_path: Path
    ) -> None:
        # Given
        entrypoint = tmp_path / "docker-entrypoint.sh"
        entrypoint.write_text('#!/bin/sh\necho "arguments: $*"\ncat\n')
        entrypoint.chmod(0o755)
        shell, option, script = compose["services"]["redis"]["command"]
        # When
        started = subprocess.run(
            [shell, option, script.replace("$$", "$")],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDISCLI_AUTH": "hidden"},
            capture_output=True,
            text=True,
            check=True,
        )
        # Then
        arguments, configuration = started.stdout.splitlines()
        assert "hidden" not in arguments
        assert "noeviction -" in arguments
        assert configuration == "requirepass hidden"


class TestDockerfile:
    def test_given_the_image_when_built_then_in_stages_and_run_by_a_fixed_number(
        self, dockerfile: str
    ) -> None:
        assert len(re.findall(r"^FROM python:3\.11-slim AS ", dockerfile, re.M)) == 2
        assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", dockerfile, re.M)

    def test_given_the_image_when_built_then_without_what_only_development_needs(
        self, dockerfile: str
    ) -> None:
        assert "requirements-dev" not in dockerfile
        assert "--require-hashes -r requirements.txt" in dockerfile
        ignored = (PROJECT / ".dockerignore").read_text().splitlines()
        assert {".env", ".git", ".local", ".venv", "**/tests", "requirements-dev.*"} <= set(ignored)

    def test_given_the_image_when_running_then_its_health_is_asked_for(
        self, dockerfile: str
    ) -> None:
        assert re.search(r"^HEALTHCHECK ", dockerfile, re.M)
        assert '"/app/entrypoint.sh", "healthy", "web"' in dockerfile
        assert Client().get("/api/health/live/").status_code == 200

    def test_given_operations_when_inside_then_a_database_client_is_there(
        self, dockerfile: str
    ) -> None:
        assert "postgresql-client" in dockerfile


Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def entrypoint(tmp_path: Path) -> Iterator[Launch]:
    """Starts entrypoint.sh; whatever is still running at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str, **changes: str | None) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHON": sys.executable, "TMPDIR": str(tmp_path), **changes}
        process = subprocess.Popen(
            ["/bin/sh", str(PROJECT / "entrypoint.sh"), *arguments],
            env={name: value for name, value in environment.items() if value is not None},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def migrated(django_db_setup: None) -> None:
    """The database of this test run, whose address is in the environment."""


def answers(url: str, seconds: float = 60) -> bool:
    """Patient: a start takes seconds, and other tests may have both processors."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.1)
    return False


class TestEntrypoint:
    def test_given_a_migrated_database_when_web_starts_then_it_serves_until_sigterm(
        self, entrypoint: Launch, migrated: None
    ) -> None:
        # Given
        port = str(free_port())
        # When
        web = entrypoint("web", PORT=port, DATABASE_OWNER_URL=None)
        # Then
        assert answers(f"http://127.0.0.1:{port}/api/health/")
        asked = (entrypoint("healthy", "web", PORT=port, ALLOWED_HOSTS="localhost") for _ in "123")
        assert any(each.wait(10) == 0 for each in asked)  # a busy machine; Docker tries as often
        web.send_signal(signal.SIGTERM)
        assert web.wait(10) == 0

    def test_given_nobody_listening_when_asked_for_health_then_it_says_no(
        self, entrypoint: Launch
    ) -> None:
        assert entrypoint("healthy", "web", PORT=str(free_port())).wait(10) != 0

    def test_given_a_migrated_database_when_the_worker_starts_then_it_answers_until_sigterm(
        self, entrypoint: Launch, migrated: None
    ) -> None:
        # When
        worker = entrypoint("worker", "--concurrency", "1", DATABASE_OWNER_URL=None)
        # Then
        assert worker.stdout is not None
        assert any("ready." in line for line in worker.stdout)
        assert entrypoint("healthy", "worker").wait(20) == 0
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0

    def test_given_the_owners_address_when_migrating_then_it_ends_well(
        self, entrypoint: Launch, migrated: None
    ) -> None:
        assert entrypoint("migrate").wait(30) == 0

    def test_given_no_postgresql_when_starting_then_it_waits_and_says_for_what(
        self, entrypoint: Launch
    ) -> None:
        # Given
        port = free_port()
        away = f"postgres://fintech_app:hidden@127.0.0.1:{port}/fintech"
        # When
        web = entrypoint(
            "web", DATABASE_URL=away, DATABASE_OWNER_URL=None, DATABASE_WAIT_SECONDS="1"
        )
        output, _ = web.communicate(timeout=20)
        # Then
        assert web.returncode == 1
        assert f"waiting for PostgreSQL at 127.0.0.1:{port}" in output
        assert "did not answer within 1 s" in output
        assert "hidden" not in output

    def test_given_missing_migrations_when_starting_without_the_owner_then_it_waits_for_them(
        self, entrypoint: Launch
    ) -> None:
        # Given
        empty = os.environ["DATABASE_URL"].rsplit("/", 1)[0] + "/postgres"
        # When
        worker = entrypoint(
            "worker", DATABASE_URL=empty, DATABASE_OWNER_URL=None, DATABASE_WAIT_SECONDS="1"
        )
        output, _ = worker.communicate(timeout=30)
        # Then
        assert worker.returncode == 1
        assert "waiting for the migrations" in output

    @pytest.mark.parametrize("name", ["DATABASE_WAIT_SECONDS", "WEB_CONCURRENCY", "WEB_THREADS"])
    def test_given_no_number_when_starting_then_one_line_names_the_variable(
        self, entrypoint: Launch, name: str
    ) -> None:
        process = entrypoint("web", **{name: "1x"})
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 2
        assert output.splitlines() == [f"entrypoint: {name} must be a whole number, and is '1x'."]

    def test_given_an_unknown_role_when_starting_then_it_names_the_known_ones(
        self, entrypoint: Launch
    ) -> None:
        process = entrypoint("wrong")
        output, _ = process.communicate(timeout=10)
        assert process.returncode == 2
        assert "web worker beat migrate manage" in output
