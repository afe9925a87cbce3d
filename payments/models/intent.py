"""Payment intents. `migrations/0002_payment_rules.py` guards them."""

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from payments.models.polled import Polled
from transactions.models import Transaction
from wallet.models import Wallet

MAX = Decimal("1e13")  # NaN is above it: PostgreSQL sorts NaN after every number


class PaymentIntent(Polled):
    """A customer's wish to put money into the wallet, and what became of it.

    Invariants
    * It is credited at most once: `succeeded` if and only if it has its one `transaction`, which
      credits its wallet, or, for a closed one, `suspense`.
    * `succeeded` is final; `failed`, `canceled` and `expired` give way only to it.
    * Who, how much, in which currency and through which gateway never change;
      `gateway_reference` is set once. It is never deleted.
    """

    class Status(models.TextChoices):
        REQUIRES_PAYMENT = "requires_payment"
        PROCESSING = "processing"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELED = "canceled"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Indexed by `payments_intent_newest_of_user`, which begins with it.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="payment_intents",
        db_index=False,
    )
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="payment_intents")
    amount = AmountColumn()
    currency = CurrencyColumn()
    gateway = models.CharField(max_length=20)
    # Empty until the gateway has answered; so are the next two, and `checkout_url` may stay so.
    gateway_reference = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null: not yet
    client_secret = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null: not yet
    checkout_url = models.URLField(max_length=500, null=True)  # noqa: DJ001 - null: there is none
    status = models.CharField(max_length=16, choices=Status, default=Status.REQUIRES_PAYMENT)
    transaction = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, null=True, related_name="payment_intent"
    )
    # What it was when its money came all the same; empty if it came in time.
    late_after = models.CharField(
        max_length=8,
        blank=True,
        db_default="",
        editable=False,
        choices=[(late, late.label) for late in (Status.FAILED, Status.CANCELED, Status.EXPIRED)],
    )
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True, editable=False)

    class Meta:
        indexes = [
            models.Index(name="payments_intent_newest_of_user", fields=["user", "-id"]),
            models.Index(
                name="payments_intent_open",
                fields=["expires_at"],
                condition=Q(status="requires_payment"),
            ),
            models.Index(
                name="payments_intent_to_ask",
                fields=["next_poll_at"],
                condition=Q(next_poll_at__isnull=False),
            ),
            models.Index(
                name="payments_intent_for_staff", fields=["-id"], condition=Q(needs_staff=True)
            ),
            models.Index(
                name="payments_intent_late",
                fields=["late_after", "-id"],
                condition=~Q(late_after=""),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                name="payments_paymentintent_one_per_reference",
                # In this order, so that the index also finds a reference of any gateway.
                fields=["gateway_reference", "gateway"],
            ),
            models.CheckConstraint(
                name="payments_paymentintent_amount_positive",
                condition=Q(amount__gt=0, amount__lt=MAX),
            ),
            models.CheckConstraint(
                name="payments_paymentintent_currency_is_a_code",
                condition=Q(currency__regex=r"^[A-Z]{3}$"),
            ),
            models.CheckConstraint(
                name="payments_paymentintent_status_known",
                condition=Q(
                    status__in=[
                        "requires_payment",
                        "processing",
                        "succeeded",
                        "failed",
                        "canceled",
                        "expired",
                    ]
                ),
            ),
            models.CheckConstraint(
                name="payments_paymentintent_succeeded_iff_credited",
                condition=Q(status="succeeded", transaction__isnull=False)
                | (~Q(status="succeeded") & Q(transaction__isnull=True)),
            ),
            models.CheckConstraint(
                name="payments_paymentintent_late_means_succeeded",
                condition=Q(late_after="")
                | Q(late_after__in=["failed", "canceled", "expired"], status="succeeded"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} through {self.gateway}"
