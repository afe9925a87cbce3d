"""Balances and statements: what a caller asks for, and how the answers look."""

from typing import Any
from zoneinfo import ZoneInfo

from rest_framework import serializers

from fintech_core.moments import DayField, MomentField, Period, ZoneField
from fintech_core.money import BalanceField, format_amount
from transactions.balances import BalanceAt
from transactions.serializers.transactions import TransactionHistorySerializer
from wallet.models import Wallet

FORMATS = ("json", "csv", "pdf")


class BalanceQuerySerializer(serializers.Serializer[Any]):
    at = MomentField(required=False)


class WalletBalanceSerializer(serializers.Serializer[Any]):
    """The balance, and the moment (of the database's clock) at which it was or is so."""

    currency = serializers.CharField(read_only=True, max_length=3)
    balance = BalanceField()
    held = BalanceField()
    available = BalanceField()
    as_of = serializers.DateTimeField(read_only=True)


def present_balance(shown: Wallet | BalanceAt) -> dict[str, Any]:
    """What `WalletBalanceSerializer` describes, by hand: it is the most frequent answer."""
    return {
        "currency": shown.currency,
        "balance": format_amount(shown.balance),
        "held": format_amount(shown.held),
        "available": format_amount(shown.available),
        "as_of": shown.as_of,
    }


class StatementQuerySerializer(serializers.Serializer[Any]):
    """Days [from, to) of the calendar of `tz`."""

    to = DayField()
    tz = ZoneField(default=ZoneInfo("UTC"))
    format = serializers.ChoiceField(choices=FORMATS, default="json")

    def get_fields(self) -> dict[str, serializers.Field]:
        """`from` is a word of Python, and cannot be declared above."""
        return {"from": DayField(), **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["to"] <= attrs["from"]:
            raise serializers.ValidationError(
                {"to": ["The day after the last one: it must be later than `from`."]},
                code="invalid",
            )
        return attrs

    def to_period(self) -> Period:
        asked = self.validated_data
        return Period(first=asked["from"], end=asked["to"], zone=asked["tz"])


class StatementSerializer(serializers.Serializer[Any]):
    """The opening balance and the lines, oldest first, add up to the closing balance."""

    # For the schema alone: a statement is streamed, by `transactions.statement_json`.
    wallet_id = serializers.UUIDField()
    currency = serializers.CharField(max_length=3)
    to = serializers.DateField()
    tz = serializers.CharField()
    generated_at = serializers.DateTimeField()
    opening_balance = BalanceField()
    closing_balance = BalanceField()
    closing_sequence = serializers.IntegerField(
        help_text="The number of the wallet's last entry within the statement; 0 before the first."
    )
    closing_seal = serializers.CharField(
        allow_null=True,
        help_text="The seal of that entry, in hexadecimal: it stands for all that came before.",
    )
    lines = TransactionHistorySerializer(many=True)

    def get_fields(self) -> dict[str, serializers.Field]:
        return {"from": serializers.DateField(), **super().get_fields()}
