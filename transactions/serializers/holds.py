"""How holds look from outside."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rest_framework import serializers

from fintech_core.money import AmountField, BalanceField
from fintech_core.serializers import StrictSerializer, WholeNumberField
from transactions.holds import LIFETIME, LIFETIME_MAX, Reservation
from transactions.models import Hold
from transactions.serializers.transactions import PartySerializer, TransferRequestSerializer

_SECONDS = int(LIFETIME.total_seconds())
_SECONDS_MAX = int(LIFETIME_MAX.total_seconds())


class HoldRequestSerializer(TransferRequestSerializer):
    """A transfer's request, and for how many seconds the money is to be held."""

    expires_in = WholeNumberField(
        min_value=1,
        max_value=_SECONDS_MAX,
        required=False,
        default=_SECONDS,
        help_text="Seconds, up to 30 days. Default: 7 days.",
    )


def to_reservation(asked: Mapping[str, Any]) -> Reservation:
    """What a validated request asks for."""
    return Reservation(**{**asked, "expires_in": timedelta(seconds=asked["expires_in"])})


class CaptureRequestSerializer(StrictSerializer):
    amount = AmountField(required=False, help_text="Default: the whole hold.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return {"amount": None, **attrs}


class HoldSerializer(serializers.ModelSerializer[Hold]):
    """A hold, as both of its parties see it. `transaction_id` names the capture."""

    amount = AmountField(read_only=True)
    captured_amount = BalanceField()
    from_user = PartySerializer(read_only=True)
    to_user = PartySerializer(read_only=True)
    metadata = serializers.DictField(child=serializers.CharField(), read_only=True)
    transaction_id = serializers.UUIDField(read_only=True, allow_null=True)

    class Meta:
        model = Hold
        fields = (
            "id",
            "status",
            "amount",
            "captured_amount",
            "currency",
            "from_user",
            "to_user",
            "description",
            "metadata",
            "transaction_id",
            "expires_at",
            "created_at",
            "resolved_at",
        )
        read_only_fields = fields
