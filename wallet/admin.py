"""Wallets, to look at. Money moves by transactions alone, and no transaction is made here."""

from django.contrib import admin
from django.db.models import Q
from django.urls import reverse
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from fintech_core.admin import (
    CreatedFilter,
    HistoryAdmin,
    link,
    link_to,
    money,
    uuid_in,
)
from users import queries as users_queries
from wallet.models import Wallet

STATUS_COLOURS = {
    Wallet.Status.ACTIVE: "success",
    Wallet.Status.FROZEN: "warning",
    Wallet.Status.CLOSED: "danger",
}


@admin.register(Wallet)
class WalletAdmin(HistoryAdmin):
    list_display = ["owner", "in_wallet", "on_hold", "to_spend", "state", "last_entry_at"]
    list_display_links = ["in_wallet"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    search_help_text = "Beginning of the owner's email, name or phone number; or an id"
    fieldsets = [
        (None, {"fields": ["id", "owner", "currency", "status", "created_at"]}),
        ("Money", {"fields": ["in_wallet", "on_hold", "to_spend"]}),
        ("History", {"fields": ["entry_count", "last_entry_at", "entries"]}),
    ]

    related = ["user"]

    def found_by(self, text: str) -> Q:
        key = uuid_in(text)
        return Q(pk=key) | Q(user=key) if key else Q(user__in=users_queries.found_ids(text))

    @display(description="Owner")
    def owner(self, wallet: Wallet) -> str:
        return link(wallet.user)

    @display(description="Balance")
    def in_wallet(self, wallet: Wallet) -> str:
        return money(wallet.balance, wallet.currency)

    @display(description="Held")
    def on_hold(self, wallet: Wallet) -> str:
        return money(wallet.held, wallet.currency)

    @display(description="Available")
    def to_spend(self, wallet: Wallet) -> str:
        return money(wallet.available, wallet.currency)

    @display(description="Status", label=STATUS_COLOURS)
    def state(self, wallet: Wallet) -> tuple[str, str]:
        return wallet.status, wallet.get_status_display()

    @display(description="Ledger entries")
    def entries(self, wallet: Wallet) -> str:
        """By name: this app does not know that the ledger exists."""
        page = reverse("admin:transactions_transactionledger_changelist")
        return link_to(f"{page}?wallet__exact={wallet.pk}", "Show")
