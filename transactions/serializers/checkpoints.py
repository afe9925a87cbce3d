"""How checkpoints and proofs look from outside: hashes in hexadecimal, keys in base64."""

import base64
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from transactions.checkpoints import Proof
from transactions.models import LedgerCheckpoint

HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


@extend_schema_field(HASH)
class HashField(serializers.ReadOnlyField):
    def to_representation(self, value: Any) -> str:
        return bytes(value).hex()


@extend_schema_field({"type": "string", "contentEncoding": "base64"})
class Base64Field(serializers.ReadOnlyField):
    def to_representation(self, value: Any) -> str:
        return base64.b64encode(bytes(value)).decode()


class CheckpointSerializer(serializers.ModelSerializer[LedgerCheckpoint]):
    """What was signed, and what it says. `signature` (Ed25519) is over the bytes of `payload`."""

    # Serializers have a `root` of their own; the metaclass takes this one out of its way.
    root = HashField()  # type: ignore[assignment]
    previous = HashField()
    signature = Base64Field()
    public_key = Base64Field()

    class Meta:
        model = LedgerCheckpoint
        fields = (
            "number",
            "created_at",
            "wallet_count",
            "entry_count",
            "outside_count",
            "root",
            "previous",
            "payload",
            "signature",
            "key_id",
            "public_key",
        )
        read_only_fields = fields


class ProofSerializer(serializers.Serializer[Proof]):
    """That the signed root commits to one history of the wallet with `entry_count` entries, which
    ends in `seal`. `siblings` lead from the root down to the wallet's leaf."""

    wallet_id = serializers.UUIDField(source="leaf.wallet_id", read_only=True)
    entry_count = serializers.IntegerField(source="leaf.entry_count", read_only=True)
    seal = HashField(source="leaf.seal")
    siblings = serializers.ListField(child=HashField(), read_only=True)
    checkpoint = CheckpointSerializer(read_only=True)
