"""Reading the environment: what is missing, misspelt or weak is said at the start, by name.

A variable that is there but empty counts as not given, so that a template may list what it leaves
open.
"""

import base64
import binascii
import os
import re
import zlib
from typing import Any

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

MEANINGFUL_WHEN_EMPTY = {"LOG_DIR"}
SEED_BYTES = 32
WEBHOOK_SECRET_BYTES_MIN = 24  # Standard Webhooks: between 24 and 64 bytes

_YES, _NO = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_RATE = re.compile(r"[0-9]+/([1-9][0-9]*)?[smhd]", re.ASCII)
# What a secret must still be long after its repetitions were taken out.
_SUBSTANCE_MIN = 30


class Environment(environ.Env):
    def __init__(self, **scheme: Any) -> None:
        super().__init__(**scheme)
        self.ENVIRON = {
            name: value
            for name, value in os.environ.items()
            if value or name in MEANINGFUL_WHEN_EMPTY
        }

    def secret(self, name: str, *, min_length: int) -> str:
        """A required secret. Too short, or a placeholder, is as bad as missing."""
        value = self.str(name)
        if len(value) < min_length or _is_weak(value):
            raise ImproperlyConfigured(
                f"{name} is weak: it needs at least {min_length} random characters (make setup)."
            )
        return value

    def optional_secret(self, name: str, *, min_length: int) -> str:
        value = self.str(name, default="")
        if value and len(value) < min_length:
            raise ImproperlyConfigured(f"{name} is too short: {min_length} characters, or none.")
        return value

    def fernet_keys(self, name: str) -> list[str]:
        keys = _parts(self.str(name))
        for key in keys:
            try:
                Fernet(key)
            except ValueError as exc:
                raise ImproperlyConfigured(f"{name} must be Fernet keys: {exc}") from exc
            if _is_weak(key):
                raise ImproperlyConfigured(f"{name} has a weak key: make 32 random bytes.")
        if not keys:
            raise ImproperlyConfigured(f"{name} names no key.")
        return keys

    def ed25519_seeds(self, name: str) -> list[bytes]:
        """Keys, comma-separated: the base64 of 32 random bytes each."""
        try:
            seeds = [base64.b64decode(part, validate=True) for part in _parts(self.str(name))]
        except (ValueError, binascii.Error) as exc:
            raise ImproperlyConfigured(f"{name} is not base64 (make setup).") from exc
        if not seeds or any(len(seed) != SEED_BYTES or len(set(seed)) < 8 for seed in seeds):
            raise ImproperlyConfigured(f"{name} must be the base64 of {SEED_BYTES} random bytes.")
        return seeds

    def webhook_secrets(self, name: str) -> list[str]:
        secrets = _parts(self.str(name, default=""))
        if not all(_is_webhook_secret(secret) for secret in secrets):
            raise ImproperlyConfigured(
                f"{name} must be whsec_ and the base64 of at least {WEBHOOK_SECRET_BYTES_MIN}"
                " random bytes; two, comma-separated, while rotating."
            )
        return secrets

    def flag(self, name: str, *, default: bool) -> bool:
        """Misspelt, it must not quietly mean false: that may be the dangerous side."""
        text = self.str(name, default=str(default)).strip().lower()
        if text not in _YES | _NO:
            raise ImproperlyConfigured(f"{name} must be true or false.")
        return text in _YES

    def count(self, name: str, *, default: int) -> int:
        text = self.str(name, default=str(default)).strip()
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
            raise ImproperlyConfigured(f"{name} must be a whole number, not below zero.")
        return int(text)

    def rate(self, name: str, *, default: str) -> str:
        rate = self.str(name, default=default).strip()
        if not _RATE.fullmatch(rate):
            raise ImproperlyConfigured(f"{name} must be a count and a period, such as 10/m.")
        return rate

    def names(self, name: str) -> list[str]:
        """Comma-separated."""
        return _parts(self.str(name, default=""))

    def optional_secrets(self, name: str, *, min_length: int) -> list[str]:
        """Comma-separated secrets; there may be none."""
        secrets = self.names(name)
        if any(len(secret) < min_length for secret in secrets):
            raise ImproperlyConfigured(
                f"{name} is too short: {min_length} characters each, comma-separated, or none."
            )
        return secrets

    def optional_base_url(self, name: str) -> str:
        """Empty if it is not given."""
        return self.base_url(name, default="") if self.str(name, default="").strip() else ""

    def base_url(self, name: str, *, default: str) -> str:
        scheme, separator, rest = self.str(name, default=default).strip().partition("://")
        if scheme.lower() not in ("http", "https") or not separator or not rest.strip("/"):
            raise ImproperlyConfigured(f"{name} must begin with http:// or https:// and a host.")
        return f"{scheme.lower()}://{rest.rstrip('/')}"


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_weak(value: str) -> bool:
    return "change" in value.lower() or len(zlib.compress(value.encode())) < _SUBSTANCE_MIN


def _is_webhook_secret(secret: str) -> bool:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, binascii.Error):
        return False
    return secret.startswith("whsec_") and len(key) >= WEBHOOK_SECRET_BYTES_MIN
