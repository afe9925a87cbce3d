"""`/api/v1/webhook-endpoints/…`"""

from rest_framework.routers import DefaultRouter

from fintech_core.webhooks.views import WebhookEndpointViewSet


def register(router: DefaultRouter) -> None:
    router.register("webhook-endpoints", WebhookEndpointViewSet, basename="webhook-endpoint")
