"""Who calls: `Authorization: Bearer <access token>`, checked against the session in one query."""

from typing import Any, cast

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from users import queries, tokens
from users.exceptions import TokenNotValid
from users.models import User

_SCHEME = b"bearer"


class SessionTokenAuthentication(BaseAuthentication):
    """A token counts only while its session does.

    Logout, a changed password and deactivation end the session, and with it every access token that
    was issued, at once. No header: nobody. Any header that is not a live token: 401.
    """

    def authenticate(self, request: Request) -> tuple[User, tokens.Claims] | None:
        sent: Any = request._request
        header = sent.META.get("HTTP_AUTHORIZATION", "").encode("latin-1")  # as WSGI has it
        if not header.strip():
            return None
        claims = tokens.read_access(_bearer_token(header))
        user = _user_of(claims)
        sent.caller_id = claims.user  # for the log
        return user, claims

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def _bearer_token(header: bytes) -> bytes:
    scheme, *rest = header.split()
    if scheme.lower() != _SCHEME or len(rest) != 1:
        raise TokenNotValid
    return rest[0]


def _user_of(claims: tokens.Claims) -> User:
    session = queries.find_session(claims)
    if session is None or not session.is_alive(now=timezone.now()):
        raise TokenNotValid
    return session.user


def caller_of(request: Request) -> User:
    """Whoever got past `IsAuthenticated` is a user of ours."""
    return cast(User, request.user)
