"""How a wallet looks to its owner."""

from rest_framework import serializers

from fintech_core.money import BalanceField
from wallet.models import Wallet


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


class WalletBalanceSerializer(serializers.ModelSerializer[Wallet]):
    """The balance, and the moment (of the database's clock) at which it was read."""

    balance = BalanceField()
    held = BalanceField()
    available = BalanceField()
    as_of = serializers.DateTimeField(read_only=True)

    class Meta:
        model = Wallet
        fields = ("currency", "balance", "held", "available", "as_of")
        read_only_fields = fields
