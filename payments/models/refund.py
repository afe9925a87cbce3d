"""Refunds of deposits, back through the gateway. `migrations/0009_refunds.py` guards them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from payments.models.intent import MAX, PaymentIntent
from transactions.models import Transaction

REASON_MAX_LENGTH = 255


class DepositRefund(models.Model):
    """Money of a succeeded intent that staff have the gateway send back, whole or in part.

    Invariants
    * It was committed together with its `transaction`, which took the money from the wallet, before
      the gateway was asked for anything.
    * `failed` if and only if it has its one `reversal`, which brought the money back.
    * `succeeded` and `failed` are final: the first of the two wins.
    * What, how much, of which intent and by whom never change; `gateway_reference` is set once. It
      is never deleted, and nobody orders one for their own money.
    * While `pending`, `next_attempt_at` says when the gateway is asked (again).
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    intent = models.ForeignKey(PaymentIntent, on_delete=models.PROTECT, related_name="refunds")
    amount = AmountColumn()
    currency = CurrencyColumn()
    gateway = models.CharField(max_length=20)
    # Empty until the gateway has answered.
    gateway_reference = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null: not yet
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    transaction = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, related_name="deposit_refund"
    )
    reversal = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, null=True, related_name="returned_deposit_refund"
    )
    reason = models.CharField(max_length=REASON_MAX_LENGTH)
    failure_code = models.CharField(max_length=100, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # Of the admin's form: one form, sent twice, orders once.
    form_id = models.UUIDField(null=True, unique=True, editable=False)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    completed_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        permissions = [
            ("refund_deposit", "Can send deposits back to their source"),
            ("settle_refund", "Can put right refunds that the gateway lost"),
        ]
        indexes = [
            models.Index(
                name="payments_refund_due",
                fields=["next_attempt_at"],
                condition=Q(status="pending"),
            ),
            models.Index(name="payments_refund_by_status", fields=["status", "-id"]),
            models.Index(name="payments_refund_completed", fields=["gateway", "completed_at"]),
        ]
        constraints = [
            models.UniqueConstraint(
                name="payments_depositrefund_one_per_reference",
                # In this order, so that the index also finds a reference of any gateway.
                fields=["gateway_reference", "gateway"],
            ),
            models.CheckConstraint(
                name="payments_depositrefund_amount_positive",
                condition=Q(amount__gt=0, amount__lt=MAX),
            ),
            models.CheckConstraint(
                name="payments_depositrefund_status_known",
                condition=Q(status__in=["pending", "succeeded", "failed"]),
            ),
            models.CheckConstraint(
                name="payments_depositrefund_says_why",
                condition=Q(reason__regex=r"\S"),
            ),
            models.CheckConstraint(
                name="payments_depositrefund_failed_iff_returned",
                condition=Q(status="failed", reversal__isnull=False)
                | (~Q(status="failed") & Q(reversal__isnull=True, failure_code="")),
            ),
            models.CheckConstraint(
                name="payments_depositrefund_succeeded_is_known_there",
                condition=~Q(status="succeeded") | Q(gateway_reference__isnull=False),
            ),
            models.CheckConstraint(
                name="payments_depositrefund_pending_iff_due",
                condition=Q(
                    status="pending", next_attempt_at__isnull=False, completed_at__isnull=True
                )
                | (
                    ~Q(status="pending")
                    & Q(next_attempt_at__isnull=True, completed_at__isnull=False)
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} back through {self.gateway}"
