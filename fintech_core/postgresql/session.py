"""The driver's connection and cursor: a statement may wait for the next one to take it along."""

import time
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any
from weakref import WeakSet

from psycopg2 import extensions

BEGIN = b"BEGIN"
TOGETHER = b"\n; "  # on a line of its own, for a statement may end with a comment


class Session(extensions.connection):
    """A connection, and the statements that wait to be sent with the next one.

    psycopg2 stays in autocommit mode, for otherwise it sends BEGIN by itself, in a round trip of
    its own. Here BEGIN waits like any other statement.
    """

    # Since when PostgreSQL owes an answer (time.monotonic); None: it owes none. See `patience`.
    asked_at: float | None = None
    # How many seconds each statement may take beyond patience, until the transaction ends.
    time_given: float = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: list[bytes] = []
        with _being_told:
            _sessions.add(self)

    @property
    def in_transaction(self) -> bool:
        """Whether PostgreSQL is in one, or cannot be asked because the connection is lost."""
        status = self.get_transaction_status()
        return bool(status != extensions.TRANSACTION_STATUS_IDLE)

    def keep_waiting(self, query: str, parameters: Any) -> None:
        """Have a statement sent with the next one; at once, if the driver begins transactions."""
        with self.cursor() as cursor:
            if self.autocommit:
                self.waiting.append(cursor.mogrify(query, parameters))
            else:
                cursor.execute(query, parameters)

    def forget_waiting(self) -> None:
        """What waits will not be sent; but BEGIN is still owed, if it is."""
        self.waiting = [statement for statement in self.waiting if statement is BEGIN]

    def send_waiting(self) -> None:
        """Send what waits, for what comes next cannot take it along."""
        if self.waiting:
            last = self.waiting.pop()
            with self.cursor() as cursor:
                cursor.execute(last)


_sessions: WeakSet[Session] = WeakSet()
_being_told = Lock()


def sessions() -> list[Session]:
    """All of this process, of whichever thread."""
    with _being_told:
        return list(_sessions)


def _awaited(call: Callable[..., Any]) -> Callable[..., Any]:
    """What waits for PostgreSQL, and tells its session since when."""

    @wraps(call)
    def awaited(self: extensions.cursor, *args: Any, **options: Any) -> Any:
        session: Any = self.connection
        session.asked_at = time.monotonic()
        try:
            return call(self, *args, **options)
        finally:
            session.asked_at = None

    return awaited


class AwaitingCursor(extensions.cursor):
    """The driver's. Only those with a name wait for what they fetch, which Django does by many."""

    execute = _awaited(extensions.cursor.execute)
    executemany = _awaited(extensions.cursor.executemany)
    callproc = _awaited(extensions.cursor.callproc)
    copy_from = _awaited(extensions.cursor.copy_from)
    copy_to = _awaited(extensions.cursor.copy_to)
    copy_expert = _awaited(extensions.cursor.copy_expert)
    fetchmany = _awaited(extensions.cursor.fetchmany)


class Cursor(AwaitingCursor):
    """Takes along what waits. The answer is that of the last statement."""

    def execute(self, query: Any, parameters: Any = None) -> None:
        session = self.connection
        if self.name:  # it is declared by a statement that takes nothing along
            session.send_waiting()
        if not session.waiting:
            return super().execute(query, parameters)
        text = self.mogrify(query, parameters)  # may refuse, and then everything still waits
        waiting, session.waiting = session.waiting, []
        try:
            super().execute(TOGETHER.join([*waiting, text]))
        except BaseException:
            if waiting[0] is BEGIN and not session.in_transaction:  # not even that was done
                session.waiting = waiting
            raise

    def executemany(self, *args: Any) -> None:
        self.connection.send_waiting()
        super().executemany(*args)

    def callproc(self, *args: Any) -> Any:
        self.connection.send_waiting()
        return super().callproc(*args)

    def copy_from(self, *args: Any, **options: Any) -> None:
        self.connection.send_waiting()
        super().copy_from(*args, **options)

    def copy_to(self, *args: Any, **options: Any) -> None:
        self.connection.send_waiting()
        super().copy_to(*args, **options)

    def copy_expert(self, *args: Any, **options: Any) -> None:
        self.connection.send_waiting()
        super().copy_expert(*args, **options)
