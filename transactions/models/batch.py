"""Transfers that were asked for together. `migrations/0009_batches.py` enforces what is said here.

The money is in the transactions; these tables only say which ones one call made, and what of it was
refused.
"""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from transactions.models.ledger import MAX, Transaction

LEGS_MAX = 1000


class TransferBatch(models.Model):
    """One call that asked for many transfers, and what became of it.

    Invariants
    * At commit it has a leg for each number below `count`; `succeeded` of them name a transaction,
      and `total` is the sum of those. So no leg can join later.
    * An atomic batch that is here succeeded whole.
    * Never changed, never deleted.
    """

    class Mode(models.TextChoices):
        ATOMIC = "atomic"
        INDEPENDENT = "independent"

    class Status(models.TextChoices):
        COMPLETED = "completed"
        PARTIAL = "partial"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    mode = models.CharField(max_length=11, choices=Mode)
    status = models.CharField(max_length=9, choices=Status)
    count = models.IntegerField()
    succeeded = models.IntegerField()
    failed = models.IntegerField()
    total = AmountColumn()
    currency = CurrencyColumn()
    created_at = models.DateTimeField(editable=False)

    class Meta:
        verbose_name_plural = "transfer batches"
        indexes = [
            models.Index(name="transactions_batch_by_status", fields=["status", "id"]),
        ]
        constraints = [
            models.CheckConstraint(
                name="transactions_transferbatch_count_within_bounds",
                condition=Q(count__gte=1, count__lte=LEGS_MAX),
            ),
            models.CheckConstraint(
                name="transactions_transferbatch_each_leg_counted_once",
                condition=Q(succeeded__gte=0, failed__gte=0, count=F("succeeded") + F("failed")),
            ),
            models.CheckConstraint(
                name="transactions_transferbatch_status_says_what_failed",
                condition=Q(status="completed", failed=0)
                | Q(status="partial", succeeded__gt=0, failed__gt=0)
                | Q(status="failed", succeeded=0),
            ),
            models.CheckConstraint(
                name="transactions_transferbatch_atomic_is_whole",
                condition=Q(mode="independent") | Q(mode="atomic", failed=0),
            ),
            models.CheckConstraint(
                name="transactions_transferbatch_total_of_what_succeeded",
                condition=Q(succeeded=0, total=0) | Q(succeeded__gt=0, total__gt=0, total__lt=MAX),
            ),
            models.CheckConstraint(
                name="transactions_transferbatch_currency_is_a_code",
                condition=Q(currency__regex=r"^[A-Z]{3}$"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.status} batch of {self.count}"


class TransferBatchLeg(models.Model):
    """One transfer of a batch: the transaction that it became, or the code of its refusal."""

    class Status(models.TextChoices):
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    pk = models.CompositePrimaryKey("batch_id", "index")
    # That both exist is part of what `transactions_transferbatchleg_fits` asks; neither is deleted.
    batch = models.ForeignKey(
        TransferBatch,
        on_delete=models.PROTECT,
        related_name="legs",
        db_index=False,
        db_constraint=False,
    )
    index = models.SmallIntegerField(editable=False)
    transaction = models.OneToOneField(
        Transaction,
        on_delete=models.PROTECT,
        null=True,
        related_name="batch_leg",
        db_constraint=False,
    )
    error_code = models.CharField(max_length=40, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="transactions_transferbatchleg_moved_or_refused",
                condition=Q(transaction__isnull=False, error_code="")
                | Q(transaction__isnull=True, error_code__gt=""),
            ),
            models.CheckConstraint(
                name="transactions_transferbatchleg_numbered_from_zero",
                condition=Q(index__gte=0),
            ),
        ]

    def __str__(self) -> str:
        return f"leg {self.index} of {self.batch_id}"
