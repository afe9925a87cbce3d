"""How the caller's limits look to them."""

from typing import Any

from rest_framework import serializers

from fintech_core.money import BalanceField


class AmountLimitSerializer(serializers.Serializer[Any]):
    limit = BalanceField()
    used = BalanceField()
    remaining = BalanceField(help_text="Never below zero.")


class PaymentLimitSerializer(serializers.Serializer[Any]):
    """A limit on each single payment: nothing uses it up, so all of it always remains."""

    limit = BalanceField()
    used = BalanceField(allow_null=True, help_text="Always null.")
    remaining = BalanceField()


class CountLimitSerializer(serializers.Serializer[Any]):
    limit = serializers.IntegerField()
    used = serializers.IntegerField()
    remaining = serializers.IntegerField(help_text="Never below zero.")


class LimitsSerializer(serializers.Serializer[Any]):
    tier = serializers.ChoiceField(choices=["approved", "unverified"])
    currency = serializers.CharField(help_text="ISO 4217, of the amounts.")
    transfer_max = PaymentLimitSerializer()
    daily_total = AmountLimitSerializer(help_text="Within 24 hours.")
    daily_count = CountLimitSerializer(help_text="Within 24 hours.")
    monthly_total = AmountLimitSerializer(help_text="Within 30 days.")
    monthly_count = CountLimitSerializer(help_text="Within 30 days.")
    balance_max = AmountLimitSerializer(help_text="`used` is the balance.")
