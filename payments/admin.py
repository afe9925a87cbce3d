"""Intents and the inbox of gateway events, to look at; and to have events processed again.

Payouts and money in suspense have modules of their own.
"""

import json
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.text import capfirst
from unfold.contrib.filters.admin import BooleanRadioFilter, ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from fintech_core.admin import (
    NOTHING,
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    HistoryInline,
    Question,
    link,
    link_to,
    list_page,
    money,
    uuid_in,
)
from fintech_core.exceptions import InvalidState
from payments import (
    reconciliation_admin,  # noqa: F401 - registers
    suspense_admin,  # noqa: F401 - registers
)
from payments.models import DepositRefund, PaymentIntent, Payout, WebhookAttempt, WebhookEvent
from payments.payout_admin import ASKED_ABOUT
from payments.refund_admin import RefundingAdmin
from payments.sandbox import admin as sandbox_admin  # noqa: F401 - registers the sandbox's page
from payments.services import PaymentService
from users import queries as users_queries
from users.models import User

INTENT_COLOURS = dict.fromkeys(PaymentIntent.Status) | {
    PaymentIntent.Status.PROCESSING: "info",
    PaymentIntent.Status.SUCCEEDED: "success",
    PaymentIntent.Status.FAILED: "danger",
    PaymentIntent.Status.EXPIRED: "warning",
}
EVENT_COLOURS = dict.fromkeys(WebhookEvent.Status) | {
    WebhookEvent.Status.RECEIVED: "info",
    WebhookEvent.Status.PROCESSED: "success",
    WebhookEvent.Status.PARKED: "danger",
}
PROCESS_AGAIN = "payments.process_again"
AGAIN = Question(
    title="Process again",
    explanation=(
        "The event gets its full number of tries again, starting now. Whatever it does, it does"
        " once: what was credited or paid back is not credited or paid back again."
    ),
    button="Process again",
)
ALL_AGAIN = Question(
    title="Process all like it again",
    explanation=(
        "All parked events of this gateway and of this type get their full number of tries again,"
        " starting within seconds; 5,000 at a time. Whatever they do, they do once."
    ),
    button="Process all again",
)


@admin.register(PaymentIntent)
class PaymentIntentAdmin(RefundingAdmin, HistoryAdmin):
    """Without the client's secret, which is the customer's alone."""

    list_display = [
        "created_at",
        "person",
        "asked",
        "state",
        "late_after",
        "gateway",
        "gateway_reference",
    ]
    list_display_links = ["created_at"]
    list_filter = [
        ("status", ChoicesDropdownFilter),
        ("late_after", ChoicesDropdownFilter),
        ("needs_staff", BooleanRadioFilter),
        ("created_at", CreatedFilter),
    ]
    search_help_text = "Gateway reference, an id, or the beginning of email, name or phone number"
    fieldsets = [
        (None, {"fields": ["id", "person", "asked", "status"]}),
        ("Gateway", {"fields": ["gateway", "gateway_reference"]}),
        ("Effect", {"fields": ["credit", "late_after", "wallet", "events"]}),
        ("When", {"fields": ["created_at", "updated_at", "expires_at"]}),
        ASKED_ABOUT,
    ]

    related = ["user", "wallet", "transaction"]

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            return Q(pk=key) | Q(user=key) | Q(wallet=key) | Q(transaction=key)
        return Q(gateway_reference=text) | Q(user__in=users_queries.found_ids(text))

    @display(description="User")
    def person(self, intent: PaymentIntent) -> str:
        return link(intent.user)

    @display(description="Amount")
    def asked(self, intent: PaymentIntent) -> str:
        return money(intent.amount, intent.currency)

    @display(description="Status", label=INTENT_COLOURS)
    def state(self, intent: PaymentIntent) -> tuple[str, str]:
        return intent.status, intent.get_status_display()

    @display(description="Credited by")
    def credit(self, intent: PaymentIntent) -> str:
        return link(intent.transaction)

    @display(description="Events")
    def events(self, intent: PaymentIntent) -> str:
        return link_to(list_page(WebhookEvent, q=intent.pk), "What the gateway said")


class AttemptInline(HistoryInline):
    model = WebhookAttempt
    verbose_name_plural = "Attempts, newest first"
    fields = ["number", "outcome", "error", "asked_by", "started_at", "finished_at"]
    ordering = ["-number"]
    hide_title = True

    related = ["requested_by"]

    @display(description="Asked for by")
    def asked_by(self, attempt: WebhookAttempt) -> str:
        return link(attempt.requested_by)


@admin.register(WebhookEvent)
class WebhookEventAdmin(AskingAdmin, HistoryAdmin):
    list_display = [
        "received_at",
        "event_type",
        "state",
        "attempts",
        "gateway",
        "about",
        "last_error",
    ]
    list_display_links = ["received_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("received_at", CreatedFilter)]
    related = [
        "intent__transaction",
        "payout__transaction",
        "payout__reversal",
        "refund__transaction",
        "refund__reversal",
        "requested_by",
    ]
    search_help_text = "Event id, gateway reference, or our id of the event or intent"
    inlines = [AttemptInline]
    actions = ["process_selected_again"]
    actions_detail = ["process_again", "process_all_again"]
    fieldsets = [
        (None, {"fields": ["id", "gateway", "event_id", "event_type", "gateway_reference"]}),
        (
            "What became of it",
            {"fields": ["status", "attempts", "last_error", "about", "effect", "asked_by"]},
        ),
        ("When", {"fields": ["received_at", "next_attempt_at", "processed_at"]}),
        ("What was sent", {"fields": ["payload", "signature_headers"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookEvent]:
        """Payloads are read one at a time, on an event's own page."""
        return super().get_queryset(request).defer("body", "headers")

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            return Q(pk=key) | Q(intent=key) | Q(payout=key) | Q(refund=key)
        # Each with its gateway, because so they are indexed.
        by_event = Q(gateway__in=list(settings.PAYMENT_GATEWAYS), event_id=text)
        of_intents, of_payouts, of_refunds = (
            list(model.objects.filter(gateway_reference=text).values_list("pk", flat=True)[:10])
            for model in (PaymentIntent, Payout, DepositRefund)
        )
        orders = Q(intent__in=of_intents) | Q(payout__in=of_payouts) | Q(refund__in=of_refunds)
        return by_event | orders

    @display(description="Status", label=EVENT_COLOURS)
    def state(self, event: WebhookEvent) -> tuple[str, str]:
        return event.status, event.get_status_display()

    @display(description="About")
    def about(self, event: WebhookEvent) -> str:
        if (subject := event.subject) is None:
            return NOTHING
        return link(subject, f"{capfirst(subject._meta.verbose_name)}: {subject}")

    @display(description="Effect")
    def effect(self, event: WebhookEvent) -> str:
        """What moved; of a payout or refund that came back, the reversal."""
        if order := event.payout or event.refund:
            return link(order.reversal or order.transaction)
        return link(event.intent.transaction) if event.intent else NOTHING

    @display(description="Last asked for by")
    def asked_by(self, event: WebhookEvent) -> str:
        return link(event.requested_by)

    @display(description="Payload")
    def payload(self, event: WebhookEvent) -> str:
        if event.payload_deleted_at:
            return f"Deleted on {event.payload_deleted_at:%Y-%m-%d}, after the retention."
        return _block(_readable(bytes(event.body)))

    @display(description="Signature headers")
    def signature_headers(self, event: WebhookEvent) -> str:
        return _block(json.dumps(event.headers, indent=2))

    # --- Process again

    def has_process_again_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(PROCESS_AGAIN)

    @admin.action(description="Process again", permissions=["process_again"])
    def process_selected_again(
        self, request: HttpRequest, queryset: QuerySet[WebhookEvent]
    ) -> None:
        chosen = list(queryset.order_by("pk")[: self.list_per_page])
        with transaction.atomic():
            count = PaymentService.process_again([event.pk for event in chosen], by=_staff(request))
            for event in chosen:
                self.log_change(request, event, "Asked to process it again.")
        level = messages.SUCCESS if count == len(chosen) else messages.WARNING
        left = (
            "" if count == len(chosen) else " The others are processed, or their payload is gone."
        )
        self.message_user(
            request, f"{count} of {len(chosen)} will be processed again.{left}", level
        )

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        event = self.get_object(request, str(object_id))
        if event is None or event.status == WebhookEvent.Status.PROCESSED:
            return []
        offered = super().get_actions_detail(request, object_id)
        is_parked = event.status == WebhookEvent.Status.PARKED
        return [one for one in offered if is_parked or "all_again" not in one.action_name]

    @action(
        description="Process again",
        url_path="process-again",
        icon="replay",
        variant=ActionVariant.PRIMARY,
        permissions=["process_again"],
    )
    def process_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def again(event: WebhookEvent) -> str:
            return _process_again(event.pk, _staff(request))

        return self.ask(request, object_id, AGAIN, again)

    @action(
        description="Process all like it again",
        url_path="process-all-again",
        icon="restart_alt",
        permissions=["process_again"],
    )
    def process_all_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def again(event: WebhookEvent) -> str:
            count = PaymentService.process_parked_again(
                gateway=event.gateway, event_type=event.event_type, by=_staff(request)
            )
            return f"{count} will be processed again."

        return self.ask(request, object_id, ALL_AGAIN, again)


def _process_again(event_id: UUID, by: User) -> str:
    if not PaymentService.process_again([event_id], by=by):
        raise InvalidState("It is processed already, or its payload is gone.")
    return "It will be processed again."


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
    return request.user


def _readable(body: bytes) -> str:
    """JSON, indented; whatever else it is, as it is."""
    text = body.decode(errors="replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _block(text: str) -> str:
    return format_html('<pre class="text-xs whitespace-pre-wrap break-all">{}</pre>', text)
