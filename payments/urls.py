"""`/api/v1/payments/…`"""

from rest_framework.routers import DefaultRouter

from payments.views import (
    PaymentIntentViewSet,
    PayoutViewSet,
    WebhookEventViewSet,
    WebhookViewSet,
)


def register(router: DefaultRouter) -> None:
    router.register("payments/intents", PaymentIntentViewSet, basename="payment-intent")
    router.register("payments/payouts", PayoutViewSet, basename="payout")
    router.register("payments/webhook-events", WebhookEventViewSet, basename="webhook-event")
    router.register("payments/webhooks/<slug:gateway>", WebhookViewSet, basename="webhook")
