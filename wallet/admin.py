"""Wallets. Money moves by transactions alone, and no transaction is made here; staff freeze,
unfreeze and close wallets, and set limits for single ones."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from fintech_core.admin import (
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    HistoryInline,
    Question,
    link,
    link_to,
    money,
    uuid_in,
)
from fintech_core.money import DECIMAL_PLACES, MAX_DIGITS
from users import queries as users_queries
from users.models import User
from users.validators import plain_text
from wallet import services
from wallet.limits import NAMES, limits_of
from wallet.models import REASON_MAX_LENGTH, LimitOverride, Wallet, WalletStep
from wallet.services import LIMITS_PERMISSION, STATUS_PERMISSION, ChosenLimits

STATUS_COLOURS = {
    Wallet.Status.ACTIVE: "success",
    Wallet.Status.FROZEN: "warning",
    Wallet.Status.CLOSED: "danger",
}
LIMIT_NAMES = {
    "transfer_max": "A single payment",
    "daily_total": "Sent within 24 hours",
    "daily_count": "Payments within 24 hours",
    "monthly_total": "Sent within 30 days",
    "monthly_count": "Payments within 30 days",
    "balance_max": "Balance",
}


# --- What is asked -------------------------------------------------------------------------------


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=REASON_MAX_LENGTH,
        validators=[plain_text],
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Staff read this; the customer does not.",
    )


def _amount(name: str) -> forms.DecimalField:
    return forms.DecimalField(
        label=LIMIT_NAMES[name],
        required=False,
        min_value=0,
        max_digits=MAX_DIGITS,
        decimal_places=DECIMAL_PLACES,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
    )


def _count(name: str) -> forms.IntegerField:
    return forms.IntegerField(
        label=LIMIT_NAMES[name],
        required=False,
        min_value=0,
        max_value=2**31 - 1,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
    )


class LimitsForm(ReasonForm):
    transfer_max = _amount("transfer_max")
    daily_total = _amount("daily_total")
    daily_count = _count("daily_count")
    monthly_total = _amount("monthly_total")
    monthly_count = _count("monthly_count")
    balance_max = _amount("balance_max")
    field_order = (*NAMES, "reason")


FREEZE = Question(
    title="Freeze the wallet",
    explanation="Nothing leaves the wallet any more. What arrives is still credited.",
    button="Freeze",
    form_class=ReasonForm,
    is_dangerous=True,
)
UNFREEZE = Question(
    title="Unfreeze the wallet",
    explanation="The customer may send money again.",
    button="Unfreeze",
    form_class=ReasonForm,
)
CLOSE = Question(
    title="Close the wallet",
    explanation="Nothing leaves the wallet or arrives in it any more. There is no way back.",
    button="Close",
    form_class=ReasonForm,
    is_dangerous=True,
)
LIMITS = Question(
    title="Set the limits of the wallet",
    explanation=(
        "They replace whatever was set before, at once. Where you leave a field empty, the limit "
        "of the KYC tier counts. Nobody may send before their KYC is approved, whatever you set."
    ),
    button="Set limits",
    form_class=LimitsForm,
)


# --- What was decided ----------------------------------------------------------------------------


class WalletStepInline(HistoryInline):
    model = WalletStep
    verbose_name_plural = "Frozen, unfrozen, closed; newest first"
    fields = ["created_at", "from_status", "to_status", "by", "reason"]
    hide_title = True

    related = ["actor"]

    @display(description="By")
    def by(self, step: WalletStep) -> str:
        return link(step.actor)


class LimitOverrideInline(HistoryInline):
    model = LimitOverride
    verbose_name_plural = "Limits set for this wallet; the newest count"
    fields = ["created_at", "chosen", "by", "reason"]
    hide_title = True

    related = ["actor", "wallet"]

    @display(description="Set (the rest is the tier's)")
    def chosen(self, override: LimitOverride) -> str:
        chosen = [name for name in NAMES if getattr(override, name) is not None]
        return _limits_shown(override, chosen, override.wallet.currency) or "Nothing"

    @display(description="By")
    def by(self, override: LimitOverride) -> str:
        return link(override.actor)


@admin.register(Wallet)
class WalletAdmin(AskingAdmin, HistoryAdmin):
    list_display = ["holder", "in_wallet", "on_hold", "to_spend", "state", "last_entry_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    search_help_text = "Beginning of the owner's email, name or phone number; or an id"
    fieldsets = [
        (None, {"fields": ["id", "owner", "currency", "status", "created_at"]}),
        ("Money", {"fields": ["in_wallet", "on_hold", "to_spend"]}),
        ("Limits", {"fields": ["limits"]}),
        ("History", {"fields": ["entry_count", "last_entry_at", "entries", "adjustments"]}),
    ]

    inlines = [WalletStepInline, LimitOverrideInline]
    actions_detail = ["freeze", "unfreeze", "close", "set_limits"]

    related = ["user", "limit_override"]

    def found_by(self, text: str) -> Q:
        key = uuid_in(text)
        return Q(pk=key) | Q(user=key) if key else Q(user__in=users_queries.found_ids(text))

    @display(description="Owner")
    def holder(self, wallet: Wallet) -> str:
        """Without a link of its own: in the list it leads to the wallet."""
        return str(wallet.user)

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

    @display(description="In force")
    def limits(self, wallet: Wallet) -> str:
        """What the tier allows, as staff changed it for this wallet."""
        return _limits_shown(limits_of(wallet, wallet.user), NAMES, wallet.currency)

    @display(description="Ledger entries")
    def entries(self, wallet: Wallet) -> str:
        """By name: this app does not know that the ledger exists."""
        page = reverse("admin:transactions_transactionledger_changelist")
        return link_to(f"{page}?wallet__exact={wallet.pk}", "Show")

    @display(description="Adjustments")
    def adjustments(self, wallet: Wallet) -> str:
        """By name, too. The pages behind the links ask who may."""
        shown = reverse("admin:transactions_adjustment_changelist")
        proposal = reverse("admin:transactions_adjustment_add")
        return format_html(
            "{} &middot; {}",
            link_to(f"{shown}?wallet__exact={wallet.pk}", "Show"),
            link_to(f"{proposal}?wallet={wallet.pk}", "Propose one"),
        )

    # --- What staff do (permissions by method: see UserAdmin)

    def has_status_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(STATUS_PERMISSION)

    def has_limits_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(LIMITS_PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Those that can succeed. Nobody is offered to decide about their own wallet."""
        wallet = self.get_object(request, str(object_id))
        if wallet is None or wallet.user_id == request.user.pk:
            return []
        is_open = wallet.status != Wallet.Status.CLOSED
        useful = {
            "freeze": wallet.status == Wallet.Status.ACTIVE,
            "unfreeze": wallet.status == Wallet.Status.FROZEN,
            "close": is_open and not wallet.balance,
            "set_limits": is_open,
        }
        offered = super().get_actions_detail(request, object_id)
        return [one for one in offered if useful[one.action_name.removeprefix("wallet_wallet_")]]

    def ask(
        self, request: HttpRequest, object_id: str, question: Question, *args: Any, **options: Any
    ) -> HttpResponse:
        """Whose wallet it is stands in the title: nobody knows a wallet by its id."""
        if wallet := self.get_object(request, object_id):
            question = replace(question, title=f"{question.title} of {wallet.user}")
        return super().ask(request, object_id, question, *args, **options)

    @action(
        description="Freeze",
        url_path="freeze",
        icon="ac_unit",
        variant=ActionVariant.DANGER,
        permissions=["status"],
    )
    def freeze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_why(request, object_id, FREEZE, services.freeze, "Frozen")

    @action(description="Unfreeze", url_path="unfreeze", icon="undo", permissions=["status"])
    def unfreeze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_why(request, object_id, UNFREEZE, services.unfreeze, "Unfrozen")

    @action(description="Close", url_path="close", icon="block", permissions=["status"])
    def close(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_why(request, object_id, CLOSE, services.close, "Closed")

    def _ask_why(
        self,
        request: HttpRequest,
        object_id: str,
        question: Question,
        step: Callable[..., Wallet],
        done: str,
    ) -> HttpResponse:
        def do(wallet: Wallet, reason: str) -> str:
            step(wallet_id=wallet.pk, actor=_staff(request), reason=reason)
            return f"{done}: {reason}"

        return self.ask(request, object_id, question, do)

    @action(description="Set limits", url_path="set-limits", icon="tune", permissions=["limits"])
    def set_limits(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def do(wallet: Wallet, reason: str, **chosen: Any) -> str:
            services.override_limits(
                wallet_id=wallet.pk,
                actor=_staff(request),
                reason=reason,
                chosen=ChosenLimits(**chosen),
            )
            return f"Limits set: {reason}"

        return self.ask(request, object_id, LIMITS, do, initial=_chosen_before)


def _chosen_before(wallet: Wallet) -> dict[str, Any]:
    return {name: getattr(wallet.limit_override, name, None) for name in NAMES}


def _limits_shown(limits: Any, names: Iterable[str], currency: str) -> str:
    """Those of `names`, a line each."""
    lines = ((LIMIT_NAMES[name], _shown(name, getattr(limits, name), currency)) for name in names)
    return format_html_join(mark_safe("<br>"), "{}: {}", lines)


def _shown(name: str, most: Any, currency: str) -> str:
    return str(most) if name.endswith("_count") else money(most, currency)


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
    return request.user
