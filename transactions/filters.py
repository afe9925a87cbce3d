"""Filters over the caller's ledger entries."""

from datetime import datetime
from decimal import Decimal

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet

from fintech_core.money import is_amount_text
from transactions import queries
from transactions.models import Hold, Transaction, TransactionLedger
from users.authentication import caller_of

Entries = QuerySet[TransactionLedger]

_DIRECTIONS = [("in", "in"), ("out", "out")]


def _is_amount(text: str) -> None:
    if not is_amount_text(text):
        raise ValidationError("Write the amount as a decimal, such as 50.00.")


class EntryFilter(django_filters.FilterSet):
    """`created_after` is inclusive, `created_before` is not, so that intervals join without gap."""

    type = django_filters.ChoiceFilter(
        field_name="transaction__type", choices=Transaction.Type.choices
    )
    status = django_filters.ChoiceFilter(
        field_name="transaction__status", choices=Transaction.Status.choices
    )
    direction = django_filters.ChoiceFilter(choices=_DIRECTIONS, method="by_direction")
    created_after = django_filters.IsoDateTimeFilter(method="by_start")
    created_before = django_filters.IsoDateTimeFilter(method="by_end")
    amount_min = django_filters.CharFilter(method="by_amount_min", validators=[_is_amount])
    amount_max = django_filters.CharFilter(method="by_amount_max", validators=[_is_amount])

    class Meta:
        model = TransactionLedger
        fields: list[str] = []

    def by_direction(self, entries: Entries, name: str, value: str) -> Entries:
        kinds = TransactionLedger.EntryType
        return entries.filter(entry_type=kinds.CREDIT if value == "in" else kinds.DEBIT)

    def by_start(self, entries: Entries, name: str, value: datetime) -> Entries:
        return queries.from_moment(entries, value)

    def by_end(self, entries: Entries, name: str, value: datetime) -> Entries:
        return queries.before_moment(entries, value)

    def by_amount_min(self, entries: Entries, name: str, value: str) -> Entries:
        return entries.filter(amount__gte=Decimal(value))

    def by_amount_max(self, entries: Entries, name: str, value: str) -> Entries:
        return entries.filter(amount__lte=Decimal(value))


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
