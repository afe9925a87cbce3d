"""What happens whenever a user comes to be, whoever made it."""

from typing import Any

from django.db.models.signals import post_save
from django.dispatch import receiver

from users.models import KYCStep, User


@receiver(post_save, sender=User, dispatch_uid="users.record_first_kyc_step")
def record_first_kyc_step(instance: User, created: bool, raw: bool, **_: Any) -> None:
    """Begin the permanent KYC record. A fixture (`raw`) brings its own."""
    if created and not raw:
        KYCStep.objects.create(user=instance, from_status="", to_status=instance.kyc_status)
