"""`/transactions/holds/…`: thin doors to `TransactionService` and `transactions.queries`."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.idempotency import IdempotentCall
from fintech_core.pagination import CursorPagination
from fintech_core.ratelimit import TransferRateLimit
from fintech_core.schema import IDEMPOTENCY_KEY, problems
from fintech_core.serializers import NoBodySerializer
from transactions import queries
from transactions.filters import HoldFilter
from transactions.models import Hold
from transactions.serializers import (
    CaptureRequestSerializer,
    HoldRequestSerializer,
    HoldSerializer,
    MoneyAnswerSerializer,
    money_answer_to,
    to_reservation,
)
from transactions.services import TransactionService
from transactions.views.currency import without_own_currency
from users.authentication import caller_of

_HOLD = {
    "id": "0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11",
    "status": "active",
    "amount": "50.00",
    "captured_amount": "0.00",
    "currency": "USD",
    "from_user": {"id": "0192f0b0-1111-7c3a-9a44-2f7d1c0f9b11", "display_name": "Alice A."},
    "to_user": {"id": "0192f0b0-2222-7c3a-9a44-2f7d1c0f9b11", "display_name": "Bob T."},
    "description": "Deposit for the bicycle",
    "metadata": {"booking": "117"},
    "transaction_id": None,
    "expires_at": "2026-11-29T13:00:00.123456Z",
    "created_at": "2026-11-22T13:00:00.123456Z",
    "resolved_at": None,
}


class HoldPagination(CursorPagination):
    """Newest first; without a direction, both are read side by side."""

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        if not request.query_params.get("direction"):
            caller_id = caller_of(request).pk
            queryset = queries.HoldsEitherWay(
                [queryset.filter(from_user_id=caller_id), queryset.filter(to_user_id=caller_id)]
            )
        return super().paginate_queryset(queryset, request, view=view)


@extend_schema_view(
    list=extend_schema(
        summary="List your holds",
        description="Those on your money (`out`) and those in your favour (`in`), newest first.",
        responses={200: HoldSerializer(many=True), **problems(400, 401)},
    ),
    retrieve=extend_schema(
        summary="Read a hold",
        responses={200: HoldSerializer, **problems(401, 404)},
        examples=[OpenApiExample("A hold", value=_HOLD, response_only=True)],
    ),
)
class HoldViewSet(ListModelMixin, RetrieveModelMixin, GenericViewSet[Hold]):
    """The caller's holds. Another person's do not exist here (404)."""

    queryset = Hold.objects.none()  # for the schema; see get_queryset
    serializer_class = HoldSerializer
    pagination_class = HoldPagination
    filterset_class = HoldFilter
    throttle_classes = [TransferRateLimit]  # counts POST alone
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[Hold]:
        caller_id = caller_of(self.request).pk
        return queries.holds_of(caller_id).select_related("from_user", "to_user")

    @extend_schema(
        summary="Hold money for somebody",
        description=(
            "The money stays in your wallet, but leaves `available` at once. Until `expires_at` the"
            " recipient can capture it, whole or in part, or void the hold; after that it is yours"
            " again. You cannot take a hold back yourself."
        ),
        parameters=[IDEMPOTENCY_KEY],
        request=HoldRequestSerializer,
        responses={201: HoldSerializer, **problems(400, 401, 403, 409, 422, 429)},
        examples=[
            OpenApiExample(
                "A deposit for a day",
                value={
                    "recipient": "bob@example.com",
                    "amount": "50.00",
                    "description": "Deposit for the bicycle",
                    "metadata": {"booking": "117"},
                    "expires_in": 86400,
                },
                request_only=True,
            ),
            OpenApiExample("A hold", value=_HOLD, response_only=True, status_codes=["201"]),
        ],
        filters=False,
    )
    def create(self, request: Request) -> HttpResponseBase:
        caller = caller_of(request)
        asked = HoldRequestSerializer.read(request.data)
        [named] = without_own_currency(caller, [asked])
        return TransactionService.create_hold(
            payer=caller,
            reservation=to_reservation(asked),
            idempotency=IdempotentCall.from_request(request, named, _present),
        ).as_response()

    @extend_schema(
        summary="Capture a hold",
        description=(
            "For its recipient: takes the money, or `amount` of it; the rest is released. A hold is"
            " captured once, and not after `expires_at`."
        ),
        parameters=[IDEMPOTENCY_KEY],
        request=CaptureRequestSerializer,
        responses={201: MoneyAnswerSerializer, **problems(400, 401, 403, 404, 409, 422, 429)},
        examples=[
            OpenApiExample("All of it", value={}, request_only=True),
            OpenApiExample("Part of it", value={"amount": "35.00"}, request_only=True),
        ],
        filters=False,
    )
    @action(detail=True, methods=["post"])
    def capture(self, request: Request, pk: UUID) -> HttpResponseBase:
        caller = caller_of(request)
        asked = CaptureRequestSerializer.read(request.data)
        call = IdempotentCall.from_request(request, asked, present=money_answer_to(caller.pk))
        return TransactionService.capture_hold(
            caller=caller, hold_id=pk, **asked, idempotency=call
        ).as_response()

    @extend_schema(
        summary="Void a hold",
        description="For its recipient, and for staff: the payer's money is available again.",
        request=None,
        responses={200: HoldSerializer, **problems(400, 401, 403, 404, 409)},
        examples=[
            OpenApiExample(
                "A voided hold",
                value={**_HOLD, "status": "voided", "resolved_at": "2026-11-23T09:30:00.654321Z"},
                response_only=True,
            )
        ],
        filters=False,
    )
    @action(detail=True, methods=["post"], throttle_classes=[])
    def void(self, request: Request, pk: UUID) -> Response:
        NoBodySerializer.read(request.data)
        return Response(
            _present(TransactionService.void_hold(caller=caller_of(request), hold_id=pk))
        )


def _present(hold: Hold) -> Mapping[str, Any]:
    return HoldSerializer(hold).data
