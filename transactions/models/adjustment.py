"""`Adjustment`: a correction by staff, with four eyes. `migrations/0008_adjustments.py` enforces
what is said here."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from transactions.models.ledger import MAX, Transaction, TransactionLedger
from wallet.models import Wallet

REASON_MAX_LENGTH = 255  # it becomes the description of the transaction


class Adjustment(models.Model):
    """What one member of staff proposes to put right in a wallet, and another one decides.

    Invariants
    * `proposed → approved | rejected`, once; what was proposed never changes, nothing is deleted.
    * Nobody approves their own proposal, and nobody proposes or decides for their own wallet.
    * Approved, and only then, it names the transaction that did it, of type `adjustment`. Each
      transaction of that type, and each entry on the `adjustments` account, has an approved one.
    """

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        APPROVED = "approved"
        REJECTED = "rejected"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    status = models.CharField(max_length=8, choices=Status, default=Status.PROPOSED)
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="+")
    # Of the wallet: a credit raises it.
    direction = models.CharField(max_length=6, choices=TransactionLedger.EntryType)
    amount = AmountColumn()
    currency = CurrencyColumn()
    reason = models.CharField(max_length=REASON_MAX_LENGTH)
    proposed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )
    rejection_reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True, default="")
    transaction = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, null=True, related_name="adjustment"
    )
    # Of the form it was proposed with: one that is sent twice proposes once.
    form_id = models.UUIDField(null=True, unique=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    decided_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        permissions = [
            ("propose_adjustment", "Can propose adjustments"),
            ("approve_adjustment", "Can approve and reject adjustments"),
        ]
        indexes = [
            models.Index(name="transactions_adjustment_status", fields=["status", "id"]),
        ]
        constraints = [
            models.CheckConstraint(
                name="transactions_adjustment_two_people",
                condition=~Q(status="approved") | ~Q(decided_by=F("proposed_by")),
            ),
            models.CheckConstraint(
                name="transactions_adjustment_decided_means_by_whom",
                condition=Q(
                    status="proposed",
                    decided_by__isnull=True,
                    decided_at__isnull=True,
                    transaction__isnull=True,
                    rejection_reason="",
                )
                | Q(
                    status="approved",
                    decided_by__isnull=False,
                    decided_at__isnull=False,
                    transaction__isnull=False,
                    rejection_reason="",
                )
                | Q(
                    status="rejected",
                    decided_by__isnull=False,
                    decided_at__isnull=False,
                    transaction__isnull=True,
                    rejection_reason__regex=r"\S",
                ),
            ),
            models.CheckConstraint(
                name="transactions_adjustment_amount_positive",
                condition=Q(amount__gt=0, amount__lt=MAX),
            ),
            models.CheckConstraint(
                name="transactions_adjustment_direction_known",
                condition=Q(direction__in=["debit", "credit"]),
            ),
            models.CheckConstraint(
                name="transactions_adjustment_says_why", condition=Q(reason__regex=r"\S")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.direction} of {self.amount} {self.currency}"
