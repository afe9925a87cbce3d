"""The ledger's tables, a module for each word."""

from transactions.models.adjustment import Adjustment
from transactions.models.batch import LEGS_MAX, TransferBatch, TransferBatchLeg
from transactions.models.checkpoint import CheckpointLeaf, CheckpointNode, LedgerCheckpoint
from transactions.models.hold import Hold
from transactions.models.ledger import Account, MovedWallet, Transaction, TransactionLedger
from transactions.models.seal import LedgerSeal, OutsideSeal
from transactions.models.staff_refund import StaffRefund

__all__ = [
    "LEGS_MAX",
    "Account",
    "Adjustment",
    "CheckpointLeaf",
    "CheckpointNode",
    "Hold",
    "LedgerCheckpoint",
    "LedgerSeal",
    "MovedWallet",
    "OutsideSeal",
    "StaffRefund",
    "Transaction",
    "TransactionLedger",
    "TransferBatch",
    "TransferBatchLeg",
]
