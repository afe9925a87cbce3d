"""Adjustments in the admin: one member of staff proposes, another approves or rejects."""

from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.validators import RegexValidator
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from rest_framework.exceptions import APIException
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from fintech_core.admin import (
    NOTHING,
    CreatedFilter,
    ListAdmin,
    Question,
    change_page,
    link,
    money,
    uuid_in,
)
from fintech_core.exceptions import DomainError, problem_of
from fintech_core.money import AMOUNT_PATTERN, AmountInvalid, parse_amount
from transactions.adjustments import APPROVE_PERMISSION, PROPOSE_PERMISSION, Proposal
from transactions.models import Adjustment, TransactionLedger
from transactions.models.adjustment import REASON_MAX_LENGTH
from transactions.question_admin import FreshQuestionAdmin
from transactions.services import TransactionService
from users import queries as users_queries
from users.models import User
from wallet.models import Wallet

STATUS_COLOURS = {
    Adjustment.Status.PROPOSED: "warning",
    Adjustment.Status.APPROVED: "success",
    Adjustment.Status.REJECTED: "danger",
}
DIRECTIONS = [
    (TransactionLedger.EntryType.CREDIT, "Credit: the wallet gets money"),
    (TransactionLedger.EntryType.DEBIT, "Debit: money is taken from the wallet"),
]


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=REASON_MAX_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Staff read this.",
    )


class ProposalForm(forms.Form):
    wallet = forms.CharField(
        max_length=254,
        widget=UnfoldAdminTextInputWidget(),
        help_text="The owner's email, or the id of the wallet or of its owner.",
    )
    direction = forms.ChoiceField(choices=DIRECTIONS, widget=UnfoldAdminSelectWidget())
    amount = forms.CharField(
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        validators=[RegexValidator(AMOUNT_PATTERN, "Write the amount as a decimal, such as 5.00.")],
        help_text="In the wallet's currency.",
    )
    reason = forms.CharField(
        max_length=REASON_MAX_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="The customer reads this on their statement.",
    )
    # A new one each time the form is shown, so that a second click sends the same proposal again.
    form_id = forms.UUIDField(widget=forms.HiddenInput(), initial=uuid4)

    def clean_wallet(self) -> Wallet:
        text = self.cleaned_data["wallet"].strip()
        key = uuid_in(text)
        wanted = Q(pk=key) | Q(user=key) if key else Q(user__email=text.lower())
        wallet = Wallet.objects.filter(wanted).first()
        if wallet is None:
            raise forms.ValidationError("There is no such wallet.")
        return wallet

    def clean_amount(self) -> Decimal:
        try:
            return parse_amount(self.cleaned_data["amount"])
        except AmountInvalid as refusal:
            raise forms.ValidationError(str(refusal)) from refusal

    def to_proposal(self) -> Proposal:
        return Proposal(
            wallet_id=self.cleaned_data["wallet"].pk,
            direction=TransactionLedger.EntryType(self.cleaned_data["direction"]),
            amount=self.cleaned_data["amount"],
            reason=self.cleaned_data["reason"],
            form_id=self.cleaned_data["form_id"],
        )


PROPOSE = Question(
    title="Propose an adjustment",
    explanation=(
        "Nothing moves until somebody else approves it. A debit takes no more than is available "
        "then."
    ),
    button="Propose",
    form_class=ProposalForm,
)
APPROVE = Question(
    title="Approve the adjustment",
    explanation="The money moves at once, against the adjustments account. There is no way back.",
    button="Approve",
)
REJECT = Question(
    title="Reject the adjustment",
    explanation="Nothing moves. The proposal and your reason stay on record.",
    button="Reject",
    form_class=ReasonForm,
    is_dangerous=True,
)


@admin.register(Adjustment)
class AdjustmentAdmin(FreshQuestionAdmin, ListAdmin):
    """What was proposed never changes; it is decided once, by somebody else."""

    list_display = ["created_at", "owner", "side", "moved", "state", "proposer", "decider"]
    list_display_links = ["created_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    search_help_text = "An id, or the beginning of the owner's email, name or phone number"
    actions_detail = ["approve", "reject"]
    fieldsets = [
        (None, {"fields": ["id", "owner", "side", "moved", "status"]}),
        ("Proposal", {"fields": ["reason", "proposer", "created_at"]}),
        ("Decision", {"fields": ["decider", "decided_at", "refusal", "effect"]}),
    ]
    related = ["wallet__user", "proposed_by", "decided_by", "transaction"]
    linked_lookups = frozenset({"wallet__exact"})

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            return Q(pk=key) | Q(wallet=key) | Q(transaction=key)
        return Q(wallet__user__in=users_queries.found_ids(text))

    @display(description="Wallet of")
    def owner(self, adjustment: Adjustment) -> str:
        return link(adjustment.wallet, str(adjustment.wallet.user))

    @display(description="Side")
    def side(self, adjustment: Adjustment) -> str:
        return adjustment.get_direction_display()

    @display(description="Amount")
    def moved(self, adjustment: Adjustment) -> str:
        return money(adjustment.amount, adjustment.currency)

    @display(description="Status", label=STATUS_COLOURS)
    def state(self, adjustment: Adjustment) -> tuple[str, str]:
        return adjustment.status, adjustment.get_status_display()

    @display(description="Proposed by")
    def proposer(self, adjustment: Adjustment) -> str:
        return link(adjustment.proposed_by)

    @display(description="Decided by")
    def decider(self, adjustment: Adjustment) -> str:
        return link(adjustment.decided_by)

    @display(description="Reason of rejection")
    def refusal(self, adjustment: Adjustment) -> str:
        return adjustment.rejection_reason or NOTHING

    @display(description="Transaction")
    def effect(self, adjustment: Adjustment) -> str:
        return link(adjustment.transaction)

    # --- Who may do what (by method: see UserAdmin)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PROPOSE_PERMISSION)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_approve_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(APPROVE_PERMISSION)

    def has_reject_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(APPROVE_PERMISSION) or self.has_add_permission(request)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Those that can succeed: nobody is offered to approve what they proposed, nor to decide
        about their own wallet."""
        adjustment = self.get_object(request, str(object_id))
        if adjustment is None or adjustment.status != Adjustment.Status.PROPOSED:
            return []
        if adjustment.wallet.user_id == request.user.pk:
            return []
        is_own = adjustment.proposed_by_id == request.user.pk
        may_reject = is_own or self.has_approve_permission(request)
        useful = {"approve": not is_own, "reject": may_reject}
        offered = super().get_actions_detail(request, object_id)
        prefix = "transactions_adjustment_"
        return [one for one in offered if useful[one.action_name.removeprefix(prefix)]]

    # --- Propose

    def add_view(self, request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        """A question of our own instead of a form for a row: one service call, one log entry."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        is_answer = request.method == "POST"
        initial = {"wallet": request.GET.get("wallet", "")}
        form = ProposalForm(request.POST if is_answer else None, initial=initial)
        if form.is_valid() and (made := self._propose(request, form.to_proposal())):
            return redirect(change_page(made))
        return self.question_page(request, PROPOSE, form, subtitle="somebody else approves it")

    def _propose(self, request: HttpRequest, proposal: Proposal) -> Adjustment | None:
        """Propose it and record it, both or neither; None if it is refused."""
        try:
            with transaction.atomic():
                made = TransactionService.propose_adjustment(
                    proposer=_staff(request), proposal=proposal
                )
                self.log_addition(request, made, "Proposed.")
        except (DomainError, APIException) as refusal:
            self.message_user(request, problem_of(refusal).detail, messages.ERROR)
            return None
        self.message_user(request, "Proposed. Somebody else has to approve it.", messages.SUCCESS)
        return made

    # --- Decide

    def ask(
        self, request: HttpRequest, object_id: str, question: Question, *args: Any, **options: Any
    ) -> HttpResponse:
        """Nobody decides without having before their eyes whose money it is, and why."""
        if adjustment := self.get_object(request, object_id):
            question = replace(
                question,
                title=f"{question.title} for {adjustment.wallet.user}",
                explanation=f"{question.explanation} {adjustment.proposed_by} wrote: "
                f"{adjustment.reason}",
            )
        return super().ask(request, object_id, question, *args, **options)

    @action(
        description="Approve",
        url_path="approve",
        icon="check",
        variant=ActionVariant.SUCCESS,
        permissions=["approve"],
    )
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def do(adjustment: Adjustment) -> str:
            made = TransactionService.approve_adjustment(
                approver=_staff(request), adjustment_id=adjustment.pk
            )
            return f"Approved: {made.transaction}."

        return self.ask(request, object_id, APPROVE, do)

    @action(
        description="Reject",
        url_path="reject",
        icon="close",
        variant=ActionVariant.DANGER,
        permissions=["reject"],
    )
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def do(adjustment: Adjustment, reason: str) -> str:
            TransactionService.reject_adjustment(
                decider=_staff(request), adjustment_id=adjustment.pk, reason=reason
            )
            return f"Rejected: {reason}"

        return self.ask(request, object_id, REJECT, do)


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
    return request.user
