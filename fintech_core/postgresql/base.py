"""See the package. Django looks for a `DatabaseWrapper` in a module of this name."""

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Before each request Django asks whether the connection that it kept still works."""

    def is_usable(self) -> bool:
        """Whether the server has not hung up: nobody writes to an idle connection but to end it.

        Django would ask with a statement. What dies between the question and the first statement is
        noticed by neither, and is a 503 in both cases.
        """
        if self.connection is None or self.connection.closed:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)
