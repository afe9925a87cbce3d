"""`/wallets/…`: thin doors to `wallet.queries` and `wallet.services`."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.renderers import as_json
from fintech_core.schema import problems
from users.authentication import caller_of
from wallet import queries, services
from wallet.models import Wallet
from wallet.permissions import MayChangeStatus
from wallet.serializers import ReasonSerializer, WalletSerializer


def _wallet_example(name: str, status: str, balance: str) -> OpenApiExample:
    wallet = {
        "id": "019ac0de-7f1e-7c2a-8b60-0a4f5f6d2b12",
        "currency": "USD",
        "balance": balance,
        "held": "0.00",
        "available": balance,
        "status": status,
        "created_at": "2026-11-22T13:00:00.123456Z",
        "updated_at": "2026-11-22T16:40:07.350871Z",
    }
    return OpenApiExample(name, value=wallet, response_only=True, status_codes=["200"])


def _reason_example(reason: str) -> OpenApiExample:
    return OpenApiExample("A reason", value={"reason": reason}, request_only=True)


_STAFF_ANSWERS: dict[Any, Any] = {200: WalletSerializer, **problems(400, 401, 403, 404, 409)}


class WalletViewSet(GenericViewSet[Wallet]):
    queryset = Wallet.objects.all()
    serializer_class = WalletSerializer
    lookup_value_converter = "uuid"

    @extend_schema(
        summary="Read your wallet",
        responses={200: WalletSerializer, **problems(401)},
    )
    @action(detail=False)
    def me(self, request: Request) -> HttpResponse:
        shown = WalletSerializer(queries.wallet_of(caller_of(request).pk)).data
        return HttpResponse(as_json(shown).encode(), content_type="application/json")

    @extend_schema(
        summary="Freeze a wallet (staff)",
        description=(
            "From then on nothing leaves it; credits still arrive. Recorded for good, with the "
            "reason. Only from `active`, and never one's own."
        ),
        request=ReasonSerializer,
        responses=_STAFF_ANSWERS,
        examples=[
            _reason_example("The card of the last deposit was reported stolen."),
            _wallet_example("A frozen wallet", "frozen", "125.50"),
        ],
    )
    @action(detail=True, methods=["post"], permission_classes=[MayChangeStatus])
    def freeze(self, request: Request, pk: UUID) -> Response:
        return _decide(services.freeze, request, pk)

    @extend_schema(
        summary="Unfreeze a wallet (staff)",
        description="Undoes a freeze; recorded for good. Only from `frozen`, and never one's own.",
        request=ReasonSerializer,
        responses=_STAFF_ANSWERS,
        examples=[
            _reason_example("The customer proved that the card is theirs."),
            _wallet_example("An active wallet", "active", "125.50"),
        ],
    )
    @action(detail=True, methods=["post"], permission_classes=[MayChangeStatus])
    def unfreeze(self, request: Request, pk: UUID) -> Response:
        return _decide(services.unfreeze, request, pk)

    @extend_schema(
        summary="Close a wallet (staff)",
        description=(
            "For good: neither debits nor credits. Only at zero, with nothing held, and never "
            "one's own; recorded, with the reason."
        ),
        request=ReasonSerializer,
        responses=_STAFF_ANSWERS,
        examples=[
            _reason_example("The customer asked us to close the account."),
            _wallet_example("A closed wallet", "closed", "0.00"),
        ],
    )
    @action(detail=True, methods=["post"], permission_classes=[MayChangeStatus])
    def close(self, request: Request, pk: UUID) -> Response:
        return _decide(services.close, request, pk)


def _decide(step: Callable[..., Wallet], request: Request, wallet_id: UUID) -> Response:
    form = ReasonSerializer(data=request.data)
    form.is_valid(raise_exception=True)
    changed = step(wallet_id=wallet_id, actor=caller_of(request), **form.validated_data)
    return Response(WalletSerializer(changed).data)
