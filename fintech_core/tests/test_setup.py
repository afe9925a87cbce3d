"""`./setup.sh` and the Makefile's targets for containers, with a stand-in for `docker`."""

import base64
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from fintech_core.tests.test_env_example import example

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of what setup needs, on a path with a space in it."""
    copy = tmp_path / "a copy"
    copy.mkdir()
    for name in ("setup.sh", ".env.example", "Makefile"):
        shutil.copy(PROJECT / name, copy)
    return copy


def run(folder: Path, *command: str, engine: bool) -> "subprocess.CompletedProcess[str]":
    """Run with a `docker` that writes down what it is told, and answers only if `engine`."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    docker = programs / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >>"{folder}/asked"\nexit {0 if engine else 1}\n')
    docker.chmod(0o755)
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def written(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class TestSetup:
    def test_given_no_engine_when_set_up_then_it_offers_make_run(self, folder: Path) -> None:
        done = run(folder, "./setup.sh", engine=False)
        assert done.returncode == 0
        assert "make run" in done.stdout

    def test_given_no_env_when_set_up_then_every_secret_is_fresh_and_valid(
        self, folder: Path
    ) -> None:
        # When
        run(folder, "./setup.sh", engine=False)
        # Then
        env = written(folder)
        assert set(env) == set(example())
        assert len(env["SECRET_KEY"]) >= 50
        assert len(env["JWT_SIGNING_KEY"]) >= 32
        assert len(base64.b64decode(env["LEDGER_SIGNING_KEY"], validate=True)) == 32
        assert len(base64.b64decode(env["SANDBOX_WEBHOOK_SECRET"].removeprefix("whsec_"))) == 32
        Fernet(env["FIELD_ENCRYPTION_KEYS"])
        assert env["POSTGRES_OWNER_PASSWORD"] != env["POSTGRES_APP_PASSWORD"] != ""

    def test_given_a_new_env_when_looking_at_it_then_only_its_owner_may_read_it(
        self, folder: Path
    ) -> None:
        run(folder, "./setup.sh", engine=False)
        assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
        assert list((folder / ".local").iterdir()) == []

    def test_given_an_env_when_set_up_again_then_it_is_left_alone(self, folder: Path) -> None:
        (folder / ".env").write_text("SECRET_KEY=mine\n")
        run(folder, "./setup.sh", engine=False)
        assert (folder / ".env").read_text() == "SECRET_KEY=mine\n"

    def test_given_an_engine_when_set_up_then_it_builds_starts_and_makes_a_superuser(
        self, folder: Path
    ) -> None:
        # When
        done = run(folder, "./setup.sh", engine=True)
        # Then
        asked = (folder / "asked").read_text()
        assert done.returncode == 0, done.stderr
        assert asked.index("compose build") < asked.index("compose up") < asked.index("createsuper")
        assert "compose ps" in asked
        assert written(folder)["DJANGO_SUPERUSER_PASSWORD"] not in asked + done.stdout


class TestMakefile:
    def test_given_nothing_when_typing_make_then_every_target_is_explained(
        self, folder: Path
    ) -> None:
        shown = run(folder, "make", engine=False).stdout
        for target in [
            "run",
            "test",
            "check",
            "setup",
            "build",
            "up",
            "down",
            "restart",
            "logs",
            "migrations",
            "migrate",
            "shell",
            "superuser",
            "clean",
            "help",
            "seed",
            "verify",
            "format",
            "requirements",
        ]:
            assert f"  {target} " in shown

    @pytest.mark.parametrize("target", ["build", "up", "down", "restart"])
    def test_given_no_engine_when_containers_are_asked_for_then_it_says_what_to_do(
        self, folder: Path, target: str
    ) -> None:
        done = run(folder, "make", target, engine=False)
        assert done.returncode != 0
        assert "no Docker engine" in done.stderr
        assert "make run" in done.stderr

    def test_given_an_engine_when_starting_then_compose_waits_until_healthy(
        self, folder: Path
    ) -> None:
        assert run(folder, "make", "up", engine=True).returncode == 0
        assert "compose up --detach --wait" in (folder / "asked").read_text()
