"""`Wallet`: the money that one user holds."""

from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn

ZERO = Decimal("0.00")


class Wallet(models.Model):
    """Money that one user holds in one currency; a liability of ours.

    Invariants (PostgreSQL enforces them; see `transactions/migrations/0002_ledger_rules.py`)
    * `balance` is the `balance_after` of the wallet's newest ledger entry, zero if it has none.
    * `entry_count` is the number of that entry: entries are numbered from 1 without gaps.
    * 0 <= `held` <= `balance`.
    * `currency` and `user` never change; a wallet is never deleted.
    """

    class Status(models.TextChoices):
        ACTIVE = "active"
        FROZEN = "frozen"  # no debit; credits still arrive
        CLOSED = "closed"  # neither; only at zero

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="wallet"
    )
    currency = CurrencyColumn()
    balance = AmountColumn(default=ZERO, editable=False)
    held = AmountColumn(default=ZERO, editable=False)
    entry_count = models.BigIntegerField(default=0, editable=False)
    last_entry_at = models.DateTimeField(null=True, editable=False)
    status = models.CharField(max_length=6, choices=Status, default=Status.ACTIVE)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="wallet_wallet_balance_not_negative",
                # NaN is greater than every number in PostgreSQL, so the bound is what refuses it.
                condition=Q(balance__gte=0, balance__lt=Decimal("1e13")),
            ),
            models.CheckConstraint(
                name="wallet_wallet_held_within_balance",
                condition=Q(held__gte=0, held__lte=F("balance")),
            ),
            models.CheckConstraint(
                name="wallet_wallet_status_known",
                condition=Q(status__in=["active", "frozen", "closed"]),
            ),
            models.CheckConstraint(
                name="wallet_wallet_closed_is_empty",
                condition=~Q(status="closed") | Q(balance=0),
            ),
            models.CheckConstraint(
                name="wallet_wallet_currency_is_a_code",
                condition=Q(currency__regex=r"^[A-Z]{3}$"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.currency})"

    @property
    def available(self) -> Decimal:
        """What can be spent now: `balance` less what holds reserve."""
        return self.balance - self.held

    def credit(self, amount: Decimal, *, at: datetime) -> None:
        """Add `amount` to this locked row, in memory; `wallet.services.save_balances` writes it.

        For TransactionService alone, which posts the entry.
        """
        self._move(amount, at)

    def debit(self, amount: Decimal, *, at: datetime) -> None:
        """Take `amount` from this locked row, in memory; see `credit`.

        The caller has checked `available`; the database refuses a balance below zero or `held`.
        """
        self._move(-amount, at)

    def _move(self, change: Decimal, at: datetime) -> None:
        self.balance += change
        self.entry_count += 1
        self.last_entry_at = at
