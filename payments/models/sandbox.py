"""What the sandbox knows: the books of another company, which happen to lie in our database.

Nothing of ours that decides about money reads them, except by asking the gateway's adapter.
`migrations/0006_sandbox.py` guards them.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from payments.models.intent import MAX

ATTEMPTS_MAX = 6


class SandboxOrder(models.Model):
    """What the sandbox was asked to collect, pay out or send back, and what became of it.

    Invariants
    * What was ordered never changes, and it is never deleted.
    * `succeeded` and `paid` are final, and have an amount and a moment; no other status has them.
    """

    class Subject(models.TextChoices):
        INTENT = "payment_intent", "Payment intent"
        PAYOUT = "payout", "Payout"
        REFUND = "refund", "Refund"

    class Status(models.TextChoices):
        OPEN = "open"
        PROCESSING = "processing"
        SUCCEEDED = "succeeded"
        PAID = "paid"
        FAILED = "failed"
        CANCELED = "canceled"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    subject = models.CharField(max_length=14, choices=Subject)
    reference = models.CharField(max_length=255)
    # Of a refund: the reference of the intent that is refunded.
    intent_reference = models.CharField(max_length=255, blank=True)
    amount = AmountColumn()
    currency = CurrencyColumn()
    status = models.CharField(max_length=10, choices=Status, default=Status.OPEN)
    # What did move. It is another amount than the one ordered if somebody wished to see that.
    settled_amount = AmountColumn(null=True)
    settled_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [
            models.Index(
                name="payments_sandbox_settled",
                fields=["settled_at"],
                condition=Q(settled_at__isnull=False),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                name="payments_sandboxorder_one_per_reference", fields=["reference"]
            ),
            models.CheckConstraint(
                name="payments_sandboxorder_amount_positive",
                condition=Q(amount__gt=0, amount__lt=MAX),
            ),
            models.CheckConstraint(
                name="payments_sandboxorder_status_of_its_subject",
                condition=Q(status__in=["open", "processing", "failed", "canceled"])
                | Q(status="succeeded", subject__in=["payment_intent", "refund"])
                | Q(status="paid", subject="payout"),
            ),
            models.CheckConstraint(
                name="payments_sandboxorder_subject_known",
                condition=Q(subject__in=["payment_intent", "payout", "refund"]),
            ),
            models.CheckConstraint(
                name="payments_sandboxorder_settled_iff_money_moved",
                condition=Q(
                    status__in=["succeeded", "paid"],
                    settled_at__isnull=False,
                    settled_amount__gt=0,
                    settled_amount__lt=MAX,
                )
                | Q(
                    status__in=["open", "processing", "failed", "canceled"],
                    settled_at__isnull=True,
                    settled_amount__isnull=True,
                ),
            ),
        ]

    def __str__(self) -> str:
        return self.reference


class SandboxDelivery(models.Model):
    """One event that the sandbox sends to our endpoint, over HTTP; what is signed when it is sent.

    Invariants
    * While `waiting`, `next_attempt_at` says when it is due; `attempts` counts the tries.
    * The same event may be delivered twice: two deliveries then have one `event_id`.
    """

    class Status(models.TextChoices):
        WAITING = "waiting"
        DELIVERED = "delivered"
        GIVEN_UP = "given_up", "Given up"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    order = models.ForeignKey(
        SandboxOrder, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )
    event_id = models.CharField(max_length=255)
    event_type = models.CharField(max_length=100)
    body = models.TextField()
    status = models.CharField(max_length=9, choices=Status, default=Status.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    answer_status = models.PositiveSmallIntegerField(null=True)  # HTTP; null: there was no answer
    answer = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "sandbox deliveries"
        indexes = [
            models.Index(name="payments_sandbox_of_order", fields=["order", "id"]),
            models.Index(
                name="payments_sandbox_due",
                fields=["next_attempt_at"],
                condition=Q(status="waiting"),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="payments_sandboxdelivery_status_known",
                condition=Q(status__in=["waiting", "delivered", "given_up"]),
            ),
            models.CheckConstraint(
                name="payments_sandboxdelivery_due_iff_waiting",
                condition=Q(status="waiting", next_attempt_at__isnull=False)
                | (~Q(status="waiting") & Q(next_attempt_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="payments_sandboxdelivery_delivered_iff_dated",
                condition=Q(status="delivered", delivered_at__isnull=False)
                | (~Q(status="delivered") & Q(delivered_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="payments_sandboxdelivery_attempts_bounded",
                condition=Q(attempts__gte=0, attempts__lte=ATTEMPTS_MAX),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} ({self.event_id})"
