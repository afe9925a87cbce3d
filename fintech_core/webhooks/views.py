"""`/webhook-endpoints/…`: thin doors to `fintech_core.webhooks.services`."""

from typing import Any, cast
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    extend_schema,
    extend_schema_view,
)
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.ratelimit import RateLimit
from fintech_core.schema import problems
from fintech_core.serializers import NoBodySerializer
from fintech_core.webhooks import services
from fintech_core.webhooks.models import WebhookDelivery, WebhookEndpoint
from fintech_core.webhooks.serializers import (
    ChangeWebhookEndpointSerializer,
    NewWebhookEndpointSerializer,
    WebhookDeliveryDetailSerializer,
    WebhookDeliverySerializer,
    WebhookEndpointSerializer,
    WebhookEndpointWithSecretSerializer,
)

_ENDPOINT = {
    "id": "0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11",
    "url": "https://shop.example.com/hooks/wallet",
    "event_types": ["transfer.received", "refund.created"],
    "description": "The shop",
    "scope": "own",
    "is_active": True,
    "disabled_reason": "",
    "disabled_at": None,
    "failing_since": None,
    "previous_secret_expires_at": None,
    "created_at": "2026-11-22T13:00:00.123456Z",
    "updated_at": "2026-11-22T13:00:00.123456Z",
}
# No secret of anybody's: the standard's own example.
_WITH_SECRET = {**_ENDPOINT, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}
_STATUS = OpenApiParameter(
    "status", OpenApiTypes.STR, OpenApiParameter.QUERY, enum=WebhookDelivery.Status.values
)


class WebhookEndpointRateLimit(RateLimit):
    """Each registration asks a name server, so nobody makes us ask without end."""

    scope, setting = "webhook-endpoint", "WEBHOOK_ENDPOINT_RATE"
    methods = ("POST", "PATCH", "DELETE")


@extend_schema_view(
    list=extend_schema(
        summary="List your webhook endpoints",
        description="Newest first. Ten at most.",
        responses={200: WebhookEndpointSerializer(many=True), **problems(400, 401)},
    ),
    retrieve=extend_schema(
        summary="Read one of your webhook endpoints",
        responses={200: WebhookEndpointSerializer, **problems(401, 404)},
        examples=[OpenApiExample("An endpoint", value=_ENDPOINT, response_only=True)],
    ),
)
class WebhookEndpointViewSet(ListModelMixin, RetrieveModelMixin, GenericViewSet[WebhookEndpoint]):
    """The caller's endpoints. Another person's do not exist here (404)."""

    queryset = WebhookEndpoint.objects.none()  # for the schema; see get_queryset
    serializer_class = WebhookEndpointSerializer
    throttle_classes = [WebhookEndpointRateLimit]
    filter_backends: list[Any] = []
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[WebhookEndpoint]:
        return services.endpoints_of(_caller_id(self.request))

    @extend_schema(
        summary="Register a webhook endpoint",
        description=(
            "Has your events sent to a URL of yours, signed as Standard Webhooks has it. The answer"
            " holds the `secret`, for the only time. `scope`: `everybody` is for staff with the"
            " permission."
        ),
        request=NewWebhookEndpointSerializer,
        responses={
            201: WebhookEndpointWithSecretSerializer,
            **problems(400, 401, 403, 409, 429),
        },
        examples=[
            OpenApiExample(
                "An endpoint of a shop",
                value={
                    "url": "https://shop.example.com/hooks/wallet",
                    "event_types": ["transfer.received", "refund.created"],
                    "description": "The shop",
                },
                request_only=True,
            ),
            OpenApiExample(
                "With the secret", value=_WITH_SECRET, response_only=True, status_codes=["201"]
            ),
        ],
    )
    def create(self, request: Request) -> Response:
        asked = NewWebhookEndpointSerializer.read(request.data)
        made = services.register(user=request.user, new=services.NewEndpoint(**asked))
        return Response(
            WebhookEndpointWithSecretSerializer(made).data, status=status.HTTP_201_CREATED
        )

    @extend_schema(
        summary="Change a webhook endpoint",
        description=(
            "`is_active`: true switches it on again, unless staff switched it off (409). Events of"
            " the time in between are not sent."
        ),
        request=ChangeWebhookEndpointSerializer,
        responses={200: WebhookEndpointSerializer, **problems(400, 401, 404, 409, 429)},
        examples=[
            OpenApiExample("Hear everything", value={"event_types": ["*"]}, request_only=True)
        ],
    )
    def partial_update(self, request: Request, pk: UUID) -> Response:
        changes = ChangeWebhookEndpointSerializer.read(request.data)
        changed = services.change(user_id=_caller_id(request), endpoint_id=pk, changes=changes)
        return Response(WebhookEndpointSerializer(changed).data)

    @extend_schema(
        summary="Delete a webhook endpoint",
        description="Nothing more is sent there, not even what was on its way.",
        responses={204: None, **problems(401, 404, 429)},
    )
    def destroy(self, request: Request, pk: UUID) -> Response:
        services.remove(user_id=_caller_id(request), endpoint_id=pk)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        summary="Make a new secret",
        description=(
            "Shown once. For 24 hours each event is signed with both secrets, so that you can"
            " change over without missing one; then the old one is dead. Rotate twice, and it is"
            " dead at once."
        ),
        request=None,
        responses={
            200: WebhookEndpointWithSecretSerializer,
            **problems(400, 401, 404, 429),
        },
        examples=[OpenApiExample("With the secret", value=_WITH_SECRET, response_only=True)],
    )
    @action(detail=True, methods=["post"], url_path="rotate-secret")
    def rotate_secret(self, request: Request, pk: UUID) -> Response:
        NoBodySerializer.read(request.data)
        rotated = services.rotate_secret(user_id=_caller_id(request), endpoint_id=pk)
        return Response(WebhookEndpointWithSecretSerializer(rotated).data)

    @extend_schema(
        operation_id="webhook_endpoints_deliveries_list",
        summary="List what was sent to an endpoint",
        description="Newest first.",
        parameters=[_STATUS],
        filters=True,
        responses={200: WebhookDeliverySerializer(many=True), **problems(400, 401, 404)},
    )
    @action(detail=True, serializer_class=WebhookDeliverySerializer)
    def deliveries(self, request: Request, pk: UUID) -> Response:
        endpoint = services.endpoint_of(_caller_id(request), pk)
        chosen: Any = services.deliveries_to(
            endpoint, status=request.query_params.get("status", "")
        )
        page = self.paginate_queryset(chosen)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        operation_id="webhook_endpoints_deliveries_retrieve",
        summary="Read a delivery",
        description="With the body that was sent, and the newest 50 tries.",
        responses={200: WebhookDeliveryDetailSerializer, **problems(401, 404)},
    )
    @action(
        detail=True,
        url_path="deliveries/<uuid:delivery_id>",
        serializer_class=WebhookDeliveryDetailSerializer,
        pagination_class=None,
    )
    def delivery(self, request: Request, pk: UUID, delivery_id: UUID) -> Response:
        endpoint = services.endpoint_of(_caller_id(request), pk)
        return Response(self.get_serializer(services.delivery_to(endpoint, delivery_id)).data)

    @extend_schema(
        summary="Deliver once more",
        description=(
            "Within seconds, with its full number of tries and the same `webhook-id`. While it is"
            " on its way, and where the endpoint is switched off: 409."
        ),
        request=None,
        responses={202: WebhookDeliverySerializer, **problems(400, 401, 404, 409, 429)},
    )
    @action(
        detail=True,
        methods=["post"],
        url_path="deliveries/<uuid:delivery_id>/replay",
        serializer_class=WebhookDeliverySerializer,
        pagination_class=None,
    )
    def replay(self, request: Request, pk: UUID, delivery_id: UUID) -> Response:
        NoBodySerializer.read(request.data)
        again = services.replay(
            user_id=_caller_id(request), endpoint_id=pk, delivery_id=delivery_id
        )
        return Response(self.get_serializer(again).data, status=status.HTTP_202_ACCEPTED)


def _caller_id(request: Request) -> UUID:
    """Whoever got past `IsAuthenticated` is a user, and their ids are UUIDs."""
    return cast(UUID, request.user.pk)
