"""Rate limits, by django-ratelimit: atomic counters in Redis that parallel requests share.

While Redis is away, limits on money calls are open (money still moves), and limits on guessing
(login, registration) are counted in PostgreSQL instead.
"""

import hashlib
import logging
import time
from typing import Any, ClassVar

from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django_ratelimit.core import _split_rate, get_usage
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

logger = logging.getLogger(__name__)


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
    forwarded = [
        part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part
    ]
    return forwarded[-hops] if len(forwarded) >= hops else remote


def seconds_to_wait(
    request: HttpRequest, *, scope: str, rate: str, value: str, guard_without_redis: bool
) -> int | None:
    """Count one request of `value` in `scope`. None: go ahead; else the seconds until the next try.

    `rate` is django-ratelimit's, such as `10/m`.
    """
    try:
        usage = get_usage(
            request, group=scope, key=lambda group, request: value, rate=rate, increment=True
        )
    except (ConnectionInterrupted, RedisError, OSError):
        logger.warning("rate limit without Redis", extra={"scope": scope})
        if not guard_without_redis:
            return None
        return _count_in_database(scope, rate, value)
    if usage is None or not usage["should_limit"]:
        return None
    return max(1, usage["time_left"])


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
        if request.method not in self.methods:
            return True
        waits = [
            seconds_to_wait(
                request._request,
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
        return [f"ip:{client_ip(request._request)}"]


class LoginRateLimit(RateLimit):
    """Counts by address and by account, so that neither one machine nor many can guess fast."""

    scope, setting, guard_without_redis = "login", "RATE_LIMIT_LOGIN", True

    def values(self, request: Request) -> list[str]:
        by_address = f"ip:{client_ip(request._request)}"
        email = request.data.get("email") if isinstance(request.data, dict) else None
        if not isinstance(email, str):
            return [by_address]
        return [by_address, f"account:{email.strip().lower()}"]


class TransferRateLimit(RateLimit):
    scope, setting = "transfer", "RATE_LIMIT_TRANSFER"


class PaymentRateLimit(RateLimit):
    scope, setting = "payment", "RATE_LIMIT_PAYMENT"
