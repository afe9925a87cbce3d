"""`/api/v1/transactions/…`, and what the ledger says about `/api/v1/wallets/me/…`"""

from rest_framework.routers import DefaultRouter

from transactions.views import (
    BatchViewSet,
    CheckpointViewSet,
    HoldViewSet,
    TransactionViewSet,
    WalletLedgerViewSet,
    WalletLimitsViewSet,
    WalletProofViewSet,
)


def register(router: DefaultRouter) -> None:
    router.register("transactions", TransactionViewSet, basename="transaction")
    router.register("transactions/batch", BatchViewSet, basename="batch")
    router.register("transactions/holds", HoldViewSet, basename="hold")
    router.register("transactions/checkpoints", CheckpointViewSet, basename="checkpoint")
    router.register("wallets", WalletLedgerViewSet, basename="wallet-ledger")
    router.register("wallets", WalletLimitsViewSet, basename="wallet-limits")
    router.register("wallets", WalletProofViewSet, basename="wallet-proof")
