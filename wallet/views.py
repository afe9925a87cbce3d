"""`/wallets/…`: thin doors to `wallet.queries`."""

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.schema import problems
from users.authentication import caller_of
from wallet import queries
from wallet.models import Wallet
from wallet.serializers import WalletBalanceSerializer, WalletSerializer


class WalletViewSet(GenericViewSet[Wallet]):
    serializer_class = WalletSerializer

    @extend_schema(
        summary="Read your wallet",
        responses={200: WalletSerializer, **problems(401)},
    )
    @action(detail=False)
    def me(self, request: Request) -> Response:
        return Response(WalletSerializer(queries.wallet_of(caller_of(request).pk)).data)

    @extend_schema(
        summary="Read your balance",
        description="`available` is `balance` less what holds reserve; `as_of` is the time.",
        responses={200: WalletBalanceSerializer, **problems(401)},
    )
    @action(detail=False, url_path="me/balance")
    def balance(self, request: Request) -> Response:
        return Response(WalletBalanceSerializer(queries.wallet_of(caller_of(request).pk)).data)
