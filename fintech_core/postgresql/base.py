"""See the package. Django looks for a `DatabaseWrapper` in a module of this name."""

import select
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.db.backends.postgresql import base
from django.db.backends.utils import debug_transaction

from fintech_core.postgresql.session import BEGIN, TOGETHER, Cursor, Session


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with fewer round trips.

    BEGIN goes with a transaction's first statement, and COMMIT takes along what waits by then; see
    `fintech_core.database`. A transaction without statements is nothing that PostgreSQL hears of.
    """

    def get_connection_params(self) -> dict[str, Any]:
        ours = {"connection_factory": Session, "cursor_factory": Cursor}
        return super().get_connection_params() | ours

    def is_usable(self) -> bool:
        """Whether the server has not hung up: nobody writes to an idle connection but to end it.

        Before each request Django asks whether the connection that it kept still works. It would
        ask with a statement. What dies between the question and the first statement is noticed by
        neither, and is a 503 in both cases.
        """
        if self.connection is None or self.connection.closed:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def rows_of(self, statement: str, parameters: Any = None) -> list[Any]:
        """What one statement answers, as a cursor of Django's would fetch it.

        Without its layers, unless one of them has work: they take longer than the driver.
        """
        if self.queries_logged or self.execute_wrappers:
            with self.cursor() as cursor:
                cursor.execute(statement, parameters)
                return list(cursor.fetchall())
        self.close_if_health_check_failed()
        self.ensure_connection()
        self.validate_no_broken_transaction()
        with self.wrap_database_errors, self.create_cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def create_cursor(self, name: str | None = None) -> Any:
        """As Django's. One with a name is declared by a statement that takes nothing along."""
        if name:
            with self.wrap_database_errors:
                self.connection.send_waiting()
        return super().create_cursor(name)

    def _start_transaction_under_autocommit(self) -> None:
        """How Django begins an atomic block with drivers that are left in autocommit mode."""
        self.connection.waiting = [BEGIN]

    def _set_autocommit(self, autocommit: bool) -> None:
        """Django asks for autocommit again when an atomic block has ended.

        If neither COMMIT nor ROLLBACK has, because a signal came between, what follows must not
        become part of that transaction: PostgreSQL rolls back what is hung up on.
        """
        session = self.connection
        if autocommit:
            session.time_given = 0.0
        if autocommit and self._is_ours() and (session.waiting or session.in_transaction):
            self.close()
        else:
            super()._set_autocommit(autocommit)  # type: ignore[misc]  # the stubs lack it

    def _commit(self) -> None:
        if not self._is_ours():
            super()._commit()  # type: ignore[misc]
        elif self.connection.waiting == [BEGIN]:
            self.connection.waiting = []
        elif self.connection.waiting or self.connection.in_transaction:
            self._end(b"COMMIT")

    def _rollback(self) -> None:
        if not self._is_ours():
            super()._rollback()  # type: ignore[misc]
            return
        self.connection.waiting = []
        if self.connection.in_transaction:
            self._end(b"ROLLBACK")

    def _is_ours(self) -> bool:
        """Not after `set_autocommit(False)`: then the driver begins transactions, and ends them."""
        return self.connection is not None and self.connection.autocommit

    def _end(self, statement: bytes) -> None:
        with self._shown(statement), self.wrap_database_errors:
            self.connection.cursor().execute(statement)

    def _shown(self, statement: bytes) -> AbstractContextManager[None]:
        """In the log of queries, if there is one."""
        if not self.queries_logged:
            return nullcontext()
        return debug_transaction(
            self, TOGETHER.join([*self.connection.waiting, statement]).decode()
        )

    def _savepoint_rollback(self, sid: str) -> None:
        self.connection.forget_waiting()
        super()._savepoint_rollback(sid)  # type: ignore[misc]
