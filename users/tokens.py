"""Encoding and decoding of tokens; whether one is alive is the session's business.

Both kinds carry `sub` (the user), `sid` (the session, which is the family) and `jti`. `SIMPLE_JWT`
in the settings fixes the algorithm, a key that is not `SECRET_KEY`, `iss` and `aud`.
"""

import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from uuid import UUID

from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from users.exceptions import TokenNotValid
from users.models import Session

TOKEN_MAX_LENGTH = 2048


@dataclass(frozen=True)
class TokenPair:
    access: str
    refresh: str


@dataclass(frozen=True)
class Claims:
    user_id: UUID
    session_id: UUID
    jti: str
    is_refresh: bool
    expires_at: int  # seconds since 1970, UTC

    # As text, made once for a token as it is read once.

    @cached_property
    def user(self) -> str:
        return str(self.user_id)

    @cached_property
    def session(self) -> str:
        return str(self.session_id)


def new_refresh_token() -> RefreshToken:
    """A refresh token with a fresh `jti`, not yet bound to a session."""
    return RefreshToken()


def pair_for(session: Session, refresh: RefreshToken) -> TokenPair:
    """Bind `refresh` to `session` and put a new access token beside it."""
    return TokenPair(access=_signed(AccessToken(), session), refresh=_signed(refresh, session))


def _signed(token: Token, session: Session) -> str:
    token["sub"] = str(session.user_id)
    token["sid"] = str(session.id)
    return str(token)


def read_access(encoded: str | bytes) -> Claims:
    """Check signature, dates and kind. Raises TokenNotValid."""
    return _read(encoded, AccessToken)


def read_refresh(encoded: str | bytes) -> Claims:
    """Check signature, dates and kind. Raises TokenNotValid."""
    return _read(encoded, RefreshToken)


def read_any(encoded: str | bytes) -> Claims:
    """A token of either kind. Raises TokenNotValid."""
    try:
        return read_access(encoded)
    except TokenNotValid:
        return read_refresh(encoded)


def _read(encoded: str | bytes, kind: type[Token]) -> Claims:
    if len(encoded) > TOKEN_MAX_LENGTH:
        raise TokenNotValid
    try:
        claims = _verified(encoded, kind)  # type: ignore[arg-type]  # classes are hashable
    except (TokenError, KeyError, ValueError, TypeError, AttributeError) as refusal:
        raise TokenNotValid from refusal
    if claims.expires_at <= time.time():
        raise TokenNotValid
    return claims


@lru_cache(maxsize=4096)
def _verified(encoded: str | bytes, kind: type[Token]) -> Claims:
    """A client sends one token many times, and a good signature stays good while the key does.

    What may change is asked each time: the clock here, the session by whoever reads the token.
    """
    token = kind(encoded)  # type: ignore[arg-type]  # it takes the text
    return Claims(
        user_id=UUID(token["sub"]),
        session_id=UUID(token["sid"]),
        jti=str(token["jti"]),
        is_refresh=kind is RefreshToken,
        expires_at=int(token["exp"]),
    )
