"""Payouts. `migrations/0007_payouts.py` and `0012_asked_once.py` guard them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from payments.models.intent import MAX
from payments.models.polled import Polled
from transactions.models import Transaction
from users.fields import EncryptedTextField
from wallet.models import Wallet


class Payout(Polled):
    """A customer's wish to have money sent to a bank account, and what became of it.

    Invariants
    * It was made together with its `transaction`, the withdrawal that took the money, and agrees
      with it for ever: pending and pending, paid and completed, failed and failed.
    * `paid` and `failed` are final; the first of the two wins. `failed` if and only if it has its
      one `reversal`, which brought the money back in the same database transaction.
    * Who, how much, where to and through which gateway never change. `asked_at` and `asked_again`
      are set once, and so is `gateway_reference`, unless staff named it and the gateway has not
      confirmed it. It is never deleted.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        PAID = "paid"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Indexed by `payments_payout_newest_of_user`, which begins with it.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="payouts", db_index=False
    )
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="payouts")
    amount = AmountColumn()
    currency = CurrencyColumn()
    gateway = models.CharField(max_length=20)
    # Empty until the gateway has answered.
    gateway_reference = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null: not yet
    # Staff named the reference, and the gateway has said nothing that fits it.
    named_by_staff = models.BooleanField(default=False, db_default=False, editable=False)
    # When the gateway was first asked, committed before the question: it may know the order since.
    asked_at = models.DateTimeField(null=True, editable=False)
    # It was asked again, likewise committed before: a refusal of one question does not settle it.
    asked_again = models.BooleanField(default=False, db_default=False, editable=False)
    iban = EncryptedTextField(editable=False)  # ISO 13616, without spaces
    holder = EncryptedTextField(editable=False)  # whose account it is
    status = models.CharField(max_length=7, choices=Status, default=Status.PENDING)
    # The gateway's word for why it failed.
    failure_code = models.CharField(max_length=100, null=True)  # noqa: DJ001 - null: it did not
    transaction = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, related_name="payout", editable=False
    )
    reversal = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, null=True, related_name="failed_payout"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    completed_at = models.DateTimeField(null=True)  # when it was paid, or failed
    updated_at = models.DateTimeField(auto_now=True, editable=False)

    class Meta:
        permissions = [("settle_payout", "Can put right payouts that the gateway lost")]
        indexes = [
            models.Index(name="payments_payout_newest_of_user", fields=["user", "-id"]),
            models.Index(name="payments_payout_by_status", fields=["status", "-id"]),
            models.Index(name="payments_payout_completed", fields=["gateway", "completed_at"]),
            models.Index(
                name="payments_payout_to_ask",
                fields=["next_poll_at"],
                condition=Q(next_poll_at__isnull=False),
            ),
            models.Index(
                name="payments_payout_for_staff", fields=["-id"], condition=Q(needs_staff=True)
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                name="payments_payout_one_per_reference",
                # In this order, so that the index also finds a reference of any gateway.
                fields=["gateway_reference", "gateway"],
            ),
            models.CheckConstraint(
                name="payments_payout_amount_positive", condition=Q(amount__gt=0, amount__lt=MAX)
            ),
            models.CheckConstraint(
                name="payments_payout_currency_is_a_code",
                condition=Q(currency__regex=r"^[A-Z]{3}$"),
            ),
            models.CheckConstraint(
                name="payments_payout_status_known",
                condition=Q(status__in=["pending", "paid", "failed"]),
            ),
            models.CheckConstraint(
                name="payments_payout_settled_iff_dated",
                condition=Q(status="pending", completed_at__isnull=True)
                | (~Q(status="pending") & Q(completed_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="payments_payout_failed_iff_reversed",
                condition=Q(status="failed", reversal__isnull=False, failure_code__isnull=False)
                | (~Q(status="failed") & Q(reversal__isnull=True, failure_code__isnull=True)),
            ),
            models.CheckConstraint(
                name="payments_payout_asked_about_while_pending",
                condition=Q(status="pending", next_poll_at__isnull=False)
                | (~Q(status="pending") & Q(next_poll_at__isnull=True)),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} through {self.gateway}"

    @property
    def destination_type(self) -> str:
        """There is one so far."""
        return "bank_account"

    @property
    def masked_iban(self) -> str:
        """The country and the last four; as many dots for every account."""
        return masked(self.iban)


def masked(iban: str) -> str:
    return f"{iban[:2]}••••{iban[-4:]}"
