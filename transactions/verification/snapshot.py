"""One moment of the database, seen by several connections, so that several processors can check."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from django.db import connections, transaction

from fintech_core.database import execute, query

Task = TypeVar("Task")
Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)  # each waits for a connection of its own


@contextmanager
def shared_snapshot() -> Iterator[str]:
    """Read as of now, until the end of the block. Gives a name under which others see the same."""
    with transaction.atomic(durable=True):
        execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        _settle()
        yield str(query("SELECT pg_export_snapshot()")[0][0])


def in_parallel(
    snapshot: str, work: Callable[[Task], Result], tasks: Iterable[Task]
) -> Iterator[Result]:
    """The results in the order of the tasks, of which only a few are taken ahead of time."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(_elsewhere, snapshot, work, task))
                if len(waiting) > 2 * WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _elsewhere(snapshot: str, work: Callable[[Task], Result], task: Task) -> Result:
    """On this thread's connection, which is closed afterwards: nobody else would."""
    try:
        with transaction.atomic(durable=True):
            execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            execute("SET TRANSACTION SNAPSHOT %(snapshot)s", snapshot=snapshot)
            _settle()
            return work(task)
    finally:
        connections.close_all()


def _settle() -> None:
    execute("SET LOCAL statement_timeout = 0")
    execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    execute("SET LOCAL work_mem = '64MB'")  # a chunk is sorted and joined without temporary files
    # Every query reads ranges of indexes. Statistics that are behind make the planner believe that
    # a table is empty, and read the whole of it for each row.
    execute("SET LOCAL enable_seqscan = off")
    # Neither pays for queries that look up a great many rows, each once.
    execute("SET LOCAL jit = off")
    execute("SET LOCAL enable_memoize = off")
