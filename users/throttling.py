"""This app's own rate limits; the others are in `fintech_core.ratelimit`."""

from rest_framework.request import Request

from fintech_core.ratelimit import RateLimit, address_key


class PasswordRateLimit(RateLimit):
    """Changing a password means guessing it, too: limited as login is, by address and account."""

    scope, setting, guard_without_redis = "password", "RATE_LIMIT_LOGIN", True

    def values(self, request: Request) -> list[str]:
        return [*super().values(request), address_key(request._request)]


class ProfileRateLimit(RateLimit):
    """A refused phone number tells that somebody has it: nobody may try many."""

    scope, setting, guard_without_redis = "profile", "PROFILE_RATE", True
    methods = ("PATCH",)


class DocumentRateLimit(RateLimit):
    """Looking into a document is work. A submission without one costs next to nothing."""

    scope, setting, guard_without_redis = "document", "DOCUMENT_RATE", True

    def values(self, request: Request) -> list[str]:
        # Django's: REST framework's is as it was written, and case does not matter.
        carries_file = (request._request.content_type or "").startswith("multipart/")
        return super().values(request) if carries_file else []


class SessionRateLimit(RateLimit):
    """Against floods alone: tokens cannot be guessed."""

    scope, setting = "session", "SESSION_RATE"

    def values(self, request: Request) -> list[str]:
        return [address_key(request._request)]
