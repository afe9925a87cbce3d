"""Reading wallets."""

from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

from wallet.models import Wallet


def wallet_of(user_id: UUID) -> Wallet:
    """The user's wallet, with `as_of`: the database's time when it was read."""
    return _dated().get(user_id=user_id)


def _dated() -> QuerySet[Wallet]:
    return Wallet.objects.annotate(as_of=Now())
