"""Holds, to look at: who reserved what for whom, and what became of it."""

from django.contrib import admin
from django.db.models import Q
from unfold.decorators import display

from fintech_core.admin import CreatedFilter, HistoryAdmin, link, money, uuid_in
from transactions.models import Hold
from users import queries as users_queries

STATUS_COLOURS = {
    Hold.Status.ACTIVE: "warning",
    Hold.Status.CAPTURED: "success",
    Hold.Status.VOIDED: "info",
    Hold.Status.EXPIRED: "info",
}


@admin.register(Hold)
class HoldAdmin(HistoryAdmin):
    # No filter by status: it has no index, and a rare status would be looked for to the end.
    list_display = ["created_at", "state", "reserved", "captured", "payer", "payee", "expires_at"]
    list_display_links = ["created_at"]
    list_filter = [("created_at", CreatedFilter)]
    search_help_text = "Id, or the beginning of a party's email, name or phone number"
    fieldsets = [
        (None, {"fields": ["id", "status", "created_at", "expires_at"]}),
        ("Resolution", {"fields": ["resolved_at", "resolver"]}),
        ("Money", {"fields": ["reserved", "captured", "capture", "payer", "payee"]}),
        ("Why", {"fields": ["description", "metadata"]}),
    ]

    related = ["from_user", "to_user", "resolved_by", "transaction"]

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            return Q(pk=key) | Q(from_user=key) | Q(to_user=key)
        people = users_queries.found_ids(text)
        return Q(from_user__in=people) | Q(to_user__in=people)

    @display(description="Status", label=STATUS_COLOURS)
    def state(self, hold: Hold) -> tuple[str, str]:
        return hold.status, hold.get_status_display()

    @display(description="Amount")
    def reserved(self, hold: Hold) -> str:
        return money(hold.amount, hold.currency)

    @display(description="Captured")
    def captured(self, hold: Hold) -> str:
        return money(hold.captured_amount, hold.currency)

    @display(description="Transaction")
    def capture(self, hold: Hold) -> str:
        return link(hold.transaction)

    @display(description="Captured or voided by")
    def resolver(self, hold: Hold) -> str:
        return link(hold.resolved_by)

    @display(description="From")
    def payer(self, hold: Hold) -> str:
        return link(hold.from_user)

    @display(description="To")
    def payee(self, hold: Hold) -> str:
        return link(hold.to_user)
