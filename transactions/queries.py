"""Reading the ledger. Every list is an index range over one wallet's numbered entries."""

import heapq
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet

from transactions.models import Hold, Transaction, TransactionLedger
from wallet.models import Wallet


def entries_of(user_id: UUID) -> QuerySet[TransactionLedger]:
    """The entries on the user's wallet, with their transactions and both parties.

    A transaction touches a wallet at most once, so this is also the list of the user's
    transactions. Order by `-sequence` for newest first.
    """
    wallet = Wallet.objects.only("user_id").get(user_id=user_id)
    # Through the wallet: each entry then knows its wallet without asking for it.
    return wallet.entries.select_related("transaction__from_user", "transaction__to_user")


def from_moment(
    entries: QuerySet[TransactionLedger], moment: datetime
) -> QuerySet[TransactionLedger]:
    """Of one wallet's entries, those at or after `moment`."""
    first = _number(entries.filter(created_at__gte=moment).order_by("created_at", "sequence"))
    return entries.none() if first is None else entries.filter(sequence__gte=first)


def before_moment(
    entries: QuerySet[TransactionLedger], moment: datetime
) -> QuerySet[TransactionLedger]:
    """Of one wallet's entries, those before `moment`.

    Time runs forward with the numbers (a trigger sees to it), so a bound in time is a bound in
    numbers, and a deep page costs no more than the first.
    """
    last = _number(entries.filter(created_at__lt=moment).order_by("-created_at", "-sequence"))
    return entries.none() if last is None else entries.filter(sequence__lte=last)


def _number(entries: QuerySet[TransactionLedger]) -> int | None:
    """The number of the first of them.

    Asked for by itself: between two bounds of which it does not know one, PostgreSQL expects next
    to no rows, and reads and sorts all there are instead of walking along the index.
    """
    return entries.values_list("sequence", flat=True).first()


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
