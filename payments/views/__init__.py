"""`/api/v1/payments/…`, one file for each thing."""

from payments.views.intents import PaymentIntentViewSet
from payments.views.payouts import PayoutViewSet
from payments.views.webhooks import WebhookEventViewSet, WebhookViewSet

__all__ = ["PaymentIntentViewSet", "PayoutViewSet", "WebhookEventViewSet", "WebhookViewSet"]
