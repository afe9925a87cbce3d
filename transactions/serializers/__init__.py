"""How the ledger looks from outside, a module for each word."""

from transactions.serializers.transactions import (
    LedgerEntrySerializer,
    MoneyAnswerSerializer,
    PartySerializer,
    TransactionHistorySerializer,
    TransactionSerializer,
    TransferRequestSerializer,
)

__all__ = [
    "LedgerEntrySerializer",
    "MoneyAnswerSerializer",
    "PartySerializer",
    "TransactionHistorySerializer",
    "TransactionSerializer",
    "TransferRequestSerializer",
]
