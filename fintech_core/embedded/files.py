"""Small files that hold passwords and state: private from their first byte, never half-written."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from typing import Any


def write_private(path: Path, content: str) -> None:
    """Write through a neighbour with mode 0600 and a rename, so a crash leaves old or new."""
    neighbour = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    neighbour.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty when the file is missing or was cut short."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Store `content`, readable by its owner alone."""
    write_private(path, json.dumps(content, indent=2) + "\n")


def remembered_secret(path: Path, name: str) -> str:
    """The secret called `name` in `path`, made once and the same ever after.

    Hexadecimal, so that it needs no quoting in a URL, a configuration file or SQL.
    """
    known = read_json(path)
    if name not in known:
        known[name] = secrets.token_hex(24)
        write_json(path, known)
    return str(known[name])


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold `path` alone while the block runs; yields False when someone else holds it.

    The kernel lets go when the process ends, however it ends: there is no stale lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        flock(descriptor, LOCK_UN)
    finally:
        os.close(descriptor)
