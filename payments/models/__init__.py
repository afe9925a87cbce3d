"""What customers order through a gateway, and what gateways tell us. One file for each."""

from payments.models.event import WebhookAttempt, WebhookEvent
from payments.models.intent import PaymentIntent
from payments.models.payout import Payout
from payments.models.reconciliation import (
    ReconciliationBreak,
    ReconciliationLine,
    ReconciliationRun,
)
from payments.models.refund import DepositRefund
from payments.models.sandbox import SandboxDelivery, SandboxOrder
from payments.models.suspense import SuspendedDeposit

__all__ = [
    "DepositRefund",
    "PaymentIntent",
    "Payout",
    "ReconciliationBreak",
    "ReconciliationLine",
    "ReconciliationRun",
    "SandboxDelivery",
    "SandboxOrder",
    "SuspendedDeposit",
    "WebhookAttempt",
    "WebhookEvent",
]
