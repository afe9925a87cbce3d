"""What every service needs of PostgreSQL: bounded retries, and the clock."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import OperationalError, connection

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# PostgreSQL's deadlock_detected and serialization_failure: the whole transaction was rolled
# back and may be run again from its start.
_RETRYABLE = {"40P01", "40001"}
_TRIES = 4


def sqlstate(exc: BaseException) -> str:
    """PostgreSQL's error code behind a Django database error, or an empty string."""
    return str(getattr(exc.__cause__, "pgcode", None) or "")


def violated_constraint(exc: BaseException) -> str:
    """The name of the constraint, unique index or trigger rule behind an IntegrityError, or ""."""
    return str(getattr(getattr(exc.__cause__, "diag", None), "constraint_name", None) or "")


def retry_on_conflict(work: Callable[[], Result]) -> Result:
    """Run a whole database transaction, again if PostgreSQL had to sacrifice it.

    `work` must own its transaction. Inside somebody else's it runs once, because a lost transaction
    can only be repeated as a whole.
    """
    if connection.in_atomic_block:
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
