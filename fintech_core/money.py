"""Money: amounts are `Decimal` with two places, beside an ISO 4217 currency code.

Only currencies with two decimals are kept in wallets; gateway adapters convert to minor units.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db import models
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fintech_core.currencies import TWO_DECIMAL_CURRENCIES

CENT = Decimal("0.01")
MAX_AMOUNT = Decimal("9999999999999.99")
MAX_DIGITS = 15
DECIMAL_PLACES = 2
AMOUNT_PATTERN = r"^(0|[1-9][0-9]{0,12})(\.[0-9]{1,2})?$"
_AMOUNT = re.compile(AMOUNT_PATTERN, re.ASCII)


class AmountInvalid(ValueError):
    """The value is not an amount of money; the message says why, in a customer's words."""


def parse_amount(value: object) -> Decimal:
    """Read an amount in major units, greater than zero, with at most two decimals.

    Accepts a string matching `AMOUNT_PATTERN`, or a JSON number (int, or Decimal as our parser
    makes it) by its exact value. Floats are refused: they are not exact. Raises AmountInvalid.
    """
    amount = _exact(value)
    if not amount.is_finite() or amount <= 0:
        raise AmountInvalid("The amount must be greater than zero.")
    if amount > MAX_AMOUNT:
        raise AmountInvalid(f"The amount must be at most {MAX_AMOUNT}.")
    # The exponent is compared before any arithmetic: quantizing 1E-999999 would be costly.
    if amount.adjusted() < -DECIMAL_PLACES or amount != amount.quantize(CENT):
        raise AmountInvalid("The amount must have at most two decimals.")
    return amount.quantize(CENT)


def is_amount_text(text: str) -> bool:
    """Whether `text` is written as an amount is; zero included."""
    return _AMOUNT.fullmatch(text) is not None


def _exact(value: object) -> Decimal:
    if isinstance(value, str):
        if not is_amount_text(value):
            raise AmountInvalid('Write the amount as a decimal string such as "50.00".')
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise AmountInvalid('Write the amount as a decimal string such as "50.00".')
    if isinstance(value, int) and abs(value) > MAX_AMOUNT:
        raise AmountInvalid(f"The amount must be at most {MAX_AMOUNT}.")
    return Decimal(value)


def format_amount(amount: Decimal) -> str:
    """The one way money is written: two decimals, no exponent, no grouping."""
    return f"{amount:.2f}"


def total(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal("0.00"))


class AmountColumn(models.DecimalField):
    """A money column, in major units: numeric(15, 2)."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("max_digits", MAX_DIGITS)
        options.setdefault("decimal_places", DECIMAL_PLACES)
        super().__init__(**options)


class CurrencyColumn(models.CharField):
    """An ISO 4217 code."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("max_length", 3)
        super().__init__(**options)


@extend_schema_field(
    {"type": "string", "pattern": AMOUNT_PATTERN, "example": "50.00", "description": "Major units."}
)
class AmountField(serializers.Field):
    """An amount in a request or an answer; see `parse_amount` for what is accepted."""

    def to_internal_value(self, data: object) -> Decimal:
        try:
            return parse_amount(data)
        except AmountInvalid as refusal:
            raise serializers.ValidationError(str(refusal), code="invalid") from refusal

    def to_representation(self, value: Decimal) -> str:
        return format_amount(value)


@extend_schema_field({"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2}$", "example": "125.50"})
class BalanceField(serializers.ReadOnlyField):
    """A balance or a signed amount in an answer; it may be zero or negative."""

    def to_representation(self, value: Decimal | None) -> str | None:
        return None if value is None else format_amount(value)


@extend_schema_field({"type": "string", "pattern": "^[A-Z]{3}$", "example": "USD"})
class CurrencyField(serializers.CharField):
    """A currency code in a request: upper case, one that wallets can hold."""

    default_error_messages = {"unknown": "Not a currency that a wallet can hold."}

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=3, trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        code = super().to_internal_value(data)
        if code not in TWO_DECIMAL_CURRENCIES:
            self.fail("unknown")
        return code
