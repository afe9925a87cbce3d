"""One moment of the database, seen by several connections, so that several processors can check."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from fintech_core.database import execute, give_time, query

Task = TypeVar("Task")
Result = TypeVar("Result")

# Each waits for a connection of its own. One more than there are processors leaves none idle while
# another one waits for the disk, or for other programs.
WORKERS = min(4, (os.cpu_count() or 1) + 1)


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
    """The results in the order of the tasks, of which only a few are taken ahead of time.

    The first one is done here: what is short needs no other connection.
    """
    todo = iter(tasks)
    first = next(todo)
    waiting: deque[Future[Result]] = deque()
    with _threads(snapshot, work) as submit:
        try:
            waiting.extend(submit(task) for task in islice(todo, 2 * WORKERS))
            yield work(first)
            for task in todo:
                waiting.append(submit(task))
                yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _threads(
    snapshot: str, work: Callable[[Task], Result]
) -> Iterator[Callable[[Task], Future[Result]]]:
    """Each with a connection that it keeps, for a new one has to read the catalogue first. They are
    closed at the end of the block: nobody else would."""
    opened: list[BaseDatabaseWrapper] = []

    def elsewhere(task: Task) -> Result:
        if transaction.get_autocommit():
            connection = connections[DEFAULT_DB_ALIAS]
            connection.inc_thread_sharing()
            opened.append(connection)
            transaction.set_autocommit(False)
            execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            execute("SET TRANSACTION SNAPSHOT %(snapshot)s", snapshot=snapshot)
            _settle()
        return work(task)

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            yield lambda task: pool.submit(elsewhere, task)
    finally:
        for connection in opened:
            connection.close()


def _settle() -> None:
    give_time()
    execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    execute("SET LOCAL work_mem = '64MB'")  # a chunk is sorted and joined without temporary files
    # Every query reads ranges of indexes. Statistics that are behind make the planner believe that
    # a table is empty, and read the whole of it for each row.
    execute("SET LOCAL enable_seqscan = off")
    # Neither pays for queries that look up a great many rows, each once.
    execute("SET LOCAL jit = off")
    execute("SET LOCAL enable_memoize = off")
