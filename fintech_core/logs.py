"""Logging: one JSON object a line, to stdout and to a rotating file, without secrets.

Every line carries the request id, bound to the context by `RequestIdMiddleware` or by
Celery. `scrub` is the last step of every line, whoever wrote it: what looks like a token, a secret,
an email address, a phone number or an IBAN does not reach the disk.
"""

import logging
import re
import time
from pathlib import Path
from typing import Any

import structlog
from concurrent_log_handler import ConcurrentRotatingFileHandler

_SECRET_NAMES = re.compile(
    r"pass(word|wd)?$|secret|token|authorization|cookie|signature|api_key|document_number|iban|"
    r"date_of_birth|address_line|phone",
    re.IGNORECASE,
)
# What must occur for the pattern to match, the pattern, and what is written instead. Repetitions
# are bounded and most lines skip most patterns, so a hostile line costs no more than its length.
_SECRET_TEXT = [
    ("eyJ", re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+\.[\w-]+"), "[token]"),
    ("earer", re.compile(r"(?i)bearer\s{1,8}[\w.~+/=-]{8,}"), "[token]"),
    ("whsec_", re.compile(r"whsec_[\w+/=-]+"), "[secret]"),
    ("k_", re.compile(r"\b[sr]k_(?:live|test)_\w+"), "[secret]"),
    ("://", re.compile(r"(://[^:/@\s]{1,64}:)[^@\s/]{1,128}@"), r"\1[secret]@"),
    ("@", re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63}){1,8}"), "[email]"),
    ("+", re.compile(r"(?<![\w+-])\+[1-9]\d{6,14}(?!\w)"), "[phone]"),
    ("", re.compile(r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{4}){2,7}[A-Z0-9]{1,4}\b"), "[iban]"),
]


def scrub(text: str) -> str:
    """Replace whatever in `text` looks like a secret or a personal identifier."""
    for needle, pattern, replacement in _SECRET_TEXT:
        if needle in text:
            text = pattern.sub(replacement, text)
    return text


def _drop_secret_fields(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    event.pop("request", None)  # Django's own records carry it, with the query string
    for name in event:
        if _SECRET_NAMES.search(name):
            event[name] = "[removed]"
    return event


class _ScrubbedJSON:
    """Renders the event and scrubs the finished line, tracebacks included."""

    _render = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)

    def __call__(self, logger: Any, name: str, event: dict[str, Any]) -> str:
        return scrub(str(self._render(logger, name, event)))


class _OnceFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders a record once, however many places it is written to."""

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = getattr(record, "rendered", None)
        if line is None:
            line = record.rendered = super().format(record)
        return line


class SharedFileHandler(ConcurrentRotatingFileHandler):
    """Appends to a file that other processes append to, too, and rotates it.

    A line is appended by one write, which needs no lock. Once in `LOOK_SECONDS` a line is written
    with one, and then it is asked whether the file is full, or another process has rotated it;
    lines until then are in the file that was rotated.
    """

    LOOK_SECONDS = 1.0

    _looks_again_at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._looks_again_at:
            self._looks_again_at = now + self.LOOK_SECONDS
            super().emit(record)
            return
        try:
            self.do_write(self.format(record))
        except Exception:
            self.handleError(record)


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_structlog() -> None:
    """Send structlog's own loggers through the standard library's handlers."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logging_config(log_dir: str, level: str = "INFO") -> dict[str, Any]:
    """A `dictConfig`: stdout always, and a rotating file in `log_dir` unless it is empty."""
    handlers: dict[str, dict[str, Any]] = {
        "stdout": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "json",
        }
    }
    if log_dir:
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        handlers["file"] = {
            "class": "fintech_core.logs.SharedFileHandler",
            "filename": str(Path(log_dir) / "fintech_core.log"),
            "maxBytes": 20 * 1024 * 1024,
            "backupCount": 10,
            "encoding": "utf-8",
            "formatter": "json",
        }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": _OnceFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _drop_secret_fields,
                    # Never local variables: they hold tokens and personal data.
                    structlog.processors.ExceptionRenderer(
                        structlog.tracebacks.ExceptionDictTransformer(
                            show_locals=False, max_frames=30
                        )
                    ),
                    _ScrubbedJSON(),
                ],
            }
        },
        "handlers": handlers,
        "root": {"handlers": list(handlers), "level": level},
        "loggers": {
            "django": {"handlers": [], "level": "INFO", "propagate": True},
            # The request log says the same in one line, with the request id.
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.request": {"handlers": [], "level": "ERROR", "propagate": True},
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            "celery.app.trace": {"level": "INFO"},
            # It tells of every request, and quotes answers, which may name an account.
            "stripe": {"level": "WARNING"},
        },
    }
