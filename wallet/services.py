"""Locking wallets: the one way to get a wallet whose money may be touched."""

from uuid import UUID

from wallet.models import Wallet


def lock_wallets(*wallet_ids: UUID) -> dict[UUID, Wallet]:
    """Lock the wallets until the transaction ends, and read them as they are then.

    Always in id order, so that opposite transfers wait for each other instead of deadlocking.
    `FOR NO KEY UPDATE` leaves foreign-key checks on the wallet free.
    """
    rows = Wallet.objects.select_for_update(no_key=True).filter(pk__in=wallet_ids).order_by("pk")
    return {wallet.pk: wallet for wallet in rows}
