"""Payouts, to look at; and to put right the few that a gateway lost."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import BooleanRadioFilter, ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from fintech_core.admin import (
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    Question,
    link,
    link_to,
    list_page,
    money,
    uuid_in,
)
from payments import payouts
from payments.gateways.base import REFERENCE_MAX
from payments.models import Payout, WebhookEvent
from payments.services import PaymentService
from users import queries as users_queries
from users.models import User

COLOURS = {
    Payout.Status.PENDING: "info",
    Payout.Status.PAID: "success",
    Payout.Status.FAILED: "danger",
}
ASKED_ABOUT: tuple[str, dict[str, Any]] = (
    "Asked the gateway",
    {"fields": ["polls", "last_polled_at", "last_answer", "next_poll_at", "needs_staff"]},
)


class ReferenceForm(forms.Form):
    reference = forms.CharField(
        max_length=REFERENCE_MAX,
        widget=UnfoldAdminTextInputWidget(),
        help_text="What the gateway calls it.",
    )


REFERENCE = Question(
    title="Name the gateway's reference",
    explanation=(
        "For a payout that is in the gateway's dashboard. It is asked about from now on, and what"
        " the gateway says settles it. Until the gateway has confirmed a reference, it can be"
        " named anew."
    ),
    button="Set the reference",
    form_class=ReferenceForm,
)
GIVE_UP = Question(
    title="Give the money back",
    explanation=(
        "Only if you have made sure at the gateway that it does not have this payout: the money"
        " goes back to the wallet at once, and if the gateway pays it out all the same, it is paid"
        " twice. There is no way back."
    ),
    button="Give the money back",
    is_dangerous=True,
)


@admin.register(Payout)
class PayoutAdmin(AskingAdmin, HistoryAdmin):
    """The account is masked: nobody here needs the whole number."""

    list_display = ["created_at", "person", "sent", "state", "to", "gateway", "gateway_reference"]
    list_display_links = ["created_at"]
    list_filter = [
        ("status", ChoicesDropdownFilter),
        ("needs_staff", BooleanRadioFilter),
        ("created_at", CreatedFilter),
    ]
    search_help_text = "Gateway reference, an id, or the beginning of email, name or phone number"
    actions_detail = ["name_reference", "give_up"]
    fieldsets = [
        (None, {"fields": ["id", "person", "sent", "status", "failure_code"]}),
        ("Destination", {"fields": ["to", "holder"]}),
        ("Gateway", {"fields": ["gateway", "gateway_reference", "named_by_staff", "events"]}),
        ("Effect", {"fields": ["withdrawal", "back", "wallet"]}),
        (
            "When",
            {"fields": ["created_at", "asked_at", "asked_again", "updated_at", "completed_at"]},
        ),
        ASKED_ABOUT,
    ]
    related = ["user", "wallet", "transaction", "reversal"]

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            return Q(pk=key) | Q(user=key) | Q(wallet=key) | Q(transaction=key) | Q(reversal=key)
        return Q(gateway_reference=text) | Q(user__in=users_queries.found_ids(text))

    @display(description="User")
    def person(self, payout: Payout) -> str:
        return link(payout.user)

    @display(description="Amount")
    def sent(self, payout: Payout) -> str:
        return money(payout.amount, payout.currency)

    @display(description="Status", label=COLOURS)
    def state(self, payout: Payout) -> tuple[str, str]:
        return payout.status, payout.get_status_display()

    @display(description="To")
    def to(self, payout: Payout) -> str:
        return payout.masked_iban

    @display(description="Withdrawal")
    def withdrawal(self, payout: Payout) -> str:
        return link(payout.transaction)

    @display(description="Reversal")
    def back(self, payout: Payout) -> str:
        return link(payout.reversal)

    @display(description="Events")
    def events(self, payout: Payout) -> str:
        return link_to(list_page(WebhookEvent, q=payout.pk), "What the gateway said")

    # --- Putting right

    def has_settle_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(payouts.SETTLE_PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offered only where they can succeed."""
        payout = self.get_object(request, str(object_id))
        if payout is None or not payouts.is_lost(payout) or payout.user_id == request.user.pk:
            return []
        return super().get_actions_detail(request, object_id)

    @action(
        description="Name the reference",
        url_path="name-reference",
        icon="link",
        permissions=["settle"],
    )
    def name_reference(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def name(payout: Payout, reference: str) -> str:
            PaymentService.name_payout_reference(
                payout_id=payout.pk, by=_staff(request), reference=reference
            )
            return f"The gateway's reference is {reference}; it is asked about now."

        return self.ask(request, object_id, REFERENCE, name)

    @action(
        description="Give the money back", url_path="give-up", icon="undo", permissions=["settle"]
    )
    def give_up(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def give_up(payout: Payout) -> str:
            PaymentService.give_up_payout(payout_id=payout.pk, by=_staff(request))
            return "The payout failed; the money is back in the wallet."

        return self.ask(request, object_id, GIVE_UP, give_up)


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
    return request.user
