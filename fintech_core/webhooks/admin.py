"""Outgoing webhooks, for staff: who is told what, why something did not arrive, and once more."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from fintech_core.admin import (
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    HistoryInline,
    Question,
    link,
    link_to,
    list_page,
    uuid_in,
)
from fintech_core.webhooks import services
from fintech_core.webhooks.models import DeliveryAttempt, WebhookDelivery, WebhookEndpoint
from fintech_core.webhooks.signing import body_of

ENDPOINT_COLOURS = dict.fromkeys(WebhookEndpoint.Status) | {
    WebhookEndpoint.Status.ACTIVE: "success",
    WebhookEndpoint.Status.DISABLED: "danger",
}
DELIVERY_COLOURS = dict.fromkeys(WebhookDelivery.Status) | {
    WebhookDelivery.Status.PENDING: "info",
    WebhookDelivery.Status.DELIVERED: "success",
    WebhookDelivery.Status.FAILED: "danger",
}
_SWITCHES: dict[str, str] = {
    WebhookEndpoint.Status.ACTIVE: "switch_off",
    WebhookEndpoint.Status.DISABLED: "switch_on",
}
OFF = Question(
    title="Switch off",
    explanation=(
        "Nothing more is sent there. Its owner cannot switch it on again; only staff can. What is"
        " on its way is abandoned when its next try would be due."
    ),
    button="Switch off",
    is_dangerous=True,
)
ON = Question(
    title="Switch on",
    explanation="Events are sent there again. Those of the time in between are not.",
    button="Switch on",
)
AGAIN = Question(
    title="Deliver again",
    explanation="The same event, with the same id, gets its full number of tries again.",
    button="Deliver again",
)


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(AskingAdmin, HistoryAdmin):
    """Without the secrets, which are the customer's alone, and without the URL's query."""

    list_display = ["created_at", "person", "where", "state", "scope", "failing_since"]
    list_display_links = ["created_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    related = ["user"]
    search_help_text = "Id of the endpoint or of its user"
    actions_detail = ["switch_off", "switch_on"]
    fieldsets = [
        (None, {"fields": ["id", "person", "where", "description", "scope", "listens_to"]}),
        ("State", {"fields": ["status", "disabled_reason", "disabled_at", "deliveries"]}),
        ("Failures", {"fields": ["failures", "failing_since", "paused_until"]}),
        ("When", {"fields": ["created_at", "updated_at", "previous_secret_expires_at"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookEndpoint]:
        return super().get_queryset(request).defer("secret", "previous_secret")

    def found_by(self, text: str) -> Q:
        key = uuid_in(text)
        return Q(pk=key) | Q(user=key) if key else Q(pk__in=[])

    @display(description="User")
    def person(self, endpoint: WebhookEndpoint) -> str:
        return link(endpoint.user)

    @display(description="URL, without its query")
    def where(self, endpoint: WebhookEndpoint) -> str:
        return endpoint.shown_url

    @display(description="Listens to")
    def listens_to(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.event_types)

    @display(description="Status", label=ENDPOINT_COLOURS)
    def state(self, endpoint: WebhookEndpoint) -> tuple[str, str]:
        return endpoint.status, endpoint.get_status_display()

    @display(description="Deliveries")
    def deliveries(self, endpoint: WebhookEndpoint) -> str:
        return link_to(list_page(WebhookDelivery, endpoint__exact=endpoint.pk), "Show them")

    def has_switch_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(services.SWITCH_PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only what would change something."""
        endpoint = self.get_object(request, str(object_id))
        fitting = _SWITCHES.get(endpoint.status) if endpoint else None
        offered = super().get_actions_detail(request, object_id)
        return [each for each in offered if fitting and each.action_name.endswith(fitting)]

    @action(
        description="Switch off",
        url_path="switch-off",
        icon="pause",
        variant=ActionVariant.DANGER,
        permissions=["switch"],
    )
    def switch_off(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._switch(request, object_id, OFF, on=False)

    @action(
        description="Switch on",
        url_path="switch-on",
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        permissions=["switch"],
    )
    def switch_on(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._switch(request, object_id, ON, on=True)

    def _switch(
        self, request: HttpRequest, object_id: str, question: Question, *, on: bool
    ) -> HttpResponse:
        def switch(endpoint: WebhookEndpoint) -> str:
            services.switch(endpoint_id=endpoint.pk, actor=request.user, on=on)
            return "Switched on." if on else "Switched off."

        return self.ask(request, object_id, question, switch)


class TryInline(HistoryInline):
    model = DeliveryAttempt
    verbose_name_plural = "Tries, newest first"
    fields = ["number", "outcome", "response_status", "error", "duration_ms", "started_at"]
    ordering = ["-number"]
    hide_title = True


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(AskingAdmin, HistoryAdmin):
    list_display = ["created_at", "kind", "state", "attempts", "where", "person", "last_error"]
    list_display_links = ["created_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    linked_lookups = frozenset({"endpoint__exact"})
    related = ["endpoint", "event__user"]
    search_help_text = "Id of the delivery or of the event"
    inlines = [TryInline]
    actions_detail = ["deliver_again"]
    fieldsets = [
        (None, {"fields": ["id", "kind", "event_id", "person", "where"]}),
        ("What became of it", {"fields": ["status", "attempts", "last_error"]}),
        ("When", {"fields": ["created_at", "next_attempt_at", "sending_until", "finished_at"]}),
        ("What is sent", {"fields": ["payload"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        """Payloads are read one at a time; secrets not at all."""
        hidden = ("event__data", "endpoint__secret", "endpoint__previous_secret")
        return super().get_queryset(request).defer(*hidden)

    def found_by(self, text: str) -> Q:
        key = uuid_in(text)
        return Q(pk=key) | Q(event=key) if key else Q(pk__in=[])

    @display(description="Event")
    def kind(self, made: WebhookDelivery) -> str:
        return made.event.type

    @display(description="Endpoint")
    def where(self, made: WebhookDelivery) -> str:
        return link(made.endpoint)

    @display(description="Of")
    def person(self, made: WebhookDelivery) -> str:
        return link(made.event.user)

    @display(description="Status", label=DELIVERY_COLOURS)
    def state(self, made: WebhookDelivery) -> tuple[str, str]:
        return made.status, made.get_status_display()

    @display(description="Payload")
    def payload(self, made: WebhookDelivery) -> str:
        style = "text-xs whitespace-pre-wrap break-all"
        return format_html('<pre class="{}">{}</pre>', style, body_of(made.event).decode())

    def has_replay_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(services.REPLAY_PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        made = self.get_object(request, str(object_id))
        is_over = made is not None and made.status != WebhookDelivery.Status.PENDING
        return super().get_actions_detail(request, object_id) if is_over else []

    @action(
        description="Deliver again",
        url_path="deliver-again",
        icon="replay",
        variant=ActionVariant.PRIMARY,
        permissions=["replay"],
    )
    def deliver_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def again(made: WebhookDelivery) -> str:
            services.replay_for(delivery_id=UUID(str(made.pk)), actor=request.user)
            return "It will be delivered again."

        return self.ask(request, object_id, AGAIN, again)
