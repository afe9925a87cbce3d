"""Transactions and the ledger, to look at. What was posted never changes."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import URLPattern, path
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import display

from fintech_core.admin import (
    CreatedFilter,
    HistoryAdmin,
    HistoryInline,
    link,
    money,
    uuid_in,
)
from transactions import (  # noqa: F401 - register
    adjustment_admin,
    batch_admin,
    checkpoint_admin,
    hold_admin,
)
from transactions.models import (
    Account,
    StaffRefund,
    Transaction,
    TransactionLedger,
    TransferBatchLeg,
)
from transactions.trial_balance_admin import trial_balance_page
from users import queries as users_queries

STATUS_COLOURS = {
    Transaction.Status.PENDING: "warning",
    Transaction.Status.COMPLETED: "success",
    Transaction.Status.FAILED: "danger",
}
ENTRY_COLOURS = {
    TransactionLedger.EntryType.CREDIT: "success",
    TransactionLedger.EntryType.DEBIT: "info",
}
REFERENCE_PREFIX = "TX-"


class EntryLooks:
    """How an entry looks, in a list and on its transaction's page."""

    @display(description="Account")
    def side(self, entry: TransactionLedger) -> str:
        return (
            link(entry.wallet, f"Wallet of {entry.wallet.user}")
            if entry.wallet
            else (entry.get_account_display())
        )

    @display(description="Side", label=ENTRY_COLOURS)
    def direction(self, entry: TransactionLedger) -> tuple[str, str]:
        return entry.entry_type, entry.get_entry_type_display()

    @display(description="Amount")
    def moved(self, entry: TransactionLedger) -> str:
        return money(entry.amount, entry.currency)

    @display(description="Balance after")
    def after(self, entry: TransactionLedger) -> str:
        return money(entry.balance_after, entry.currency)


class EntryInline(EntryLooks, HistoryInline):
    model = TransactionLedger
    verbose_name_plural = "Ledger entries"
    fields = ["entry", "side", "moved", "after", "sequence", "created_at"]
    ordering = ["pk"]
    hide_title = True

    related = ["wallet__user"]

    @display(description="Side")
    def entry(self, entry: TransactionLedger) -> str:
        return link(entry, entry.get_entry_type_display())


@admin.register(Transaction)
class TransactionAdmin(HistoryAdmin):
    list_display = ["reference_id", "type", "state", "moved", "payer", "payee", "created_at"]
    list_filter = [
        ("type", ChoicesDropdownFilter),
        ("status", ChoicesDropdownFilter),
        ("created_at", CreatedFilter),
    ]
    search_help_text = "Reference, id, or the beginning of a party's email, name or phone number"
    inlines = [EntryInline]
    fieldsets = [
        (None, {"fields": ["reference_id", "id", "type", "status", "created_at", "completed_at"]}),
        ("Money", {"fields": ["moved", "charged", "refunded", "payer", "payee", "refunder"]}),
        ("Why", {"fields": ["description", "metadata", "batch", "original", "effect_key"]}),
    ]

    related = ["from_user", "to_user", "parent"]

    def get_urls(self) -> list[URLPattern]:
        page = path(
            "trial-balance/",
            self.admin_site.admin_view(trial_balance_page),
            name="transactions_trial_balance",
        )
        return [page, *super().get_urls()]

    def found_by(self, text: str) -> Q:
        if text.upper().startswith(REFERENCE_PREFIX):
            return Q(reference_id=text.upper())
        if key := uuid_in(text):
            return Q(pk=key) | Q(from_user=key) | Q(to_user=key)
        people = users_queries.found_ids(text)
        return Q(from_user__in=people) | Q(to_user__in=people)

    @display(description="Status", label=STATUS_COLOURS)
    def state(self, made: Transaction) -> tuple[str, str]:
        return made.status, made.get_status_display()

    @display(description="Amount")
    def moved(self, made: Transaction) -> str:
        return money(made.amount, made.currency)

    @display(description="Fee")
    def charged(self, made: Transaction) -> str:
        return money(made.fee, made.currency)

    @display(description="Refunded")
    def refunded(self, made: Transaction) -> str:
        return money(made.refunded_amount, made.currency)

    @display(description="From")
    def payer(self, made: Transaction) -> str:
        return link(made.from_user)

    @display(description="To")
    def payee(self, made: Transaction) -> str:
        return link(made.to_user)

    @display(description="Refunded by staff")
    def refunder(self, made: Transaction) -> str:
        record = StaffRefund.objects.filter(transaction=made).select_related("staff").first()
        return link(record.staff if record else None)

    @display(description="Batch")
    def batch(self, made: Transaction) -> str:
        leg = TransferBatchLeg.objects.filter(transaction=made).select_related("batch").first()
        return link(leg.batch if leg else None)

    @display(description="Original transaction")
    def original(self, made: Transaction) -> str:
        return link(made.parent)


class AccountFilter(DropdownFilter):
    """The wallets' entries, or those of one system account (which have an index of their own)."""

    title = "account"
    parameter_name = "account"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in Account.choices]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[TransactionLedger]
    ) -> QuerySet[TransactionLedger]:
        account = self.value()
        if account not in Account.values:
            return queryset
        is_system = account != Account.WALLET
        return queryset.filter(account=account, wallet__isnull=is_system)


@admin.register(TransactionLedger)
class TransactionLedgerAdmin(EntryLooks, HistoryAdmin):
    list_display = ["created_at", "movement", "side", "direction", "moved", "after", "sequence"]
    list_display_links = ["created_at"]
    list_filter = [AccountFilter, ("created_at", CreatedFilter)]
    linked_lookups = frozenset({"wallet__exact"})
    search_help_text = "Transaction's reference, an id, or the owner's email, name or phone number"
    fields = ["id", "movement", "side", "entry_type", "moved", "after", "sequence", "created_at"]

    related = ["transaction", "wallet__user"]

    def get_ordering(self, request: HttpRequest) -> list[str]:
        """One wallet's entries by their number, which is indexed with the wallet."""
        return ["-sequence"] if "wallet__exact" in request.GET else ["-pk"]

    def found_by(self, text: str) -> Q:
        if text.upper().startswith(REFERENCE_PREFIX):
            return Q(transaction__reference_id=text.upper())
        if key := uuid_in(text):
            return Q(pk=key) | Q(transaction=key) | Q(wallet=key)
        return Q(wallet__user__in=users_queries.found_ids(text))

    @display(description="Transaction")
    def movement(self, entry: TransactionLedger) -> str:
        return link(entry.transaction)
