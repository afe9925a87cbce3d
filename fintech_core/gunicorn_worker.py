"""gunicorn's worker with threads, which leaves to others what it could not serve at once."""

import select
import time
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from gunicorn.http.errors import (
    ConfigurationProblem,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

# How often a process that is busy looks whether somebody waits whom no other one takes.
PATIENCE_SECONDS = 0.05
# How long a thread waits for the next request of a client whom it has just answered.
NEXT_REQUEST_MS = 2
# What gunicorn can only find fault with itself for.
_OURS = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)


class FairWorker(ThreadWorker):
    """Takes a new connection while one of its threads is free, and else now and then.

    gunicorn's own takes whatever it sees first, and keeps it. Of eight connections that came
    together one process often took all eight, and the other one idled for as long as they lasted.
    A free process takes them first here, because it looks at once. Nobody waits for ever, for the
    busy ones look as well: those who are connected and always ask could keep all threads busy.
    """

    _looked_at = 0.0
    _was_told_to_stop = False

    def init_process(self) -> None:
        """gunicorn looks for a setting forty times a request, by two calls each."""
        self.cfg.__dict__.update({name: each.get() for name, each in self.cfg.settings.items()})
        super().init_process()

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
        return self._in_threads >= self.cfg.threads

    @property
    def _in_threads(self) -> int:
        """How many connections have a thread, or wait for one."""
        return int(self.nr_conns - len(self.keepalived_conns) - len(self.pending_conns))

    def handle(self, conn: Any) -> Any:
        """Serve a client that asks again at once, too, while nobody else waits for the thread.

        To hand the connection back to the main thread, which polls it and hands it over again,
        takes a third of what gunicorn does for a request. Now and then it is done all the same,
        for it is then that the main thread looks who else is there.
        """
        while (is_kept := super().handle(conn)) is True:
            if self._somebody_waits or not _asks_again(conn):
                break
        return is_kept

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """What is no request is refused like everything else: gunicorn's own answer is HTML."""
        if not isinstance(exc, ParseException) or isinstance(exc, _OURS):
            super().handle_error(req, client, addr, exc)
            return
        # What it says quotes the client, and so perhaps a secret.
        reason = type(exc).__name__
        self.log.warning("Invalid request from ip=%s: %s", addr[0] if addr else "", reason)
        if req is not None:  # it is answered; what came after was to be thrown away
            return
        with structlog.contextvars.bound_contextvars(request_id=uuid4().hex):
            try:
                write_nonblock(client, _refusal(exc))
            except OSError:
                self.log.debug("Failed to send error message.")

    @property
    def _somebody_waits(self) -> bool:
        """For this thread, to be told to stop, or perhaps to be taken, as nobody has looked."""
        unseen = not self._accepting and time.monotonic() - self._looked_at >= PATIENCE_SECONDS
        return unseen or not self.alive or self._in_threads > self.cfg.threads

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


def _asks_again(conn: Any) -> bool:
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return bool(poll.poll(NEXT_REQUEST_MS))


def _refusal(exc: ParseException) -> bytes:
    """Status line, headers and problem document (RFC 9457)."""
    # Django, which this needs, is set up when the application is loaded, later than this module.
    from fintech_core.exceptions import current_request_id, plain_problem

    if isinstance(exc, LimitRequestLine):
        problem = plain_problem(414, "The request line is too long.", code="payload_too_large")
    elif isinstance(exc, LimitRequestHeaders):
        problem = plain_problem(431, "The headers are too long.", code="payload_too_large")
    else:
        problem = plain_problem(400, "This is no HTTP request as it is read here.", "parse_error")
    answer = problem.as_response(None)
    answer["Connection"] = "close"
    answer["Content-Length"] = str(len(answer.content))
    answer["X-Request-ID"] = current_request_id() or ""
    status = HTTPStatus(problem.status)
    line = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    return line + answer.serialize_headers() + b"\r\n\r\n" + answer.content
