"""The keys that sign checkpoints (Ed25519)."""

import hashlib
from itertools import takewhile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings


def signing_key() -> Ed25519PrivateKey:
    return _keys()[0]


def public_key() -> bytes:
    """Of the key that signs now."""
    return signing_key().public_key().public_bytes_raw()


def own_public_keys() -> set[bytes]:
    """Of the key that signs now, and of those before it."""
    return set(_public_keys())


def public_keys_before(key: bytes) -> list[bytes]:
    """Of the keys that were put in front of this one; of all, if it is none of ours."""
    return list(takewhile(lambda own: own != key, _public_keys()))


def key_id(key: bytes) -> str:
    """A short name of a public key."""
    return hashlib.sha256(key).hexdigest()[:16]


def is_signed_by(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _public_keys() -> list[bytes]:
    return [key.public_key().public_bytes_raw() for key in _keys()]


def _keys() -> list[Ed25519PrivateKey]:
    return [Ed25519PrivateKey.from_private_bytes(seed) for seed in settings.LEDGER_SIGNING_KEYS]
