"""What this app refuses. The status and the `code` of each are public and permanent.

A wrong field of a request is a `ValidationError`, a step that the KYC state machine does not know
is the shared `InvalidState`.
"""

from rest_framework.exceptions import AuthenticationFailed, NotFound, PermissionDenied

from fintech_core.exceptions import InvalidState

__all__ = [
    "InvalidCredentials",
    "InvalidState",
    "NotOnOneself",
    "NotPermitted",
    "TokenNotValid",
    "UserNotFound",
]


class InvalidCredentials(AuthenticationFailed):
    """Unknown email, wrong password or deactivated user: the caller is not told which."""

    default_code = "invalid_credentials"


class TokenNotValid(AuthenticationFailed):
    """Malformed, forged, expired, of the wrong kind, or of a session that is over."""

    default_code = "token_not_valid"


class UserNotFound(NotFound):
    default_detail = "There is no such user."


class NotPermitted(PermissionDenied):
    default_detail = "This needs an active member of staff with the right permission."


class NotOnOneself(PermissionDenied):
    default_detail = "Nobody decides about themselves."
