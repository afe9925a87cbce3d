"""`Wallet`: the money that one user holds; what staff decided about it, and what left it lately."""

from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn

ZERO = Decimal("0.00")
MAX = Decimal("1e13")  # NaN is greater than every number in PostgreSQL: the bound refuses it
REASON_MAX_LENGTH = 500


class Wallet(models.Model):
    """Money that one user holds in one currency; a liability of ours.

    Invariants (PostgreSQL enforces them; see `transactions/migrations/0002_ledger_rules.py`)
    * `balance` is the `balance_after` of the wallet's newest ledger entry, zero if it has none.
    * `entry_count` is the number of that entry: entries are numbered from 1 without gaps.
    * 0 <= `held` <= `balance`; `held` is the sum of the wallet's active holds.
    * `currency` and `user` never change; a wallet is never deleted.
    * `status` is where its newest `WalletStep` led; without a step it is active. `limit_override`
      is its newest `LimitOverride` (see `migrations/0005_record_rules.py`).
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
    # Here as well, so that the many wallets without one cost nobody a query.
    limit_override = models.ForeignKey(
        "LimitOverride",
        on_delete=models.PROTECT,
        null=True,
        editable=False,
        related_name="+",
        db_index=False,
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True, editable=False)

    # The database's clock: under the lock, of one that `locking` has read; when `queries` read it.
    locked_at: datetime
    as_of: datetime
    # Whether anybody listens (`fintech_core.webhooks`) to what happens to it; of a locked one.
    is_heard: bool

    class Meta:
        permissions = [
            ("change_status", "Can freeze, unfreeze and close wallets"),
            ("change_limits", "Can change the limits of single wallets"),
        ]
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

    def credit(self, amount: Decimal) -> None:
        """Add `amount` to this locked row, in memory, as its next entry.

        For `transactions.posting` alone, which writes both, and says when.
        """
        self._move(amount)

    def debit(self, amount: Decimal) -> None:
        """Take `amount` from this locked row, in memory; see `credit`.

        The caller has checked `available`; the database refuses a balance below zero or `held`.
        """
        self._move(-amount)

    def reserve(self, amount: Decimal) -> None:
        """Take `amount` from what is available, in memory; `wallet.services.save_held` writes it.

        For TransactionService alone, which makes the hold. The caller has checked `available`.
        """
        self.held += amount

    def release(self, amount: Decimal) -> None:
        """Make a hold's `amount` available again, in memory; see `reserve`."""
        self.held -= amount

    def _move(self, change: Decimal) -> None:
        self.balance += change
        self.entry_count += 1


class WalletStep(models.Model):
    """A wallet was frozen, unfrozen or closed: by whom, when, why. Never changed, never deleted.

    Invariants
    * The steps of a wallet form a chain from `active` to the wallet's `status`.
    * Nobody decides about their own wallet.
    """

    wallet = models.ForeignKey(
        Wallet, on_delete=models.PROTECT, related_name="steps", db_index=False
    )
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    from_status = models.CharField(max_length=6, choices=Wallet.Status)
    to_status = models.CharField(max_length=6, choices=Wallet.Status)
    reason = models.CharField(max_length=REASON_MAX_LENGTH)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["wallet", "-id"], name="wallet_walletstep_by_wallet")]
        constraints = [
            models.CheckConstraint(
                name="wallet_walletstep_is_a_known_step",
                condition=Q(from_status="active", to_status="frozen")
                | Q(from_status="frozen", to_status="active")
                | Q(from_status__in=["active", "frozen"], to_status="closed"),
            ),
            models.CheckConstraint(
                name="wallet_walletstep_says_why", condition=Q(reason__regex=r"\S")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.wallet_id}: {self.from_status} → {self.to_status}"


class LimitOverride(models.Model):
    """Staff set limits for one wallet: by whom, when, why. Never changed, never deleted.

    The newest one counts, as a whole: a limit that it leaves empty is the tier's. Amounts are in
    major units of the wallet's currency. Nobody sets limits for their own wallet.
    """

    wallet = models.ForeignKey(
        Wallet, on_delete=models.PROTECT, related_name="limit_overrides", db_index=False
    )
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    reason = models.CharField(max_length=REASON_MAX_LENGTH)
    transfer_max = AmountColumn(null=True, blank=True)
    daily_total = AmountColumn(null=True, blank=True)
    daily_count = models.PositiveIntegerField(null=True, blank=True)
    monthly_total = AmountColumn(null=True, blank=True)
    monthly_count = models.PositiveIntegerField(null=True, blank=True)
    balance_max = AmountColumn(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["wallet", "-id"], name="wallet_limitoverride_by_wallet")]
        constraints = [
            *(
                models.CheckConstraint(
                    name=f"wallet_limitoverride_{name}_in_range",
                    condition=Q(**{f"{name}__gte": 0, f"{name}__lt": MAX}),
                )
                for name in ("transfer_max", "daily_total", "monthly_total", "balance_max")
            ),
            models.CheckConstraint(
                name="wallet_limitoverride_says_why", condition=Q(reason__regex=r"\S")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.wallet_id}: limits of {self.created_at:%Y-%m-%d %H:%M}"


class DebitBucket(models.Model):
    """What one wallet's owner sent or reserved within one hour of UTC, for the limits.

    Only ever grows, and is deleted when no limit looks back that far.
    """

    pk = models.CompositePrimaryKey("wallet", "hour")
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="+", db_index=False)
    hour = models.DateTimeField()
    total = AmountColumn()
    count = models.IntegerField()

    class Meta:
        indexes = [models.Index(fields=["hour"], name="wallet_debitbucket_by_hour")]
        constraints = [
            models.CheckConstraint(
                name="wallet_debitbucket_in_range",
                condition=Q(total__gt=0, total__lt=MAX, count__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.wallet_id} at {self.hour:%Y-%m-%d %H}h"
