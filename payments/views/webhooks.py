"""The gateways' door, and what came through it, for staff."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ViewSet

from fintech_core.schema import problems
from payments import queries
from payments.models import WebhookEvent
from payments.permissions import MayReadWebhookEvents
from payments.serializers import (
    WebhookEventSerializer,
    WebhookReceivedSerializer,
)
from payments.services import PaymentService

_EVENT = {
    "type": "payment_intent.succeeded",
    "timestamp": "2026-11-22T13:00:00Z",
    "data": {
        "gateway_reference": "sbx_4f1d2c3b5a69788796a5b4c3",
        "amount": "100.00",
        "currency": "USD",
    },
}


class _AlwaysJSON(BaseContentNegotiation):
    """A gateway that asks for another form of the answer must not lose its event over it."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class WebhookViewSet(ViewSet):
    """The gateways' door. No account of ours: the signature says who it is."""

    authentication_classes = []
    permission_classes = [AllowAny]
    content_negotiation_class = _AlwaysJSON

    @extend_schema(
        summary="Deliver a gateway's event",
        description=(
            "For gateways. The signature is verified over the raw bytes (`sandbox`: Standard"
            " Webhooks; `stripe`: `Stripe-Signature`), whatever the content type. The event is"
            " stored, answered and processed later; the same event again is answered alike and has"
            " no second effect."
        ),
        auth=[],
        request={"application/json": OpenApiTypes.OBJECT},
        parameters=[
            OpenApiParameter(
                "gateway",
                OpenApiTypes.STR,
                OpenApiParameter.PATH,
                description="The gateway's name, such as `sandbox`.",
            ),
            OpenApiParameter("webhook-id", OpenApiTypes.STR, OpenApiParameter.HEADER),
            OpenApiParameter("webhook-timestamp", OpenApiTypes.STR, OpenApiParameter.HEADER),
            OpenApiParameter("webhook-signature", OpenApiTypes.STR, OpenApiParameter.HEADER),
            OpenApiParameter("Stripe-Signature", OpenApiTypes.STR, OpenApiParameter.HEADER),
        ],
        responses={
            200: OpenApiResponse(WebhookReceivedSerializer, description="Stored."),
            **problems(400, 404),
        },
        examples=[
            OpenApiExample("A sandbox event", value=_EVENT, request_only=True),
            OpenApiExample(
                "Stored", value={"received": True}, response_only=True, status_codes=["200"]
            ),
        ],
    )
    def create(self, request: Request, gateway: str) -> Response:
        PaymentService.receive_webhook(
            gateway=gateway, headers=request.headers, body=request._request.body
        )
        return Response({"received": True})


@extend_schema_view(
    list=extend_schema(
        summary="List gateway events (staff)",
        description="Newest first, without their payloads, which the admin shows.",
        responses={200: WebhookEventSerializer, **problems(400, 401, 403)},
    ),
    retrieve=extend_schema(
        summary="Read a gateway event (staff)",
        responses={200: WebhookEventSerializer, **problems(401, 403, 404)},
    ),
)
class WebhookEventViewSet(ListModelMixin, RetrieveModelMixin, GenericViewSet[WebhookEvent]):
    """What the gateways told us, for staff."""

    serializer_class = WebhookEventSerializer
    permission_classes = [MayReadWebhookEvents]
    lookup_value_converter = "uuid"
    filterset_fields = ("status", "gateway")
    queryset = WebhookEvent.objects.none()

    def get_queryset(self) -> QuerySet[WebhookEvent]:
        return queries.webhook_events()
