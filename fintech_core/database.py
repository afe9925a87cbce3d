"""What every service needs of PostgreSQL: bounded retries, and the clock."""

import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# PostgreSQL's deadlock_detected and serialization_failure: the whole transaction was rolled
# back and may be run again from its start.
_RETRYABLE = {"40P01", "40001"}
_LOCK_NOT_AVAILABLE = "55P03"
_TRIES = 4

# How far a process's clock, which is in a row's id, may be from the database's, which dates it.
CLOCK_SLACK = timedelta(hours=1)


def _connection() -> Any:
    """This thread's. Django's `connection` looks it up anew for each of its attributes."""
    return connections[DEFAULT_DB_ALIAS]


def sqlstate(exc: BaseException) -> str:
    """PostgreSQL's error code behind a Django database error, or an empty string."""
    return str(getattr(exc.__cause__, "pgcode", None) or "")


def lock_timed_out(exc: BaseException) -> bool:
    """Whether somebody else held a lock for longer than this session waits for one."""
    return sqlstate(exc) == _LOCK_NOT_AVAILABLE


def violated_constraint(exc: BaseException) -> str:
    """The name of the constraint, unique index or trigger rule behind an IntegrityError, or ""."""
    return str(getattr(getattr(exc.__cause__, "diag", None), "constraint_name", None) or "")


def database_time() -> datetime:
    """The database's clock, now. Ask under the locks: a transaction may have waited for them."""
    [(now,)] = query("SELECT clock_timestamp()")
    return now


def lowest_id_at(moment: datetime) -> UUID:
    """No UUID of version 7 that was made at `moment` or later is lower."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def retry_on_conflict(work: Callable[[], Result]) -> Result:
    """Run a whole database transaction, again if PostgreSQL had to sacrifice it.

    `work` must own its transaction. Inside somebody else's it runs once, because a lost transaction
    can only be repeated as a whole.
    """
    if _connection().in_atomic_block:
        return work()
    for attempt in range(1, _TRIES + 1):
        try:
            return work()
        except OperationalError as exc:
            if sqlstate(exc) not in _RETRYABLE or attempt == _TRIES:
                raise
            logger.warning("transaction repeated", extra={"sqlstate": sqlstate(exc)})
            time.sleep(random.uniform(0.005, 0.02) * 2**attempt)  # noqa: S311 - jitter
    raise AssertionError("unreachable")


_travelling: ContextVar[bool] = ContextVar("travelling", default=False)


@contextmanager
def sent_together() -> Iterator[None]:
    """Let what `send_along` is given travel with the statement after it, in one round trip.

    The last ones travel with whatever ends the database transaction that this is in. After an
    exception they do not go at all, for that transaction is lost.
    """
    if _travelling.get():
        yield
        return
    token = _travelling.set(True)
    try:
        yield
    except BaseException:
        if (session := _connection().connection) is not None:
            session.forget_waiting()
        raise
    finally:
        _travelling.reset(token)


def send_along(statement: str, **parameters: Any) -> None:
    """Run one statement whose answer nobody needs: with the next one within `sent_together`."""
    connection = _connection()
    if not (_travelling.get() and connection.in_atomic_block):
        execute(statement, **parameters)
        return
    with connection.wrap_database_errors:
        connection.connection.keep_waiting(statement, parameters or None)


def query(statement: str, **parameters: Any) -> list[Any]:
    """The rows of one statement, for what is said better in SQL than through the ORM."""
    rows: list[Any] = _connection().rows_of(statement, parameters or None)
    return rows


def give_time(seconds: int | None = None) -> None:
    """Let each statement of this database transaction take so long; None: without a limit."""
    execute("SET LOCAL statement_timeout = %(milliseconds)s", milliseconds=(seconds or 0) * 1000)
    _connection().connection.time_given = seconds or math.inf


def execute(statement: str, **parameters: Any) -> None:
    """Run one statement that answers nothing."""
    with _connection().cursor() as cursor:
        cursor.execute(statement, parameters or None)
