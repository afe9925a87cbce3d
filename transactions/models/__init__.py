"""The ledger's tables, a module for each word."""

from transactions.models.ledger import Account, Transaction, TransactionLedger

__all__ = ["Account", "Transaction", "TransactionLedger"]
