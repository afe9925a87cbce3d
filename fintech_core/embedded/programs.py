"""The commands of the three processes: `make bench` measures what `make run` serves with."""

from pathlib import Path

from fintech_core.embedded.supervisor import python

# Celery warns of root in eight lines; here it cannot be helped, and it is one's own machine.
_CELERY = ("-W", "ignore:::celery.platforms", "-m", "celery", "-A")


def web(port: int | str) -> list[str]:
    """The web server, on 127.0.0.1 alone."""
    return python(
        "-m", "gunicorn", "--config", "fintech_core/gunicorn_conf.py",
        "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "4",
        "fintech_core.wsgi:application",
    )  # fmt: skip


def worker() -> list[str]:
    """One Celery worker, of two processes."""
    return python(*_CELERY, "fintech_core", "worker", "--loglevel", "INFO", "--concurrency", "2")


def beat(folder: Path) -> list[str]:
    """The scheduler; it remembers in `folder` what it did when."""
    return python(
        *_CELERY, "fintech_core.beat", "beat", "--loglevel", "INFO", "--pidfile=",
        "--schedule", str(folder / "celerybeat-schedule"),
    )  # fmt: skip
