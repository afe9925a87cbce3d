"""`/api/v1/transactions/…`"""

from rest_framework.routers import DefaultRouter

from transactions.views import TransactionViewSet


def register(router: DefaultRouter) -> None:
    router.register("transactions", TransactionViewSet, basename="transaction")
