"""One HTTP request to somebody else's server, which may be slow, broken or hostile.

No redirect is followed, no proxy of the environment is used, the connection goes to an address that
was judged, and all of it together has a deadline.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPConnection as PlainConnection
from http.client import HTTPException
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from fintech_core.webhooks.models import RESPONSE_KEPT
from fintech_core.webhooks.targets import (
    TargetRefused,
    addresses_of,
    parse_target,
    require_public,
)

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
_NOTHING_SHORTER = 0.01  # seconds; a timeout of zero would mean "do not wait"


@dataclass(frozen=True)
class Result:
    """What came of a try: the answer, or why there is none."""

    status: int | None = None
    body: str = ""
    error: str = ""
    duration_ms: int = 0

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def post(url: str, *, body: bytes, headers: Mapping[str, str]) -> Result:
    """Send it once, within `TOTAL_SECONDS`. Never raises for what the other side does.

    Of the answer the first `RESPONSE_KEPT` bytes are read, and no more.
    """
    begun = time.monotonic()
    try:
        status, answer = _exchange(url, body, headers, begun + TOTAL_SECONDS)
        result = Result(status, answer, _complaint(status))
    except (TargetRefused, HTTPError, HTTPException, OSError, ValueError) as exc:
        result = Result(error=_reason(exc, time.monotonic() - begun))
    return Result(result.status, result.body, result.error, _milliseconds_since(begun))


def _milliseconds_since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)


def _complaint(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"It answered {status}; redirects are not followed."
    return f"It answered {status}."


def _reason(exc: Exception, seconds: float) -> str:
    """In words of ours, for the endpoint's owner: an exception's own may say too much."""
    if isinstance(exc, TargetRefused):
        return str(exc)
    if isinstance(exc, TimeoutError) or seconds >= TOTAL_SECONDS - _NOTHING_SHORTER:
        return f"There was no complete answer within {TOTAL_SECONDS:g} seconds."
    cause = exc.__cause__ or exc
    if isinstance(exc, ssl.SSLCertVerificationError) or isinstance(
        cause, ssl.SSLCertVerificationError
    ):
        return "Its certificate is not valid for this host."
    if isinstance(exc, ssl.SSLError):
        return "There is no TLS connection to be had."
    if isinstance(exc, _CannotConnect):
        return "It does not take connections."
    return "The connection broke, or the answer was not HTTP."


class _CannotConnect(OSError):
    """None of the addresses took the connection."""


def _exchange(
    url: str, body: bytes, headers: Mapping[str, str], deadline: float
) -> tuple[int, str]:
    target = parse_target(url)
    addresses = addresses_of(target, seconds=min(CONNECT_SECONDS, _left(deadline)))
    with _connected(addresses, target.port, deadline) as (sock, was_cut):
        connection = _over(sock, target.host, target.port, is_tls=target.is_tls)
        try:
            connection.connect()
            connection.request(
                "POST", target.path, body=body, headers=dict(headers), preload_content=False
            )
            # The standard library's: urllib3 would unpack it, and log its URL.
            response = PlainConnection.getresponse(connection)
            answer = response.read(RESPONSE_KEPT)
        finally:
            connection.close()
        if was_cut.is_set():  # what was left of it looked like an end
            raise TimeoutError
        return response.status, _as_text(answer)


def _over(sock: socket.socket, host: str, port: int, *, is_tls: bool) -> HTTPConnection:
    if is_tls:
        return _OpenTLS(sock, host, port)
    return _Open(sock, host, port)


class _Open(HTTPConnection):
    """HTTP over a socket that is connected already, so that nothing is resolved again."""

    def __init__(self, sock: socket.socket, host: str, port: int, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._given = sock

    def _new_conn(self) -> socket.socket:
        return self._given


class _OpenTLS(_Open, HTTPSConnection):
    """With TLS on top: SNI and the certificate are those of the host name, not of the address."""

    def __init__(self, sock: socket.socket, host: str, port: int) -> None:
        super().__init__(sock, host, port, ssl_context=tls_context())


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The system's certificate authorities; names are checked, TLS 1.2 at least."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextmanager
def _connected(
    addresses: list[str], port: int, deadline: float
) -> Iterator[tuple[socket.socket, threading.Event]]:
    """A socket to the first address that takes the connection, cut off at the deadline, and whether
    it was.

    A timeout alone would begin anew with each byte, so a server that sends one now and then could
    keep us for ever.
    """
    sock = _connect(addresses, port, deadline)
    # A second handle on the same connection: TLS takes the first one over.
    handle, was_cut = sock.dup(), threading.Event()
    alarm = threading.Timer(_left(deadline), _cut, [handle, was_cut])
    alarm.daemon = True
    alarm.start()
    try:
        yield sock, was_cut
    finally:
        alarm.cancel()
        handle.close()
        sock.close()


def _cut(handle: socket.socket, was_cut: threading.Event) -> None:
    was_cut.set()
    try:
        handle.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is over already


def _connect(addresses: list[str], port: int, deadline: float) -> socket.socket:
    give_up = min(deadline, time.monotonic() + CONNECT_SECONDS)
    for address in addresses:
        try:
            sock = _open(address, port, _left(give_up))
        except OSError:
            continue
        try:
            require_public([sock.getpeername()[0]])
        except (TargetRefused, OSError):
            sock.close()
            raise
        sock.settimeout(_left(deadline))
        return sock
    raise _CannotConnect


def _open(address: str, port: int, seconds: float) -> socket.socket:
    """A connection to this very address: nothing is resolved here."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.settimeout(seconds)
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), _NOTHING_SHORTER)


def _as_text(answer: bytes) -> str:
    """PostgreSQL's text has no NUL."""
    return answer.decode(errors="replace").replace("\x00", "\ufffd")
