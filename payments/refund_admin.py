"""Refunds to source in the admin: ordered on an intent's page, and what became of them."""

from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from django import forms
from django.contrib import admin
from django.core.validators import RegexValidator
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from fintech_core.admin import (
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    Question,
    link,
    money,
    uuid_in,
)
from fintech_core.money import AMOUNT_PATTERN, AmountInvalid, parse_amount
from payments import refunds
from payments.models import DepositRefund, PaymentIntent
from payments.models.refund import REASON_MAX_LENGTH
from payments.payout_admin import ReferenceForm
from payments.refunds import REFUND_PERMISSION, RefundOrder
from payments.services import PaymentService
from users.models import User

STATUS_COLOURS = {
    DepositRefund.Status.PENDING: "info",
    DepositRefund.Status.SUCCEEDED: "success",
    DepositRefund.Status.FAILED: "danger",
}


class RefundForm(forms.Form):
    amount = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        validators=[RegexValidator(AMOUNT_PATTERN, "Write the amount as a decimal, such as 5.00.")],
        help_text="In the deposit's currency. Empty: all that is left of it.",
    )
    reason = forms.CharField(
        max_length=REASON_MAX_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="The customer reads this on their statement.",
    )
    # A new one each time the form is shown, so that a second click sends the same order again.
    form_id = forms.UUIDField(widget=forms.HiddenInput(), initial=uuid4)

    def clean_amount(self) -> Decimal | None:
        if not (text := self.cleaned_data["amount"]):
            return None
        try:
            return parse_amount(text)
        except AmountInvalid as refusal:
            raise forms.ValidationError(str(refusal)) from refusal


REFUND = Question(
    title="Send back to source",
    explanation=(
        "The money leaves the customer's wallet at once, and the gateway is asked to send it back "
        "to where it came from. If the gateway cannot, it returns to the wallet by itself."
    ),
    button="Send back",
    form_class=RefundForm,
    is_dangerous=True,
)


REFERENCE = Question(
    title="Name the gateway's reference",
    explanation=(
        "For a refund that is in the gateway's dashboard. The gateway is asked about the reference"
        " now, and what it says settles the refund. It stays for good."
    ),
    button="Set the reference",
    form_class=ReferenceForm,
)
GIVE_UP = Question(
    title="Give the money back",
    explanation=(
        "Only if you have made sure at the gateway that it does not have this refund: the money"
        " goes back to the wallet at once, and if the gateway sends it to its source all the same,"
        " it is paid twice. There is no way back."
    ),
    button="Give the money back",
    is_dangerous=True,
)


class RefundingAdmin(AskingAdmin):
    """For intents: the money of one that succeeded can be sent back from its page."""

    actions_detail = ["refund"]

    def has_refund_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(REFUND_PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only where it can succeed: nobody is offered to refund their own money."""
        intent = self.get_object(request, str(object_id))
        offered = (
            intent is not None
            and intent.status == PaymentIntent.Status.SUCCEEDED
            and intent.user_id != request.user.pk
        )
        return super().get_actions_detail(request, object_id) if offered else []

    @action(
        description="Send back to source",
        url_path="refund",
        icon="undo",
        variant=ActionVariant.DANGER,
        permissions=["refund"],
    )
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def do(intent: PaymentIntent, amount: Decimal | None, reason: str, form_id: UUID) -> str:
            asked = RefundOrder(intent_id=intent.pk, amount=amount, reason=reason, form_id=form_id)
            made = PaymentService.order_refund(staff=_staff(request), asked=asked)
            # Once it is committed: no gateway is asked within a database transaction.
            transaction.on_commit(partial(PaymentService.send_refund, made.pk), robust=True)
            return f"Ordered: {made}."

        return self.ask(request, object_id, REFUND, do)


@admin.register(DepositRefund)
class DepositRefundAdmin(AskingAdmin, HistoryAdmin):
    list_display = ["created_at", "person", "asked", "state", "gateway", "gateway_reference"]
    list_display_links = ["created_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    search_help_text = "Gateway reference, or an id of the refund, its intent or its transaction"
    actions_detail = ["name_reference", "give_up"]
    fieldsets = [
        (None, {"fields": ["id", "about", "person", "asked", "status"]}),
        ("Order", {"fields": ["reason", "orderer", "created_at"]}),
        ("Gateway", {"fields": ["gateway", "gateway_reference", "attempts", "next_attempt_at"]}),
        ("Effect", {"fields": ["taken", "returned", "failure_code", "completed_at"]}),
    ]
    related = ["intent__user", "transaction", "reversal", "requested_by"]

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            return Q(pk=key) | Q(intent=key) | Q(transaction=key)
        return Q(gateway_reference=text)

    @display(description="User")
    def person(self, refund: DepositRefund) -> str:
        return link(refund.intent.user)

    @display(description="Amount")
    def asked(self, refund: DepositRefund) -> str:
        return money(refund.amount, refund.currency)

    @display(description="Status", label=STATUS_COLOURS)
    def state(self, refund: DepositRefund) -> tuple[str, str]:
        return refund.status, refund.get_status_display()

    @display(description="Intent")
    def about(self, refund: DepositRefund) -> str:
        return link(refund.intent)

    @display(description="Ordered by")
    def orderer(self, refund: DepositRefund) -> str:
        return link(refund.requested_by)

    @display(description="Taken by")
    def taken(self, refund: DepositRefund) -> str:
        return link(refund.transaction)

    @display(description="Returned by")
    def returned(self, refund: DepositRefund) -> str:
        return link(refund.reversal)

    # --- Putting right

    def has_settle_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(refunds.SETTLE_PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offered only where they can succeed."""
        refund = self.get_object(request, str(object_id))
        if (
            refund is None
            or not refunds.is_lost(refund)
            or refund.intent.user_id == request.user.pk
        ):
            return []
        return super().get_actions_detail(request, object_id)

    @action(
        description="Name the reference",
        url_path="name-reference",
        icon="link",
        permissions=["settle"],
    )
    def name_reference(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def name(refund: DepositRefund, reference: str) -> str:
            named = PaymentService.name_refund_reference(
                refund_id=refund.pk, by=_staff(request), reference=reference
            )
            return f"The gateway's reference is {named.gateway_reference}: {named.status}."

        return self.ask(request, object_id, REFERENCE, name)

    @action(
        description="Give the money back", url_path="give-up", icon="undo", permissions=["settle"]
    )
    def give_up(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def give_up(refund: DepositRefund) -> str:
            PaymentService.give_up_refund(refund_id=refund.pk, by=_staff(request))
            return "The refund failed; the money is back in the wallet."

        return self.ask(request, object_id, GIVE_UP, give_up)


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
    return request.user
