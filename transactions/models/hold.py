"""Money reserved for somebody. `migrations/0007_hold_rules.py` enforces what is said here."""

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from transactions.models.ledger import MAX, Transaction
from wallet.models import Wallet

ZERO = Decimal("0.00")


class Hold(models.Model):
    """Money that stays in the payer's wallet, but that only the payee can take until it expires.

    Invariants
    * `active → captured | voided | expired`, once; after that nothing changes any more.
    * Captured, and only then, it names the transaction that moved `captured_amount`, which is at
      most `amount`. Each transaction of type `capture` belongs to exactly one hold.
    * The payer's wallet counts each active hold in `held`, and nothing else.
    * Never captured at or after `expires_at`, never expired before it, never deleted.
    * Captured by the payee, voided by anybody but the payer; it says by whom. Nobody expires it.
    """

    class Status(models.TextChoices):
        ACTIVE = "active"
        CAPTURED = "captured"
        VOIDED = "voided"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    status = models.CharField(max_length=8, choices=Status, default=Status.ACTIVE)
    amount = AmountColumn()
    captured_amount = AmountColumn(default=ZERO)
    currency = CurrencyColumn()
    # Indexed below, each with what its list is ordered by; a wallet is never deleted.
    payer_wallet = models.ForeignKey(
        Wallet, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    payee_wallet = models.ForeignKey(
        Wallet, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    from_user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    to_user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    description = models.CharField(max_length=255, blank=True)
    metadata = models.JSONField(default=dict)
    transaction = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, null=True, related_name="hold"
    )
    expires_at = models.DateTimeField(editable=False)
    created_at = models.DateTimeField(editable=False)
    resolved_at = models.DateTimeField(null=True, editable=False)
    # Unknown of those that were resolved before this was asked.
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        editable=False,
        related_name="+",
        db_index=False,
    )

    class Meta:
        indexes = [
            models.Index(name="transactions_hold_payer", fields=["from_user", "id"]),
            models.Index(name="transactions_hold_payee", fields=["to_user", "id"]),
            # Few are active at a time: the sum that `held` must equal is read from the index.
            models.Index(
                name="transactions_hold_active",
                fields=["payer_wallet"],
                include=["amount"],
                condition=Q(status="active"),
            ),
            models.Index(
                name="transactions_hold_due",
                fields=["expires_at"],
                condition=Q(status="active"),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="transactions_hold_amount_positive",
                condition=Q(amount__gt=0, amount__lt=MAX),
            ),
            models.CheckConstraint(
                name="transactions_hold_status_known",
                condition=Q(status__in=["active", "captured", "voided", "expired"]),
            ),
            models.CheckConstraint(
                name="transactions_hold_captured_within_amount",
                condition=Q(
                    status="captured",
                    transaction__isnull=False,
                    captured_amount__gt=0,
                    captured_amount__lte=F("amount"),
                )
                | (~Q(status="captured") & Q(transaction__isnull=True, captured_amount=0)),
            ),
            models.CheckConstraint(
                name="transactions_hold_resolved_at_iff_resolved",
                condition=Q(status="active", resolved_at__isnull=True)
                | (~Q(status="active") & Q(resolved_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="transactions_hold_runs_out_by_itself",
                condition=Q(status__in=["captured", "voided"]) | Q(resolved_by__isnull=True),
            ),
            models.CheckConstraint(
                name="transactions_hold_two_different_parties",
                condition=~Q(from_user=F("to_user")),
            ),
            models.CheckConstraint(
                name="transactions_hold_expires_after_it_begins",
                condition=Q(expires_at__gt=F("created_at")),
            ),
            models.CheckConstraint(
                name="transactions_hold_currency_is_a_code",
                condition=Q(currency__regex=r"^[A-Z]{3}$"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.status} hold of {self.amount} {self.currency}"
