"""`/wallets/me/limits/`, for their use is counted in this app."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.schema import problems
from transactions.limit_use import limits_in_use
from transactions.serializers.limits import LimitsSerializer
from users.authentication import caller_of

_EXAMPLE = {
    "tier": "approved",
    "currency": "USD",
    "transfer_max": {"limit": "10000.00", "used": None, "remaining": "10000.00"},
    "daily_total": {"limit": "50000.00", "used": "120.00", "remaining": "49880.00"},
    "daily_count": {"limit": 5000, "used": 3, "remaining": 4997},
    "monthly_total": {"limit": "200000.00", "used": "870.50", "remaining": "199129.50"},
    "monthly_count": {"limit": 50000, "used": 19, "remaining": 49981},
    "balance_max": {"limit": "100000.00", "used": "125.50", "remaining": "99874.50"},
}


class WalletLimitsViewSet(GenericViewSet[Any]):
    serializer_class = LimitsSerializer

    @extend_schema(
        operation_id="wallets_me_limits_retrieve",
        summary="Read your limits, and what is left of them",
        description=(
            "Transfers and holds count from when they are made. The windows roll by the hour and "
            "count the whole of their oldest hour. What a hold releases or a refund returns is not "
            "given back. Who is not approved can send nothing."
        ),
        responses={200: LimitsSerializer, **problems(401)},
        examples=[OpenApiExample("Approved", value=_EXAMPLE, response_only=True)],
    )
    @action(detail=False, url_path="me/limits")
    def limits(self, request: Request) -> Response:
        return Response(LimitsSerializer(limits_in_use(caller_of(request))).data)
