"""The double-entry ledger. `migrations/0002_ledger_rules.py` enforces what is said here."""

from decimal import Decimal
from typing import NamedTuple

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn
from wallet.models import Wallet

ZERO = Decimal("0.00")
MAX = Decimal("1e13")  # NaN is above it: PostgreSQL sorts NaN after every number


class Account(models.TextChoices):
    """Whose side of the books an entry is on.

    Customers' wallets are liabilities: a credit raises them. The others are system accounts:
    no row, no stored balance and no lock; the balance of one is the sum of its entries.
    """

    WALLET = "wallet"
    GATEWAY_CLEARING = "gateway_clearing"
    PAYOUT_CLEARING = "payout_clearing"
    FEES = "fees"
    ADJUSTMENTS = "adjustments"
    SUSPENSE = "suspense"


class MovedWallet(NamedTuple):
    """A wallet that a transaction moved, and its balance right after."""

    wallet: Wallet
    balance_after: Decimal


class Transaction(models.Model):
    """One movement of money, made once and for ever.

    Invariants
    * It has at least two entries, and they balance in each currency when it commits.
    * Only `status` (forward), `completed_at` (with it) and `refunded_amount` (upward) ever change.
    * `refunded_amount` is the sum of its refunds; of a deposit, whose refunds may come back from
      the gateway, the most that was on its way back at any one time.
    * It is reversed at most once.
    * `completed_at` equals its entries' `created_at`, unless a gateway still has to settle it.
    * A withdrawal begins pending; when it fails, its one reversal brings the money back at once.
    * Only a deposit to `suspense` names no party: its money came for a wallet that takes none.
    * `effect_key` names what caused it outside a customer's request (`payment_intent:<id>`); two
      transactions cannot have the same cause.
    """

    class Type(models.TextChoices):
        TRANSFER = "transfer"
        DEPOSIT = "deposit"
        WITHDRAWAL = "withdrawal"
        REFUND = "refund"
        CAPTURE = "capture"
        REVERSAL = "reversal"
        ADJUSTMENT = "adjustment"

    class Status(models.TextChoices):
        PENDING = "pending"
        COMPLETED = "completed"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    reference_id = models.CharField(max_length=32, editable=False)
    type = models.CharField(max_length=10, choices=Type)
    status = models.CharField(max_length=9, choices=Status)
    amount = AmountColumn()
    currency = CurrencyColumn()
    fee = AmountColumn(default=ZERO)
    refunded_amount = AmountColumn(default=ZERO)
    # Parties own the wallets of its entries, which the seal sees to: no foreign key asks again.
    from_user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_constraint=False,
    )
    to_user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_constraint=False,
    )
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="children")
    description = models.CharField(max_length=255, blank=True)
    metadata = models.JSONField(default=dict)
    effect_key = models.CharField(max_length=100, null=True)  # noqa: DJ001
    created_at = models.DateTimeField(editable=False)
    completed_at = models.DateTimeField(null=True, editable=False)

    moved: list[MovedWallet]  # of one that `posting` has just made

    class Meta:
        indexes = [
            # Few are pending at a time; a wallet is not closed while one of its owner's is.
            models.Index(
                name="transactions_pending",
                fields=["from_user"],
                condition=Q(status="pending"),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                name="transactions_transaction_one_reference", fields=["reference_id"]
            ),
            models.UniqueConstraint(
                name="transactions_transaction_one_effect_per_cause",
                fields=["effect_key"],
                condition=Q(effect_key__isnull=False),
            ),
            models.UniqueConstraint(
                name="transactions_transaction_undone_once",
                fields=["parent"],
                condition=Q(type="reversal"),
            ),
            models.CheckConstraint(
                name="transactions_transaction_amount_positive",
                condition=Q(amount__gt=0, amount__lt=MAX),
            ),
            models.CheckConstraint(
                name="transactions_transaction_fee_not_negative",
                condition=Q(fee__gte=0, fee__lt=MAX),
            ),
            models.CheckConstraint(
                name="transactions_transaction_refunds_within_amount",
                condition=Q(refunded_amount__gte=0, refunded_amount__lte=F("amount")),
            ),
            models.CheckConstraint(
                name="transactions_transaction_two_different_parties",
                condition=Q(from_user__isnull=True)
                | Q(to_user__isnull=True)
                | ~Q(from_user=F("to_user")),
            ),
            models.CheckConstraint(
                name="transactions_transaction_type_known",
                condition=Q(
                    type__in=[
                        "transfer",
                        "deposit",
                        "withdrawal",
                        "refund",
                        "capture",
                        "reversal",
                        "adjustment",
                    ]
                ),
            ),
            models.CheckConstraint(
                name="transactions_transaction_only_withdrawals_wait",
                condition=Q(status="completed")
                | Q(status__in=["pending", "failed"], type="withdrawal"),
            ),
            models.CheckConstraint(
                name="transactions_transaction_completed_at_iff_completed",
                condition=Q(status="completed", completed_at__isnull=False)
                | Q(status__in=["pending", "failed"], completed_at__isnull=True),
            ),
            models.CheckConstraint(
                name="transactions_transaction_completes_after_it_began",
                condition=Q(completed_at__isnull=True) | Q(completed_at__gte=F("created_at")),
            ),
            models.CheckConstraint(
                name="transactions_transaction_settles_at_once",
                condition=Q(type="withdrawal") | Q(completed_at=F("created_at")),
            ),
            models.CheckConstraint(
                name="transactions_transaction_currency_is_a_code",
                condition=Q(currency__regex=r"^[A-Z]{3}$"),
            ),
        ]

    def __str__(self) -> str:
        return self.reference_id


class TransactionLedger(models.Model):
    """One side of a transaction: a ledger entry. Written once; never changed, never deleted.

    Invariants
    * A wallet's entries are numbered 1, 2, 3 … by `sequence`; order is by that number, not by time.
    * `balance_after` is the previous entry's, plus a credit or minus a debit.
    * `currency` is the wallet's and the transaction's.
    * A transaction touches a wallet at most once.
    """

    class EntryType(models.TextChoices):
        DEBIT = "debit"
        CREDIT = "credit"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Indexed by the unique constraints that begin with them. That both exist is part of what
    # `transactions_ledger_entry_fits` asks, and neither is ever deleted.
    transaction = models.ForeignKey(
        Transaction,
        on_delete=models.PROTECT,
        related_name="entries",
        db_index=False,
        db_constraint=False,
    )
    account = models.CharField(max_length=20, choices=Account)
    wallet = models.ForeignKey(
        Wallet,
        on_delete=models.PROTECT,
        null=True,
        related_name="entries",
        db_index=False,
        db_constraint=False,
    )
    sequence = models.BigIntegerField(null=True)
    entry_type = models.CharField(max_length=6, choices=EntryType)
    amount = AmountColumn()
    currency = CurrencyColumn()
    balance_after = AmountColumn(null=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "ledger entry"
        verbose_name_plural = "ledger entries"
        indexes = [
            # A moment becomes a number in one look-up, so lists bounded in time stay index ranges.
            models.Index(
                name="transactions_ledger_moment", fields=["wallet", "created_at", "sequence"]
            ),
            # With what a sum needs: a trial balance reads a system account from the index alone.
            models.Index(
                name="transactions_ledger_account",
                fields=["account", "created_at"],
                include=["currency", "entry_type", "amount"],
                condition=Q(wallet__isnull=True),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                name="transactions_ledger_one_number_per_wallet", fields=["wallet", "sequence"]
            ),
            models.UniqueConstraint(
                name="transactions_ledger_one_entry_per_wallet", fields=["transaction", "wallet"]
            ),
            models.CheckConstraint(
                name="transactions_ledger_amount_positive",
                condition=Q(amount__gt=0, amount__lt=MAX),
            ),
            models.CheckConstraint(
                name="transactions_ledger_entry_type_known",
                condition=Q(entry_type__in=["debit", "credit"]),
            ),
            models.CheckConstraint(
                name="transactions_ledger_account_known",
                condition=Q(
                    account__in=[
                        "wallet",
                        "gateway_clearing",
                        "payout_clearing",
                        "fees",
                        "adjustments",
                        "suspense",
                    ]
                ),
            ),
            models.CheckConstraint(
                name="transactions_ledger_wallet_entries_are_numbered",
                condition=Q(
                    account="wallet",
                    wallet__isnull=False,
                    sequence__isnull=False,
                    balance_after__isnull=False,
                )
                | (
                    ~Q(account="wallet")
                    & Q(wallet__isnull=True, sequence__isnull=True, balance_after__isnull=True)
                ),
            ),
            models.CheckConstraint(
                name="transactions_ledger_balance_not_negative",
                condition=Q(balance_after__isnull=True)
                | Q(balance_after__gte=0, balance_after__lt=MAX),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entry_type} {self.amount} {self.currency}"

    @property
    def signed_amount(self) -> Decimal:
        """The amount as its wallet's owner sees it: a credit adds, a debit takes."""
        return self.amount if self.entry_type == self.EntryType.CREDIT else -self.amount
