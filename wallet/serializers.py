"""How a wallet looks, and what staff say when they change its status."""

from typing import Any

from rest_framework import serializers

from fintech_core.money import BalanceField, format_amount
from fintech_core.serializers import StrictSerializer, TextField
from users.validators import plain_text
from wallet.models import REASON_MAX_LENGTH, Wallet


class WalletSerializer(serializers.ModelSerializer[Wallet]):
    balance = BalanceField()
    held = BalanceField()
    available = BalanceField()

    class Meta:
        model = Wallet
        fields = (
            "id",
            "currency",
            "balance",
            "held",
            "available",
            "status",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields

    def to_representation(self, wallet: Wallet) -> dict[str, Any]:
        """By hand: to make the fields anew takes longer than all else that a balance needs."""
        return {
            "id": str(wallet.id),
            "currency": wallet.currency,
            "balance": format_amount(wallet.balance),
            "held": format_amount(wallet.held),
            "available": format_amount(wallet.available),
            "status": wallet.status,
            "created_at": wallet.created_at,
            "updated_at": wallet.updated_at,
        }


class ReasonSerializer(StrictSerializer):
    reason = TextField(
        max_length=REASON_MAX_LENGTH,
        validators=[plain_text],
        help_text="Why. Staff read it; the customer does not.",
    )
