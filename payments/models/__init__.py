"""What customers order through a gateway, and what gateways tell us. One file for each."""

from payments.models.event import WebhookAttempt, WebhookEvent
from payments.models.intent import PaymentIntent
from payments.models.reconciliation import (
    ReconciliationBreak,
    ReconciliationLine,
    ReconciliationRun,
)
from payments.models.refund import DepositRefund

__all__ = [
    "DepositRefund",
    "PaymentIntent",
    "ReconciliationBreak",
    "ReconciliationLine",
    "ReconciliationRun",
    "WebhookAttempt",
    "WebhookEvent",
]
