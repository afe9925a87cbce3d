"""Reading the ledger. Every list is an index range over one wallet's numbered entries."""

import heapq
from collections.abc import Iterable
from uuid import UUID

from django.db.models import Q, QuerySet

from transactions.models import Hold, Transaction, TransactionLedger


def transactions_of(user_id: UUID) -> QuerySet[Transaction]:
    """The transactions that the user is a party to; for looking one up by its id."""
    return Transaction.objects.filter(
        Q(from_user_id=user_id) | Q(to_user_id=user_id)
    ).select_related("from_user", "to_user")


def entries_in(transaction_id: UUID) -> QuerySet[TransactionLedger]:
    """All sides of one transaction."""
    return TransactionLedger.objects.filter(transaction_id=transaction_id).select_related("wallet")


def holds_of(user_id: UUID) -> QuerySet[Hold]:
    """The holds on the user's money and in the user's favour; for looking one up by its id."""
    return Hold.objects.filter(Q(from_user_id=user_id) | Q(to_user_id=user_id))


class HoldsEitherWay:
    """A user's holds in both directions as one list, for a paginator that orders by the id.

    Each direction is an index range of its own, read no further than the page needs; one query for
    both would sort every hold that the user ever had.
    """

    def __init__(self, directions: Iterable[QuerySet[Hold]], *, falling: bool = True) -> None:
        self._directions = list(directions)
        self._falling = falling

    def order_by(self, field: str) -> "HoldsEitherWay":
        ordered = (holds.order_by(field) for holds in self._directions)
        return HoldsEitherWay(ordered, falling=field.startswith("-"))

    def filter(self, **bounds: object) -> "HoldsEitherWay":
        bounded = (holds.filter(**bounds) for holds in self._directions)
        return HoldsEitherWay(bounded, falling=self._falling)

    def __getitem__(self, page: slice) -> list[Hold]:
        parts = [holds[: page.stop] for holds in self._directions]
        rows = heapq.merge(*parts, key=lambda hold: hold.pk, reverse=self._falling)
        return list(rows)[page]
