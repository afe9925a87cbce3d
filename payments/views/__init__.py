"""`/api/v1/payments/…`, one file for each thing."""

from payments.views.intents import PaymentIntentViewSet
from payments.views.webhooks import WebhookEventViewSet, WebhookViewSet

__all__ = ["PaymentIntentViewSet", "WebhookEventViewSet", "WebhookViewSet"]
