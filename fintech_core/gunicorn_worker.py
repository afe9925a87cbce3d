"""gunicorn's worker with threads, which leaves to others what it could not serve at once."""

from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class FairWorker(ThreadWorker):
    """Takes a new connection only while one of its threads is free.

    gunicorn's own takes whatever it sees first, and keeps it. Of eight connections that came
    together one process often took all eight, and the other one idled for as long as they lasted.
    """

    def set_accept_enabled(self, enabled: bool) -> None:
        """gunicorn asks again after every event, so also when a thread has become free."""
        super().set_accept_enabled(enabled and not self._is_busy)

    def enqueue_req(self, conn: Any) -> None:
        super().enqueue_req(conn)
        if self._is_busy:
            self.set_accept_enabled(False)

    @property
    def _is_busy(self) -> bool:
        waiting = len(self.keepalived_conns) + len(self.pending_conns)
        return bool(self.nr_conns - waiting >= self.cfg.threads)
