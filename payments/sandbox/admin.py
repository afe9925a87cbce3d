"""The sandbox's orders, each with the page on which a developer decides what becomes of it."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from unfold.decorators import display

from fintech_core.admin import CreatedFilter, HistoryAdmin, HistoryInline, link_to, money, uuid_in
from payments.models import SandboxDelivery, SandboxOrder
from payments.sandbox import orders

COLOURS = dict.fromkeys(SandboxOrder.Status) | {
    SandboxOrder.Status.PROCESSING: "info",
    SandboxOrder.Status.SUCCEEDED: "success",
    SandboxOrder.Status.PAID: "success",
    SandboxOrder.Status.FAILED: "danger",
}


class DeliveryInline(HistoryInline):
    model = SandboxDelivery
    verbose_name_plural = "Deliveries, newest first"
    fields = [
        "event_type",
        "status",
        "attempts",
        "answer_status",
        "next_attempt_at",
        "delivered_at",
    ]
    hide_title = True


@admin.register(SandboxOrder)
class SandboxOrderAdmin(HistoryAdmin):
    """Only where there is a sandbox."""

    list_display = ["created_at", "subject", "asked", "state", "reference", "page"]
    list_display_links = ["created_at"]
    list_filter = [("created_at", CreatedFilter)]
    search_help_text = "Reference, or our id of the order"
    inlines = [DeliveryInline]
    fieldsets = [
        (None, {"fields": ["id", "subject", "reference", "intent_reference", "asked", "page"]}),
        ("What became of it", {"fields": ["status", "moved", "settled_at"]}),
        ("When", {"fields": ["created_at"]}),
    ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return settings.PAYMENTS_SANDBOX and super().has_view_permission(request, obj)

    def found_by(self, text: str) -> Q:
        return Q(pk=key) if (key := uuid_in(text)) else Q(reference=text)

    @display(description="Amount")
    def asked(self, order: SandboxOrder) -> str:
        return money(order.amount, order.currency)

    @display(description="Moved")
    def moved(self, order: SandboxOrder) -> str:
        return money(order.settled_amount, order.currency)

    @display(description="Status", label=COLOURS)
    def state(self, order: SandboxOrder) -> tuple[str, str]:
        return order.status, order.get_status_display()

    @display(description="Page")
    def page(self, order: SandboxOrder) -> str:
        return link_to(orders.page_url(order.subject, order.reference), "Open")
