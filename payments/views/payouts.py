"""Ordering payouts."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    extend_schema,
    extend_schema_view,
)
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from fintech_core.idempotency import REPLAY_HEADER, IdempotentCall
from fintech_core.ratelimit import PaymentRateLimit
from fintech_core.schema import IDEMPOTENCY_KEY, problems
from payments import gateways, queries
from payments.exceptions import NotFound
from payments.models import Payout
from payments.serializers import CreatePayoutSerializer, PayoutSerializer
from payments.services import PaymentService
from users.authentication import caller_of

_PAYOUT = {
    "id": "0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11",
    "status": "pending",
    "amount": "40.00",
    "currency": "USD",
    "gateway": "sandbox",
    "gateway_reference": "sbx_4f1d2c3b5a69788796a5b4c3",
    "destination": {"type": "bank_account", "iban": "DE••••3000", "name": "Ada Lovelace"},
    "failure_code": None,
    "transaction_id": "0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b12",
    "reversal_id": None,
    "created_at": "2026-11-22T13:00:00.123456Z",
    "completed_at": None,
}
_ORDER = {
    "amount": "40.00",
    "destination": {
        "type": "bank_account",
        "iban": "DE89 3704 0044 0532 0130 00",
        "name": "Ada Lovelace",
    },
}


@extend_schema_view(
    list=extend_schema(
        summary="List your payouts",
        description="Newest first.",
        responses={200: PayoutSerializer, **problems(400, 401, 404)},
    ),
    retrieve=extend_schema(
        summary="Read one of your payouts",
        description="`pending` until the bank has the money (`paid`) or it is back (`failed`).",
        responses={200: PayoutSerializer, **problems(401, 404)},
        examples=[OpenApiExample("A payout", value=_PAYOUT, response_only=True)],
    ),
)
class PayoutViewSet(ListModelMixin, RetrieveModelMixin, GenericViewSet[Payout]):
    """The caller's own payouts. Where no gateway is configured, there are none: 404."""

    serializer_class = PayoutSerializer
    throttle_classes = [PaymentRateLimit]
    lookup_value_converter = "uuid"
    filterset_fields = ("status",)
    queryset = Payout.objects.none()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not gateways.available():
            raise NotFound

    def get_queryset(self) -> QuerySet[Payout]:
        return queries.payouts_of(caller_of(self.request).pk)

    @extend_schema(
        summary="Send money to a bank account",
        description=(
            "The money leaves your wallet at once, as a `withdrawal` that is `pending`. It is"
            " counted against your limits like a transfer. If the gateway says that it failed, a"
            " `reversal` brings it back; limits stay used. One that refuses at once is answered"
            " with a payout that has `failed` already. Where the gateway does not answer (503), ask"
            " again with the same key: the payout stands, and goes on by itself, too."
        ),
        request=CreatePayoutSerializer,
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
            201: PayoutSerializer,
            **problems(400, 401, 403, 404, 409, 422, 429, 503),
        },
        examples=[
            OpenApiExample("To a bank account", value=_ORDER, request_only=True),
            OpenApiExample("A payout", value=_PAYOUT, response_only=True, status_codes=["201"]),
        ],
    )
    def create(self, request: Request) -> HttpResponse:
        form = CreatePayoutSerializer(data=request.data, context={"user": caller_of(request)})
        form.is_valid(raise_exception=True)
        answer = PaymentService.create_payout(
            user=caller_of(request),
            order=form.order,
            idempotency=IdempotentCall.from_request(request, form.asked, _present),
        )
        return answer.as_response()


def _present(payout: Payout) -> Mapping[str, Any]:
    return PayoutSerializer(payout).data
