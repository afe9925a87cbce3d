"""Rate limits: atomic counters in Redis that parallel requests share, in the windows and with the
rates of django-ratelimit.

While Redis is away, limits on money calls are open (money still moves), and limits on guessing
(login, registration) are counted in PostgreSQL instead.
"""

import hashlib
import ipaddress
import logging
import re
import time
import unicodedata
from typing import Any, ClassVar

from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django_ratelimit import core
from django_ratelimit.core import _split_rate
from django_redis import get_redis_connection
from redis import ConnectionPool
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from fintech_core.own_redis import OwnRedis

logger = logging.getLogger(__name__)

LARGEST_BATCH = 1000  # legs
_HOUR = 3600  # seconds


def client_ip(request: HttpRequest) -> str:
    """The address of the client, as far as it can be trusted.

    Each of `TRUSTED_PROXY_COUNT` proxies appends the address it saw to `X-Forwarded-For`, so the
    client's is that many entries from the right. What stands further left is the client's own
    invention. With no trusted proxy the header is ignored.
    """
    remote = str(request.META.get("REMOTE_ADDR") or "0.0.0.0")  # noqa: S104 - unknown peer
    hops = settings.TRUSTED_PROXY_COUNT
    if hops == 0:
        return remote
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    given = _address(forwarded[-hops].strip()) if len(forwarded) >= hops else None
    return given or remote


def _address(text: str) -> str | None:
    """The address in an `X-Forwarded-For` entry, which may carry a port; None if there is none.

    A proxy that listens on IPv6 writes an IPv4 client as `::ffff:192.0.2.1`. All of those lie in
    one /64, and are not one customer.
    """
    bracketed = re.fullmatch(r"\[(.+)\](:\d+)?", text)
    bare = bracketed[1] if bracketed else text.rsplit(":", 1)[0] if text.count(":") == 1 else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def address_key(request: HttpRequest) -> str:
    """What is counted for an address. One customer holds a whole /64 of IPv6, so that is one."""
    address = client_ip(request)
    if ":" in address:
        return f"ip:{ipaddress.ip_network(f'{address}/64', strict=False)}"
    return f"ip:{address}"


def account_key(email: str) -> str:
    """What is counted for an account, however its email is spelt: as sign-in compares it."""
    return f"account:{unicodedata.normalize('NFKC', email).strip().lower()}"


def seconds_to_wait(
    *, scope: str, rate: str, value: str, guard_without_redis: bool, amount: int = 1
) -> int | None:
    """Count `amount` of `value` in `scope`. None: go ahead; else the seconds until the next try.

    `rate` is django-ratelimit's, such as `10/m`, and so are its windows: they do not all begin at
    the same moment.
    """
    if not settings.RATELIMIT_ENABLE:
        return None
    limit, period = _split_rate(rate)
    window_end = core._get_window(value, period)
    try:
        is_within = _counted_in_redis(f"{scope}|{rate}|{value}|{window_end}", amount, limit, period)
    except (RedisError, OSError):
        logger.warning("rate limit without Redis", extra={"scope": scope})
        if not guard_without_redis:
            return None
        return _count_in_database(scope, rate, value)
    # The window's last second belongs to it.
    return None if is_within else window_end + 1 - int(time.time())


def _pool() -> ConnectionPool:
    return get_redis_connection().connection_pool


_own = OwnRedis(_pool)


def _counted_in_redis(counted: str, amount: int, limit: int, period: int) -> bool:
    """Whether there was room for `amount`; in one round trip, as a rule.

    The first says when to forget the count. What had no room is not counted, so that less may still
    find some.
    """
    key = f"fintech:limit:{hashlib.sha256(counted.encode()).hexdigest()}"
    count = int(_own.ask("INCRBY", key, amount))
    if count == amount:
        _own.ask("EXPIRE", key, 2 * period)
    if count <= limit:
        return True
    if amount > 1:
        _own.ask("DECRBY", key, amount)
    return False


def _count_in_database(scope: str, rate: str, value: str) -> int | None:
    limit, period = _split_rate(rate)
    now = int(time.time())
    window_end = now - now % period + period
    key = hashlib.sha256(f"{scope}|{value}|{window_end}".encode()).hexdigest()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO fintech_core_ratelimitcounter AS counter (key, count, expires_at)
            VALUES (%s, 1, to_timestamp(%s))
            ON CONFLICT (key) DO UPDATE SET count = counter.count + 1
            RETURNING count
            """,
            [key, window_end],
        )
        (count,) = cursor.fetchone()
    return max(1, window_end - now) if count > limit else None


class RateLimit(BaseThrottle):
    """A limit on one kind of call; a view names its subclass in `throttle_classes`."""

    scope: ClassVar[str]
    setting: ClassVar[str]
    guard_without_redis: ClassVar[bool] = False
    methods: ClassVar[tuple[str, ...]] = ("POST",)

    _wait: int | None = None

    def values(self, request: Request) -> list[str]:
        """What is counted; each value has a counter of its own."""
        return [f"user:{request.user.pk}"]

    def allow_request(self, request: Request, view: Any) -> bool:
        if request._request.method not in self.methods:
            return True
        waits = [
            seconds_to_wait(
                scope=self.scope,
                rate=getattr(settings, self.setting),
                value=value,
                guard_without_redis=self.guard_without_redis,
            )
            for value in self.values(request)
        ]
        self._wait = max((wait for wait in waits if wait is not None), default=None)
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait


class RegisterRateLimit(RateLimit):
    scope, setting, guard_without_redis = "register", "RATE_LIMIT_REGISTER", True

    def values(self, request: Request) -> list[str]:
        return [address_key(request._request)]


class LoginRateLimit(RateLimit):
    """Counts by address and by account, so that neither one machine nor many can guess fast."""

    scope, setting, guard_without_redis = "login", "RATE_LIMIT_LOGIN", True

    def values(self, request: Request) -> list[str]:
        by_address = address_key(request._request)
        email = request.data.get("email") if isinstance(request.data, dict) else None
        return [by_address, account_key(email)] if isinstance(email, str) else [by_address]


class TransferRateLimit(RateLimit):
    """Counts calls and, an hour at a time, the legs of batches: as many as could have been single
    calls, so that a batch asks for no more people than they would.

    Never fewer than the largest batch, and a batch that is refused here counts none.
    """

    scope, setting = "transfer", "RATE_LIMIT_TRANSFER"

    def allow_request(self, request: Request, view: Any) -> bool:
        if not super().allow_request(request, view):
            return False
        if legs := min(_legs(request), LARGEST_BATCH):
            calls, seconds = _split_rate(settings.RATE_LIMIT_TRANSFER)
            self._wait = seconds_to_wait(
                scope="legs",
                rate=f"{max(LARGEST_BATCH, calls * _HOUR // seconds)}/h",
                value=f"user:{request.user.pk}",
                guard_without_redis=False,
                amount=legs,
            )
        return self._wait is None


def _legs(request: Request) -> int:
    """How many transfers the body asks for, if it is a batch; its serializer bounds them."""
    body = request.data if request._request.method == "POST" else None
    transfers = body.get("transfers") if isinstance(body, dict) else None
    return len(transfers) if isinstance(transfers, list) else 0


class PaymentRateLimit(RateLimit):
    scope, setting = "payment", "RATE_LIMIT_PAYMENT"
