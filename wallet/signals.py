"""A wallet for every new user: the users app must not know that wallets exist."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models.signals import post_save
from django.dispatch import receiver

from wallet.models import Wallet


@receiver(post_save, sender=get_user_model(), dispatch_uid="wallet.open_wallet")
def open_wallet(instance: Any, created: bool, using: str, raw: bool = False, **_: Any) -> None:
    """In the transaction that makes the user, so that neither exists without the other."""
    if created and not raw:
        Wallet.objects.using(using).create(user=instance, currency=settings.DEFAULT_CURRENCY)
