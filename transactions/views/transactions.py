"""`/transactions/…`: thin doors to `TransactionService` and `transactions.queries`."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.idempotency import IdempotentCall
from fintech_core.pagination import CursorPagination, SequencePagination
from fintech_core.ratelimit import TransferRateLimit
from fintech_core.schema import IDEMPOTENCY_KEY, problems
from transactions import queries
from transactions.filters import EntryFilter
from transactions.models import Transaction, TransactionLedger
from transactions.pages import Entries, Shape
from transactions.serializers import (
    LedgerEntrySerializer,
    MoneyAnswerSerializer,
    RefundRequestSerializer,
    TransactionHistorySerializer,
    TransactionSerializer,
    TransferRequestSerializer,
    money_answer_to,
)
from transactions.services import TransactionService, Transfer
from transactions.views.currency import without_own_currency
from users.authentication import caller_of


class EntryPagination(CursorPagination):
    """The sides of one transaction, in the order in which they were posted: debits first."""

    ordering = "id"


class TransactionViewSet(GenericViewSet[Any]):
    """The caller's transactions. Another person's do not exist here (404)."""

    queryset = TransactionLedger.objects.none()  # for the schema; see _page
    serializer_class = TransactionSerializer
    pagination_class = SequencePagination
    filterset_class = EntryFilter
    lookup_value_converter = "uuid"

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "caller_id": caller_of(self.request).pk}

    @extend_schema(
        summary="Send money",
        description=(
            "Moves money to another person at once. A retry with the same `Idempotency-Key` gets "
            "the same answer and moves nothing."
        ),
        parameters=[IDEMPOTENCY_KEY],
        request=TransferRequestSerializer,
        responses={201: MoneyAnswerSerializer, **problems(400, 401, 403, 409, 422, 429, 503)},
        examples=[
            OpenApiExample(
                "Pay a friend",
                value={
                    "recipient": "bob@example.com",
                    "amount": "50.00",
                    "description": "Dinner",
                    "metadata": {"table": "7"},
                },
                request_only=True,
            )
        ],
        filters=False,
    )
    @action(detail=False, methods=["post"], throttle_classes=[TransferRateLimit])
    def transfer(self, request: Request) -> HttpResponseBase:
        caller = caller_of(request)
        asked = TransferRequestSerializer.read(request.data)
        [named] = without_own_currency(caller, [asked])
        call = IdempotentCall.from_request(request, named, present=money_answer_to(caller.pk))
        return TransactionService.transfer_money(
            sender=caller, transfer=Transfer(**asked), idempotency=call
        ).as_response()

    @extend_schema(
        summary="Refund a payment",
        description=(
            "Gives a transfer or a capture back to its payer, whole or in parts. For its recipient,"
            " and for staff; the recipient's wallet must have the money. More than the rest:"
            " `amount_exceeds_remaining`, which names what `remaining` is."
        ),
        parameters=[IDEMPOTENCY_KEY],
        request=RefundRequestSerializer,
        responses={201: MoneyAnswerSerializer, **problems(400, 401, 403, 404, 409, 422, 429)},
        examples=[
            OpenApiExample(
                "Part of it",
                value={"amount": "10.00", "reason": "One glass was broken"},
                request_only=True,
            ),
            OpenApiExample("All of the rest", value={}, request_only=True),
        ],
        filters=False,
    )
    @action(detail=True, methods=["post"], throttle_classes=[TransferRateLimit])
    def refund(self, request: Request, pk: UUID) -> HttpResponseBase:
        caller = caller_of(request)
        asked = RefundRequestSerializer.read(request.data)
        call = IdempotentCall.from_request(request, asked, present=money_answer_to(caller.pk))
        return TransactionService.refund(
            caller=caller, transaction_id=pk, **asked, idempotency=call
        ).as_response()

    @extend_schema(
        summary="List your transactions",
        responses={200: TransactionSerializer(many=True), **problems(400, 401)},
    )
    def list(self, request: Request) -> HttpResponse:
        return self._page(Shape.TRANSACTION)

    @extend_schema(
        operation_id="transactions_history_list",
        summary="Read your statement lines",
        filters=True,
        responses={200: TransactionHistorySerializer(many=True), **problems(400, 401)},
    )
    @action(detail=False, serializer_class=TransactionHistorySerializer)
    def history(self, request: Request) -> HttpResponse:
        return self._page(Shape.LINE)

    @extend_schema(
        operation_id="ledger_list",
        summary="List your ledger entries",
        filters=True,
        responses={200: LedgerEntrySerializer(many=True), **problems(400, 401)},
    )
    @action(detail=False, serializer_class=LedgerEntrySerializer, url_path="ledger")
    def own_ledger(self, request: Request) -> HttpResponse:
        return self._page(Shape.ENTRY)

    @extend_schema(
        summary="Read a transaction",
        responses={200: TransactionSerializer, **problems(401, 404)},
    )
    def retrieve(self, request: Request, pk: UUID) -> Response:
        return Response(self.get_serializer(self._transaction(pk)).data)

    @extend_schema(
        operation_id="transactions_ledger_list",
        summary="List a transaction's ledger entries",
        responses={200: LedgerEntrySerializer(many=True), **problems(400, 401, 404)},
        filters=False,
    )
    @action(
        detail=True,
        serializer_class=LedgerEntrySerializer,
        pagination_class=EntryPagination,
        filterset_class=None,
    )
    def ledger(self, request: Request, pk: UUID) -> Response:
        page = self.paginate_queryset(queries.entries_in(self._transaction(pk).pk))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def _transaction(self, pk: UUID) -> Transaction:
        return get_object_or_404(queries.transactions_of(caller_of(self.request).pk), pk=pk)

    def _page(self, shape: Shape) -> HttpResponse:
        entries: Any = Entries(of_user=caller_of(self.request).pk, shape=shape)
        page: Any = self.paginate_queryset(self.filter_queryset(entries))
        return self.get_paginated_response(page)
