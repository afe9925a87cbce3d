"""`/api/v1/wallets/…`"""

from rest_framework.routers import DefaultRouter

from wallet.views import WalletViewSet


def register(router: DefaultRouter) -> None:
    router.register("wallets", WalletViewSet, basename="wallet")
