"""Nobody waits for ever for a PostgreSQL that stands still while its machine goes on.

PostgreSQL itself ends what takes too long, and TCP notices a machine that is gone. A server that
was paused, or whose disk has stopped, does neither: it takes what it is sent, does not answer and
does not hang up, and the driver would wait without end. So the web processes hang up. Whoever
waited is told 503, and a retry with the same key finds out what became of the first try.
"""

import logging
import os
import socket
import time
from contextlib import suppress
from threading import Thread

from psycopg2 import Error

from fintech_core.postgresql.session import Session, sessions

logger = logging.getLogger(__name__)

LOOKS_EVERY_SECONDS = 1.0


def watch(patience_seconds: float) -> None:
    """Hang up, from now on and in this process, on whoever owes an answer for longer.

    Who was given time has as much more; see `fintech_core.database.give_time`.
    """
    Thread(target=_watch, args=(patience_seconds,), name="patience", daemon=True).start()


def _watch(patience_seconds: float) -> None:
    while True:
        time.sleep(LOOKS_EVERY_SECONDS)
        try:
            hang_up_on_the_silent(patience_seconds)
        except Exception:  # whatever it was, the next look must come
            logger.exception("nobody looked whether PostgreSQL answers")


def hang_up_on_the_silent(patience_seconds: float) -> None:
    """Once: on each session of this process that has owed an answer for longer."""
    for session in sessions():
        asked_at = session.asked_at
        if asked_at is None:
            continue
        if time.monotonic() - asked_at > patience_seconds + session.time_given:
            _hang_up(session, asked_at)


def _hang_up(session: Session, asked_at: float) -> None:
    """The session's own thread finds the connection lost, as if PostgreSQL had hung up."""
    try:
        line = socket.socket(fileno=os.dup(session.fileno()))
    except (OSError, Error):  # it has just been answered, and closed
        return
    with line:
        # While one and the same question is open the line is the session's, but for the moment in
        # which the driver has found it lost and not said so yet.
        if session.asked_at == asked_at:
            logger.error(
                "PostgreSQL does not answer", extra={"seconds": time.monotonic() - asked_at}
            )
            with suppress(OSError):  # somebody else has hung up just now
                line.shutdown(socket.SHUT_RDWR)
