"""Thin doors to `TransactionService` and `transactions.queries`, a module for each word."""

from transactions.views.transactions import TransactionViewSet

__all__ = ["TransactionViewSet"]
