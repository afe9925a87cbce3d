"""How the ledger looks from outside, a module for each word."""

from transactions.serializers.batches import (
    BatchRequestSerializer,
    BatchSerializer,
    present_batch,
    to_batch,
)
from transactions.serializers.holds import (
    CaptureRequestSerializer,
    HoldRequestSerializer,
    HoldSerializer,
    to_reservation,
)
from transactions.serializers.transactions import (
    LedgerEntrySerializer,
    MoneyAnswerSerializer,
    PartySerializer,
    RefundRequestSerializer,
    TransactionHistorySerializer,
    TransactionSerializer,
    TransferRequestSerializer,
    money_answer_to,
)

__all__ = [
    "BatchRequestSerializer",
    "BatchSerializer",
    "CaptureRequestSerializer",
    "HoldRequestSerializer",
    "HoldSerializer",
    "LedgerEntrySerializer",
    "MoneyAnswerSerializer",
    "PartySerializer",
    "RefundRequestSerializer",
    "TransactionHistorySerializer",
    "TransactionSerializer",
    "TransferRequestSerializer",
    "money_answer_to",
    "present_batch",
    "to_batch",
    "to_reservation",
]
