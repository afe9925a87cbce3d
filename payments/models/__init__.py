"""What customers order through a gateway, and what gateways tell us. One file for each."""

from payments.models.event import WebhookAttempt, WebhookEvent
from payments.models.intent import PaymentIntent
from payments.models.sandbox import SandboxDelivery, SandboxOrder

__all__ = ["PaymentIntent", "SandboxDelivery", "SandboxOrder", "WebhookAttempt", "WebhookEvent"]
