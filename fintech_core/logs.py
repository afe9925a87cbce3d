"""Logging: one JSON object a line, to stdout and to a rotating file, without secrets.

Every line carries the request id, bound to the context by `RequestIdMiddleware` or by
Celery. `scrub` is the last step of every line, whoever wrote it: what looks like a token, a secret,
an email address, a phone number or an IBAN does not reach the disk.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from concurrent_log_handler import ConcurrentRotatingFileHandler
from structlog.contextvars import get_contextvars

# No line says by which thread or program it was written, so nobody need look it up:
# https://docs.python.org/3/howto/logging.html#optimization
logging.logThreads = logging.logMultiprocessing = False

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
    # It begins with a letter and looks back, as one is found sooner than a word's beginning is.
    ("", re.compile(r"[A-Z](?<!\w[A-Z])[A-Z]\d\d(?:[A-Z0-9]{4}){2,7}[A-Z0-9]{1,4}\b"), "[iban]"),
]


def scrub(text: str) -> str:
    """Replace whatever in `text` looks like a secret or a personal identifier."""
    for needle, pattern, replacement in _SECRET_TEXT:
        if needle in text:
            text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=1024)
def _names_a_secret(field: str) -> bool:
    return _SECRET_NAMES.search(field) is not None


# Where a record keeps its line.
_LINE = "_fintech_core_line"
# What every record has; Django's own carry the request as well, with the query string.
_NOT_SHOWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "request", _LINE}
# Never local variables: they hold tokens and personal data.
_tell_exception = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
)
_as_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


class LineFormatter(logging.Formatter):
    """Renders a record once, however many places it is written to; tracebacks are scrubbed, too."""

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = getattr(record, _LINE, None)
        if line is None:
            line = _line_of(record)
            setattr(record, _LINE, line)
        return line


def _line_of(record: logging.LogRecord) -> str:
    """Never raises: logging would then print the arguments as they are, secrets included."""
    try:
        return scrub(_as_json(_fields(record)))
    except Exception as failure:
        said = {"event": str(record.msg)[:1000] if isinstance(record.msg, str) else "?"}
        said |= {"level": record.levelname.lower(), "logger": str(record.name)}
        return scrub(_as_json(said | {"not_rendered": type(failure).__name__}))


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: dict[str, Any] = {"event": ""} | get_contextvars()
    fields["event"] = record.getMessage()
    if record.stack_info:
        fields["stack_info"] = record.stack_info
    fields |= {"level": record.levelname.lower(), "logger": record.name}
    fields |= {name: value for name, value in vars(record).items() if name not in _NOT_SHOWN}
    for name in fields:
        if _names_a_secret(name):
            fields[name] = "[removed]"
    fields["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if record.exc_info:
        return _tell_exception(None, "", fields | {"exc_info": record.exc_info})
    return fields


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
        "formatters": {"json": {"()": LineFormatter}},
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
