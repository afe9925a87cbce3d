"""Money that came for closed wallets, until somebody says what became of it."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from fintech_core.admin import (
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    Question,
    link,
    money,
    uuid_in,
)
from payments.models import SuspendedDeposit
from payments.services import PaymentService
from payments.suspense import RESOLVE_PERMISSION
from users.models import User

COLOURS = {SuspendedDeposit.Status.OPEN: "warning", SuspendedDeposit.Status.RESOLVED: "success"}


class NoteForm(forms.Form):
    note = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Such as: sent back to the payer, with the gateway's number for it.",
    )


RESOLVE = Question(
    title="Say what became of it",
    explanation=(
        "Send the money back at the gateway first: this moves none. The note stays on record, and"
        " the amount stays in the suspense account."
    ),
    button="Resolve",
    form_class=NoteForm,
)


@admin.register(SuspendedDeposit)
class SuspendedDepositAdmin(AskingAdmin, HistoryAdmin):
    list_display = ["created_at", "person", "arrived", "state", "paid", "resolver"]
    list_display_links = ["created_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    search_help_text = "An id, of the intent or the transaction, too"
    actions_detail = ["resolve"]
    fieldsets = [
        (None, {"fields": ["id", "person", "arrived", "status"]}),
        ("Where it came from, and lies", {"fields": ["paid", "deposit"]}),
        ("Resolution", {"fields": ["note", "resolver", "resolved_at"]}),
        ("When", {"fields": ["created_at"]}),
    ]
    related = ["intent__user", "transaction", "resolved_by"]

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            return Q(pk=key) | Q(intent=key) | Q(transaction=key)
        return Q(pk__in=[])

    @display(description="User")
    def person(self, suspended: SuspendedDeposit) -> str:
        return link(suspended.intent.user)

    @display(description="Amount")
    def arrived(self, suspended: SuspendedDeposit) -> str:
        return money(suspended.intent.amount, suspended.intent.currency)

    @display(description="Status", label=COLOURS)
    def state(self, suspended: SuspendedDeposit) -> tuple[str, str]:
        return suspended.status, suspended.get_status_display()

    @display(description="Intent")
    def paid(self, suspended: SuspendedDeposit) -> str:
        return link(suspended.intent)

    @display(description="Deposit")
    def deposit(self, suspended: SuspendedDeposit) -> str:
        return link(suspended.transaction)

    @display(description="Resolved by")
    def resolver(self, suspended: SuspendedDeposit) -> str:
        return link(suspended.resolved_by)

    def has_resolve_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(RESOLVE_PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offered while it is open, and not to whose money it was."""
        one = self.get_object(request, str(object_id))
        if one is None or one.status != SuspendedDeposit.Status.OPEN:
            return []
        is_own = one.intent.user_id == request.user.pk
        return [] if is_own else super().get_actions_detail(request, object_id)

    @action(
        description="Resolve",
        icon="task_alt",
        variant=ActionVariant.PRIMARY,
        permissions=["resolve"],
    )
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def resolve(suspended: SuspendedDeposit, note: str) -> str:
            assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
            PaymentService.resolve_suspense(suspended_id=suspended.pk, by=request.user, note=note)
            return "Resolved."

        return self.ask(request, object_id, RESOLVE, resolve)
