"""How endpoints and deliveries look, and what is asked of them."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from fintech_core.serializers import StrictSerializer, TextField
from fintech_core.webhooks.kinds import EVERY_TYPE, EventType
from fintech_core.webhooks.models import (
    DESCRIPTION_MAX,
    URL_MAX,
    DeliveryAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from fintech_core.webhooks.signing import body_of

_TYPES = [EVERY_TYPE, *EventType.values]
TRIES_SHOWN = 50


class EventTypesField(serializers.ListField):
    """Which events are sent; `["*"]` means all, and those that come later, too."""

    child = serializers.ChoiceField(choices=_TYPES)
    default_error_messages = {"alone": '"*" stands alone.', "twice": "Name each type once."}

    def __init__(self, **options: Any) -> None:
        super().__init__(min_length=1, max_length=len(_TYPES), **options)

    def to_internal_value(self, data: Any) -> list[str]:
        types: list[str] = super().to_internal_value(data)
        if EVERY_TYPE in types and len(types) > 1:
            self.fail("alone")
        if len(set(types)) < len(types):
            self.fail("twice")
        return types


class FlagField(serializers.BooleanField):
    """A JSON boolean, and nothing that only looks like one."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class NewWebhookEndpointSerializer(StrictSerializer):
    url = TextField(max_length=URL_MAX, help_text="https, on a public address; any port.")
    event_types = EventTypesField()
    description = TextField(max_length=DESCRIPTION_MAX, required=False, allow_blank=True)
    scope = serializers.ChoiceField(
        choices=WebhookEndpoint.Scope.choices,
        required=False,
        help_text="`everybody` is for staff with the permission. Default: `own`.",
    )


class ChangeWebhookEndpointSerializer(StrictSerializer):
    url = TextField(max_length=URL_MAX, required=False)
    event_types = EventTypesField(required=False)
    description = TextField(max_length=DESCRIPTION_MAX, required=False, allow_blank=True)
    is_active = FlagField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError(ErrorDetail("Name what to change.", code="required"))
        return attrs


class WebhookEndpointSerializer(serializers.ModelSerializer[WebhookEndpoint]):
    """Without the secret, which is shown when it is made and never again."""

    is_active = serializers.BooleanField(read_only=True)
    event_types = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = WebhookEndpoint
        fields: tuple[str, ...] = (
            "id",
            "url",
            "event_types",
            "description",
            "scope",
            "is_active",
            "disabled_reason",
            "disabled_at",
            "failing_since",
            "previous_secret_expires_at",
            "created_at",
            "updated_at",
        )
        read_only_fields: tuple[str, ...] = fields


class WebhookEndpointWithSecretSerializer(WebhookEndpointSerializer):
    """The one answer that holds the secret: keep it."""

    class Meta(WebhookEndpointSerializer.Meta):
        fields = (*WebhookEndpointSerializer.Meta.fields, "secret")
        read_only_fields = fields


class WebhookDeliverySerializer(serializers.ModelSerializer[WebhookDelivery]):
    event_type = serializers.CharField(source="event.type", read_only=True)
    event_id = serializers.UUIDField(read_only=True, help_text="The header `webhook-id`.")

    class Meta:
        model = WebhookDelivery
        fields: tuple[str, ...] = (
            "id",
            "event_id",
            "event_type",
            "status",
            "attempts",
            "last_error",
            "next_attempt_at",
            "created_at",
            "finished_at",
        )
        read_only_fields: tuple[str, ...] = fields


class DeliveryAttemptSerializer(serializers.ModelSerializer[DeliveryAttempt]):
    class Meta:
        model = DeliveryAttempt
        fields = (
            "number",
            "outcome",
            "response_status",
            "response_body",
            "error",
            "duration_ms",
            "started_at",
            "finished_at",
        )
        read_only_fields = fields


class WebhookDeliveryDetailSerializer(WebhookDeliverySerializer):
    """With what was sent, and the newest tries."""

    payload = serializers.SerializerMethodField(help_text="The body, exactly as it is signed.")
    tries = serializers.SerializerMethodField()

    class Meta(WebhookDeliverySerializer.Meta):
        fields = (*WebhookDeliverySerializer.Meta.fields, "payload", "tries")
        read_only_fields = fields

    def get_payload(self, made: WebhookDelivery) -> str:
        return body_of(made.event).decode()

    @extend_schema_field(DeliveryAttemptSerializer(many=True))
    def get_tries(self, made: WebhookDelivery) -> Any:
        return DeliveryAttemptSerializer(newest_tries(made), many=True).data


def newest_tries(made: WebhookDelivery) -> QuerySet[DeliveryAttempt]:
    """Newest first; however often it was replayed, so many at most."""
    return made.tries.order_by("-number")[:TRIES_SHOWN]
