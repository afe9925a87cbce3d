"""Locking wallets, the one way to get one whose money may be touched, and writing them back."""

from collections.abc import Iterable
from uuid import UUID

from django.utils import timezone

from wallet.models import Wallet


def lock_wallets(*wallet_ids: UUID) -> dict[UUID, Wallet]:
    """Lock the wallets until the transaction ends, and read them as they are then.

    Always in id order, so that opposite transfers wait for each other instead of deadlocking.
    `FOR NO KEY UPDATE` leaves foreign-key checks on the wallet free.
    """
    rows = Wallet.objects.select_for_update(no_key=True).filter(pk__in=wallet_ids).order_by("pk")
    return {wallet.pk: wallet for wallet in rows}


def save_balances(wallets: Iterable[Wallet]) -> None:
    """Write the moved balances of locked wallets, in one statement. For the ledger's posting."""
    now = timezone.now()
    moved = list(wallets)
    for wallet in moved:
        wallet.updated_at = now
    Wallet.objects.bulk_update(moved, ["balance", "entry_count", "last_entry_at", "updated_at"])
