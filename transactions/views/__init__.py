"""Thin doors to `TransactionService` and `transactions.queries`, a module for each word."""

from transactions.views.batches import BatchViewSet
from transactions.views.checkpoints import CheckpointViewSet, WalletProofViewSet
from transactions.views.holds import HoldViewSet
from transactions.views.limits import WalletLimitsViewSet
from transactions.views.statements import WalletLedgerViewSet
from transactions.views.transactions import TransactionViewSet

__all__ = [
    "BatchViewSet",
    "CheckpointViewSet",
    "HoldViewSet",
    "TransactionViewSet",
    "WalletLedgerViewSet",
    "WalletLimitsViewSet",
    "WalletProofViewSet",
]
