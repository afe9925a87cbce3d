"""Ordering top-ups."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
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
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.idempotency import REPLAY_HEADER, IdempotentCall
from fintech_core.ratelimit import PaymentRateLimit
from fintech_core.schema import IDEMPOTENCY_KEY, problems
from fintech_core.serializers import NoBodySerializer
from payments import gateways, queries
from payments.exceptions import NotFound
from payments.models import DepositRefund, PaymentIntent
from payments.permissions import MayRefundDeposits
from payments.refunds import RefundOrder
from payments.serializers import (
    CreatePaymentIntentSerializer,
    DepositRefundSerializer,
    PaymentIntentSerializer,
    RefundDepositSerializer,
    SimulatePaymentSerializer,
)
from payments.services import PaymentService
from users.authentication import caller_of

_INTENT = {
    "id": "0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11",
    "status": "requires_payment",
    "amount": "100.00",
    "currency": "USD",
    "gateway": "sandbox",
    "gateway_reference": "sbx_4f1d2c3b5a69788796a5b4c3",
    "client_secret": "sbx_4f1d2c3b5a69788796a5b4c3_secret_9f3c1d7e5b2a48660c1d2e3f4a5b6c7d",
    "checkout_url": (
        "http://localhost:8000/sandbox/checkout/sbx_4f1d2c3b5a69788796a5b4c3/"
        "0c1d2e3f4a5b6c7d9f3c1d7e5b2a4866/"
    ),
    "transaction_id": None,
    "expires_at": "2026-11-23T13:00:00.123456Z",
    "created_at": "2026-11-22T13:00:00.123456Z",
}

_REFUND = {
    "id": "0192f0c1-9d10-7f0e-8b1c-5e2d7a6c4f01",
    "intent_id": _INTENT["id"],
    "status": "pending",
    "amount": "40.00",
    "currency": "USD",
    "gateway": "sandbox",
    "gateway_reference": "sbx_re_1c2d3e4f5a6b7c8d9e0f1a2b",
    "transaction_id": "0192f0c1-9d11-7a55-9c3e-0d4b8e7f6a12",
    "reversal_id": None,
    "reason": "Paid twice by mistake",
    "failure_code": "",
    "created_at": "2026-11-22T14:00:00.123456Z",
    "completed_at": None,
}


@extend_schema_view(
    list=extend_schema(
        summary="List your payment intents",
        description="Newest first.",
        responses={200: PaymentIntentSerializer, **problems(400, 401, 404)},
    ),
    retrieve=extend_schema(
        summary="Read one of your payment intents",
        description="Poll it until `status` is final; `transaction_id` then names the credit.",
        responses={200: PaymentIntentSerializer, **problems(401, 404)},
        examples=[OpenApiExample("An intent", value=_INTENT, response_only=True)],
    ),
)
class PaymentIntentViewSet(ListModelMixin, RetrieveModelMixin, GenericViewSet[PaymentIntent]):
    """The caller's own intents. Where no gateway is configured, there are none: 404."""

    serializer_class = PaymentIntentSerializer
    throttle_classes = [PaymentRateLimit]
    lookup_value_converter = "uuid"
    filterset_fields = ("status",)
    queryset = PaymentIntent.objects.none()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not gateways.available():
            raise NotFound

    def get_queryset(self) -> QuerySet[PaymentIntent]:
        return queries.intents_of(caller_of(self.request).pk)

    @extend_schema(
        summary="Begin a top-up",
        description=(
            "Orders money for your wallet. The gateway collects it and reports by webhook; the"
            " intent is then credited exactly once. Anyone may top up, up to the maximum balance"
            " of the KYC tier (`limit_exceeded`)."
        ),
        request=CreatePaymentIntentSerializer,
        parameters=[
            IDEMPOTENCY_KEY,
            OpenApiParameter(
                REPLAY_HEADER,
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                response=[201],
                description="`true` if this is the remembered answer of an earlier request.",
            ),
        ],
        responses={
            201: PaymentIntentSerializer,
            **problems(400, 401, 404, 409, 422, 429),
        },
        examples=[
            OpenApiExample("A top-up", value={"amount": "100.00"}, request_only=True),
            OpenApiExample("An intent", value=_INTENT, response_only=True, status_codes=["201"]),
        ],
    )
    def create(self, request: Request) -> HttpResponse:
        form = CreatePaymentIntentSerializer(
            data=request.data, context={"user": caller_of(request)}
        )
        form.is_valid(raise_exception=True)
        answer = PaymentService.create_payment_intent(
            user=caller_of(request),
            **form.validated_data,
            idempotency=IdempotentCall.from_request(request, form.validated_data, _present),
        )
        return answer.as_response()

    @extend_schema(
        summary="Cancel a top-up",
        description="Only while nobody has paid: `requires_payment`.",
        request=None,
        responses={200: PaymentIntentSerializer, **problems(400, 401, 404, 409, 429)},
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: UUID) -> Response:
        NoBodySerializer(data=request.data).is_valid(raise_exception=True)
        intent = PaymentService.cancel_payment_intent(user=caller_of(request), intent_id=pk)
        return Response(_present(intent))

    @extend_schema(
        summary="Simulate a payment (sandbox only)",
        description=(
            "The sandbox sends a signed event about this intent, by the same path as a real"
            " gateway's webhook. Its effect follows shortly; read the intent to see it."
        ),
        request=SimulatePaymentSerializer,
        responses={202: PaymentIntentSerializer, **problems(400, 401, 404, 409, 429)},
        examples=[
            OpenApiExample("Paid", value={"outcome": "succeeded"}, request_only=True),
            OpenApiExample("An intent", value=_INTENT, response_only=True, status_codes=["202"]),
        ],
    )
    @action(detail=True, methods=["post"])
    def simulate(self, request: Request, pk: UUID) -> Response:
        form = SimulatePaymentSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        intent = PaymentService.simulate_payment(
            user=caller_of(request), intent_id=pk, **form.validated_data
        )
        return Response(_present(intent), status=status.HTTP_202_ACCEPTED)

    @extend_schema(
        summary="Send a deposit back to its source (staff)",
        description=(
            "For staff who may refund deposits, and never their own. The money leaves the"
            " customer's wallet at once, as a `refund`; the gateway is asked to send it back to"
            " where it came from. It is `succeeded` or `failed` when the gateway says so; if it"
            " failed, a `reversal` has brought the money back. At most the rest of the deposit"
            " (`amount_exceeds_remaining`), and what the wallet has available"
            " (`insufficient_funds`); a frozen or closed wallet refuses (`wallet_frozen`)."
        ),
        request=RefundDepositSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={
            201: DepositRefundSerializer,
            **problems(400, 401, 403, 404, 409, 422, 429),
        },
        examples=[
            OpenApiExample(
                "Part of it",
                value={"amount": "40.00", "reason": "Paid twice by mistake"},
                request_only=True,
            ),
            OpenApiExample("A refund", value=_REFUND, response_only=True, status_codes=["201"]),
        ],
    )
    @action(detail=True, methods=["post"], permission_classes=[IsAuthenticated, MayRefundDeposits])
    def refund(self, request: Request, pk: UUID) -> HttpResponse:
        form = RefundDepositSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        answer = PaymentService.refund_to_source(
            staff=caller_of(request),
            asked=RefundOrder(intent_id=pk, **form.validated_data),
            idempotency=IdempotentCall.from_request(request, form.validated_data, _present_refund),
        )
        return answer.as_response()


def _present_refund(refund: DepositRefund) -> Mapping[str, Any]:
    return DepositRefundSerializer(refund).data


def _present(intent: PaymentIntent) -> Mapping[str, Any]:
    return PaymentIntentSerializer(intent).data
