"""The virtual environment `.venv`, built or brought up to date; run as a file by make.

The one module that must work before anything is installed: standard library only, no imports
from the project.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.sha256"
REQUIREMENTS = PROJECT / "requirements-dev.txt"

NO_PIP = """This Python cannot make virtual environments: its modules `venv` and `ensurepip` are a
package of their own on some systems. On Debian and Ubuntu: apt install python3-venv"""


def main() -> int:
    """Nothing to do in the usual case, decided in a few milliseconds."""
    if is_current():
        return 0
    with alone():  # two makes at once would spoil each other's installation
        if not is_current():
            return build()
    return 0


def wanted() -> str:
    """Of the pinned packages and the Python that they are for."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()


def is_current() -> bool:
    """Whether exactly the pinned packages were installed, to the end."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted()


@contextmanager
def alone() -> Iterator[None]:
    """One builder at a time; the others wait."""
    VENV.mkdir(exist_ok=True)
    with (VENV / "lock").open("w") as file:
        flock(file, LOCK_EX)
        yield


def build() -> int:
    """Make the environment if it is missing or for another Python, then install."""
    if not works():
        print(f"Creating {VENV.name} with Python {sys.version.split()[0]} ...", flush=True)
        for folder in ("bin", "include", "lib", "lib64"):
            remove(VENV / folder)
        if not create():
            print(NO_PIP, file=sys.stderr)
            return 1
    print("Installing the pinned packages (once; about a minute) ...", flush=True)
    code = install()
    if code == 0:
        STAMP.write_text(wanted())
    else:
        print("The packages could not be installed; the reason stands above.", file=sys.stderr)
    return code


def works() -> bool:
    """Whether `.venv` has a Python of our version with pip: it breaks when Python is upgraded."""
    probe = "import sys, pip; print(sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [PYTHON, "-c", probe], capture_output=True, text=True, check=False, timeout=60
        )
    except OSError:
        return False
    return answer.stdout.strip() == str(tuple(sys.version_info[:2]))


def remove(path: Path) -> None:
    """A folder or a link, if it is there."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def create() -> bool:
    """`python -m venv`; where `ensurepip` is missing, with the system's pip instead."""
    if subprocess.run([sys.executable, "-c", "import venv, ensurepip"], check=False).returncode:
        return create_without_pip()
    return run([sys.executable, "-m", "venv", str(VENV)]) == 0


def create_without_pip() -> bool:
    """Debian splits `ensurepip` off; a system pip can still install into an environment."""
    made = run([sys.executable, "-m", "venv", "--without-pip", str(VENV)])
    if made != 0:
        return False
    return run([sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "pip"]) == 0


def install() -> int:
    """Exactly the pinned packages, each checked against its hash."""
    return run(
        [
            str(PYTHON), "-m", "pip", "install", "--require-hashes", "--disable-pip-version-check",
            "--no-input", "--quiet", "-r", str(REQUIREMENTS),
        ]
    )  # fmt: skip


def run(command: list[str]) -> int:
    """In the foreground, its output shown; not into another environment that is switched on."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    return subprocess.run(command, env=environment, cwd=PROJECT, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
