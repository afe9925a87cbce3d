"""Where a webhook may go: never into our own network, whatever a name resolves to.

A customer chooses the URL and we make the request (server-side request forgery), so each address is
judged twice: when the endpoint is registered, and in each try on the very address that is connected
to. `WEBHOOK_ALLOW_PRIVATE_TARGETS` lifts this, for tests.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from fintech_core.webhooks.models import URL_MAX

RESOLVE_SECONDS = 5.0
_RESOLVERS = 32
_PORTS = {"https": 443, "http": 80}
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|[0-9a-f:.]+", re.ASCII)
# Of IPv6 only what is routed on the internet, without the ways to write an IPv4 address in it
# (Teredo, RFC 4380; 6to4, RFC 3056): mapped (RFC 4291) and NAT64 ones (RFC 6052) are outside.
_ROUTED = ipaddress.ip_network("2000::/3")
_TUNNELS = [ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16")]
_EXAMPLES = ipaddress.ip_network("3fff::/20")  # documentation, RFC 9637
_RELAYS = ipaddress.ip_network("192.88.99.0/24")  # 6to4 anycast, RFC 7526


class TargetRefused(Exception):
    """The URL, or where it leads, is none that we send to; the message says why, to its owner."""


@dataclass(frozen=True)
class Target:
    """A URL that may be sent to, taken apart. `host` is a name or an address, in lower case."""

    scheme: str
    host: str
    port: int
    path: str  # with the query

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"


def parse_target(url: str) -> Target:
    """Take a URL apart; any port will do. Raises TargetRefused. Asks no name server."""
    if len(url) > URL_MAX or not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise TargetRefused("Write it in printable ASCII (an international domain as xn--…).")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise TargetRefused("This is not a URL.") from exc
    _require_plain(parts)
    if not _HOST.fullmatch(host) or port == 0:
        raise TargetRefused("The URL needs a host name, and a port between 1 and 65535 if any.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


def _require_plain(parts: SplitResult) -> None:
    if parts.scheme != "https" and not (
        parts.scheme == "http" and settings.WEBHOOK_ALLOW_PRIVATE_TARGETS
    ):
        raise TargetRefused("The URL must begin with https://.")
    if "@" in parts.netloc:
        raise TargetRefused("The URL must not hold a user name or a password.")
    if parts.fragment:
        raise TargetRefused("The URL must not have a fragment (#…).")


def addresses_of(target: Target, *, seconds: float = RESOLVE_SECONDS) -> list[str]:
    """The addresses that the host has right now. All of them may be connected to.

    Raises TargetRefused if there is none within the time, or if any of them is not public.
    """
    addresses = _resolve(target.host, target.port, seconds)
    if not addresses:
        raise TargetRefused("The host name cannot be resolved.")
    require_public(addresses)
    return addresses


def require_public(addresses: Iterable[str]) -> None:
    """Raises TargetRefused unless each of them is a public address."""
    if not settings.WEBHOOK_ALLOW_PRIVATE_TARGETS and not all(map(is_public, addresses)):
        raise TargetRefused("The host has an address that is not public.")


def is_public(text: str) -> bool:
    """Whether this is the address of one machine on the internet."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address not in _RELAYS
    return address in _ROUTED and not any(address in each for each in [*_TUNNELS, _EXAMPLES])


# The system's resolver cannot be told to hurry; whoever waits for it can.
_resolvers = ThreadPoolExecutor(max_workers=_RESOLVERS, thread_name_prefix="resolver")


def _resolve(host: str, port: int, seconds: float) -> list[str]:
    answer = _resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = answer.result(timeout=seconds)
    except (OSError, UnicodeError, FutureTimeoutError):
        answer.cancel()
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
