"""gunicorn's worker with threads, which leaves to others what it could not serve at once."""

import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

# How often a process that is busy looks whether somebody waits whom no other one takes.
PATIENCE_SECONDS = 0.05


class FairWorker(ThreadWorker):
    """Takes a new connection while one of its threads is free, and else now and then.

    gunicorn's own takes whatever it sees first, and keeps it. Of eight connections that came
    together one process often took all eight, and the other one idled for as long as they lasted.
    A free process takes them first here, because it looks at once. Nobody waits for ever, for the
    busy ones look as well: those who are connected and always ask could keep all threads busy.
    """

    _looked_at = 0.0
    _was_told_to_stop = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._was_told_to_stop = True
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """gunicorn asks again after every event, so also when a thread has become free."""
        was_enabled = self._accepting
        super().set_accept_enabled(enabled and not self._is_busy)
        if self._was_told_to_stop and not self.alive:
            self._was_told_to_stop = False
            self._take_all()
        elif was_enabled:
            self._looked_at = time.monotonic()
        elif enabled and not self._accepting:
            self._look()

    def enqueue_req(self, conn: Any) -> None:
        super().enqueue_req(conn)
        if self._is_busy:
            self.set_accept_enabled(False)

    @property
    def _is_busy(self) -> bool:
        waiting = len(self.keepalived_conns) + len(self.pending_conns)
        return bool(self.nr_conns - waiting >= self.cfg.threads)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= PATIENCE_SECONDS:
            self._looked_at = now
            for listener in self.sockets:
                self.accept(listener)  # takes one, if one is there

    def _take_all(self) -> None:
        """Who came before the end is answered: nobody else will take them."""
        for listener in self.sockets:
            taken = -1
            while taken != self.nr_conns:
                taken = self.nr_conns
                self.accept(listener)
