"""Filters over the caller's ledger entries."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet

from fintech_core.moments import ANY_YEAR, parse_moment
from fintech_core.money import is_amount_text
from transactions.models import Hold, Transaction, TransactionLedger
from transactions.pages import Entries
from users.authentication import caller_of

_DIRECTIONS = [("in", "in"), ("out", "out")]


def _is_amount(text: str) -> None:
    if not is_amount_text(text):
        raise ValidationError("Write the amount as a decimal, such as 50.00.")


def _amount_filter() -> django_filters.CharFilter:
    return django_filters.CharFilter(method="by_text", strip=False, validators=[_is_amount])


class _MomentInput(forms.Field):
    def to_python(self, value: str | None) -> datetime | None:
        try:
            return parse_moment(value, ANY_YEAR) if value else None
        except ValueError as refusal:
            raise ValidationError(str(refusal), code="invalid") from refusal


class MomentFilter(django_filters.Filter):
    """Of any year: an interval without end may be written as one that ends in 9999."""

    field_class = _MomentInput


class EntryFilter(django_filters.FilterSet):
    """`created_after` is inclusive, `created_before` is not, so that intervals join without gap."""

    type = django_filters.ChoiceFilter(choices=Transaction.Type.choices, method="by_text")
    status = django_filters.ChoiceFilter(choices=Transaction.Status.choices, method="by_text")
    direction = django_filters.ChoiceFilter(choices=_DIRECTIONS, method="by_text")
    created_after = MomentFilter(method="by_moment")
    created_before = MomentFilter(method="by_moment")
    amount_min = _amount_filter()
    amount_max = _amount_filter()

    class Meta:
        model = TransactionLedger
        fields: list[str] = []

    def filter_queryset(self, entries: Entries) -> Entries:
        """The parent's insists on a query set."""
        for name, value in self.form.cleaned_data.items():
            entries = self.filters[name].filter(entries, value)
        return entries

    def by_text(self, entries: Entries, name: str, value: str) -> Entries:
        bound, read = _TEXTS[name]
        return replace(entries, **{bound: read(value)})

    def by_moment(self, entries: Entries, name: str, value: datetime) -> Entries:
        bounds: dict[str, Any] = {_MOMENTS[name]: value}
        return replace(entries, **bounds)


def _side(direction: str) -> str:
    kinds = TransactionLedger.EntryType
    return kinds.CREDIT if direction == "in" else kinds.DEBIT


# What each filter bounds, and how its value is read.
_TEXTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "type": ("kind", str),
    "status": ("state", str),
    "direction": ("side", _side),
    "amount_min": ("amount_min", Decimal),
    "amount_max": ("amount_max", Decimal),
}
_MOMENTS = {"created_after": "since", "created_before": "until"}


class HoldFilter(django_filters.FilterSet):
    """`out`: on the caller's money; `in`: in the caller's favour."""

    status = django_filters.ChoiceFilter(choices=Hold.Status.choices)
    direction = django_filters.ChoiceFilter(choices=_DIRECTIONS, method="by_direction")

    class Meta:
        model = Hold
        fields: list[str] = []

    def by_direction(self, holds: QuerySet[Hold], name: str, value: str) -> QuerySet[Hold]:
        caller_id = caller_of(self.request).pk
        if value == "in":
            return holds.filter(to_user_id=caller_id)
        return holds.filter(from_user_id=caller_id)
