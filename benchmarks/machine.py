"""On what a run was made: figures without it say nothing."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from fintech_core.embedded.environment import PROJECT

PACKAGES = ("Django", "djangorestframework", "gunicorn", "psycopg2-binary", "celery", "locust")


def describe() -> dict[str, str | int | float]:
    """Processor, cores that may be used, memory in GiB, kernel."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> str:
    """The commit, marked when files differ from it; empty outside a repository."""
    return _git("describe", "--always", "--abbrev=12", "--dirty")


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - our own command
            ["git", *arguments],  # noqa: S607 - wherever git is
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return answer.stdout.strip()
