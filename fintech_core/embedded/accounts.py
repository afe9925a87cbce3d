"""Under whose name PostgreSQL runs. It refuses root; we often are root (containers, CI)."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fintech_core.embedded.errors import EmbeddedError

NOBODY = 65534
LASTING_FOLDER = Path("/var/tmp")  # noqa: S108 - only root gets here; `relocated` checks owner
AS_SOMEBODY_ELSE = ("unshare", "-U", "--map-user=1000", "--map-group=1000", "--")


@dataclass(frozen=True)
class Account:
    """How to start a program so that it is not root.

    `prefix` is a command to put in front; `uid` a user to become. Neither: as we are.
    """

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def popen_options(self) -> dict[str, object]:
        """Keyword arguments for `subprocess` that make the change of user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Hand a file or folder over to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_use(self, folder: Path, program: Path) -> bool:
        """Whether it can write into `folder` and run `program`: parents may be closed to it."""
        question = 'test -w "$0" && "$1" --version'
        try:
            answer = subprocess.run(
                [*self.prefix, "/bin/sh", "-c", question, str(folder), str(program)],
                capture_output=True,
                check=False,
                timeout=10,
                cwd="/",
                **self.popen_options(),  # type: ignore[call-overload]
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return bool(answer.returncode == 0)


@dataclass(frozen=True)
class Quarters:
    """An account together with a folder it may write to and programs it may run."""

    account: Account
    folder: Path
    programs: Path


def find_quarters(folder: Path, programs: Path) -> Quarters:
    """The first of these that works on this machine; creates `folder`.

    1. Not root: as we are.
    2. The owner of the project's folder, when that is not root (`sudo make run`).
    3. A user namespace: PostgreSQL sees user 1000, the files stay root's. Some containers forbid.
    4. `nobody`, in the folder; if a parent folder is closed to it, elsewhere (see `_relocated`).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return Quarters(Account(), folder, programs)
    for account in _candidates(folder):
        account.give(folder)
        if account.can_use(folder, programs / "postgres"):
            return Quarters(account, folder, programs)
    return _relocated(folder, programs)


def _candidates(folder: Path) -> list[Account]:
    owner = folder.parent.stat()
    return [
        *([Account(uid=owner.st_uid, gid=owner.st_gid)] if owner.st_uid != 0 else []),
        *([Account(prefix=AS_SOMEBODY_ELSE)] if shutil.which(AS_SOMEBODY_ELSE[0]) else []),
        Account(uid=NOBODY, gid=NOBODY),
    ]


def relocated_folder(folder: Path) -> Path:
    """Where `nobody` keeps the data of `folder` when it cannot reach it."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return LASTING_FOLDER / f"fintech-core-{name}"


def _relocated(folder: Path, programs: Path) -> Quarters:
    """A folder of `nobody`'s own on an open path, with its own copy of the programs if needed."""
    account = Account(uid=NOBODY, gid=NOBODY)
    home = relocated_folder(folder)
    if not os.path.lexists(home):
        home.mkdir(mode=0o700)
        account.give(home)
    if home.is_symlink() or home.stat().st_uid != NOBODY:
        raise EmbeddedError(f"{home} belongs to somebody else; remove it.")
    if account.can_use(home, programs / "postgres"):
        return Quarters(account, home, programs)
    own = home / programs.parent.name
    shutil.copytree(programs.parent, own, symlinks=True, dirs_exist_ok=True)
    for path in [own, *own.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if account.can_use(home, own / programs.name / "postgres"):
        return Quarters(account, home, own / programs.name)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and none of the other ways works here.\n"
        "Run this as an ordinary user, or name a server with DATABASE_URL."
    )
