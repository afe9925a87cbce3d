"""Money that arrived for a closed wallet. `migrations/0008_polling_and_suspense.py` guards it."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from payments.models.intent import PaymentIntent
from transactions.models import Transaction


class SuspendedDeposit(models.Model):
    """A payment that no wallet could take: it lies in `suspense` until staff have dealt with it.

    Invariants
    * It names the intent that was paid and the deposit to `suspense`, and was made with them.
    * It is resolved once, by somebody of the staff, who says how; then it never changes.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        RESOLVED = "resolved"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    intent = models.OneToOneField(
        PaymentIntent, on_delete=models.PROTECT, related_name="suspended", editable=False
    )
    transaction = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, related_name="suspended", editable=False
    )
    status = models.CharField(max_length=8, choices=Status, default=Status.OPEN)
    note = models.CharField(max_length=500, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [("resolve_suspense", "Can say what became of money in suspense")]
        indexes = [
            models.Index(name="payments_suspense_by_status", fields=["status", "-id"]),
        ]
        constraints = [
            models.CheckConstraint(
                name="payments_suspense_status_known", condition=Q(status__in=["open", "resolved"])
            ),
            models.CheckConstraint(
                name="payments_suspense_resolved_means_by_whom_and_how",
                condition=Q(
                    status="open", note="", resolved_by__isnull=True, resolved_at__isnull=True
                )
                | Q(
                    status="resolved",
                    note__regex=r"\S",
                    resolved_by__isnull=False,
                    resolved_at__isnull=False,
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.intent} for a closed wallet"
