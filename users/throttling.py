"""This app's own rate limit; the others are in `fintech_core.ratelimit`."""

from rest_framework.request import Request

from fintech_core.ratelimit import RateLimit, address_key


class PasswordRateLimit(RateLimit):
    """Changing a password means guessing it, too: limited as login is, by address and account."""

    scope, setting, guard_without_redis = "password", "RATE_LIMIT_LOGIN", True

    def values(self, request: Request) -> list[str]:
        return [*super().values(request), address_key(request._request)]
