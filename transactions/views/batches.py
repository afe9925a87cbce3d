"""`/transactions/batch/`: a thin door to `TransactionService`."""

from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from fintech_core.idempotency import IdempotentCall
from fintech_core.ratelimit import TransferRateLimit
from fintech_core.schema import IDEMPOTENCY_KEY, problems
from transactions.models import TransferBatch
from transactions.serializers import (
    BatchRequestSerializer,
    BatchSerializer,
    present_batch,
    to_batch,
)
from transactions.services import TransactionService
from transactions.views.currency import without_own_currency
from users.authentication import caller_of

_ANSWER: dict[str, Any] = {
    "id": "0192f0c4-2a10-7c3a-9a44-2f7d1c0f9b11",
    "mode": "independent",
    "status": "partial",
    "count": 2,
    "succeeded": 1,
    "failed": 1,
    "total": "1200.00",
    "currency": "USD",
    "results": [
        {
            "index": 0,
            "status": "succeeded",
            "transaction_id": "0192f0c4-2a0f-7b21-8c33-5b1e9d7a4f02",
            "error": None,
        },
        {
            "index": 1,
            "status": "failed",
            "transaction_id": None,
            "error": {
                "code": "insufficient_funds",
                "title": "The wallet has less money available than this needs.",
                "detail": "The wallet has less money available than this needs.",
            },
        },
    ],
}


class BatchViewSet(GenericViewSet[TransferBatch]):
    queryset = TransferBatch.objects.none()  # for the schema
    serializer_class = BatchSerializer
    throttle_classes = [TransferRateLimit]  # counts the call, and by the hour the legs

    @extend_schema(
        summary="Send money to many",
        description=(
            "1 to 1000 transfers in one call, made in their order; each becomes a transaction of "
            "its own. `atomic`: all of them, or none, and the problem names the first leg that "
            "cannot be made (`index`). `independent`: each for itself; `results` says what became "
            "of it, and the answer is 201 even if every leg was refused. The body may have 2 MiB. "
            "The rate limit counts the call, and by the hour its legs."
        ),
        parameters=[IDEMPOTENCY_KEY],
        request=BatchRequestSerializer,
        responses={201: BatchSerializer, **problems(400, 401, 403, 409, 422, 429)},
        examples=[
            OpenApiExample(
                "Pay two people",
                value={
                    "mode": "independent",
                    "transfers": [
                        {"recipient": "bob@example.com", "amount": "1200.00"},
                        {
                            "recipient": "chiara@example.com",
                            "amount": "900.00",
                            "description": "November",
                        },
                    ],
                },
                request_only=True,
            ),
            OpenApiExample("One was paid", value=_ANSWER, response_only=True, status_codes=["201"]),
        ],
        filters=False,
    )
    def create(self, request: Request) -> HttpResponseBase:
        caller = caller_of(request)
        asked = BatchRequestSerializer.read(request.data)
        named = {**asked, "transfers": without_own_currency(caller, asked["transfers"])}
        return TransactionService.transfer_batch(
            sender=caller,
            batch=to_batch(asked),
            idempotency=IdempotentCall.from_request(request, named, present_batch),
        ).as_response()
