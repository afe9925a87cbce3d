"""Endpoints for tests, registered as the API registers them."""

from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from fintech_core.models import WebhookDelivery, WebhookEndpoint
from fintech_core.webhooks import delivery, services
from users.models import User
from users.tests.factories import StaffFactory

SOMEWHERE = "https://8.8.8.8/hooks"  # public; nothing in the tests is sent there


def endpoint_for(user: User, url: str, *types: str, **facts: Any) -> WebhookEndpoint:
    new = services.NewEndpoint(url=url, event_types=list(types) or ["*"], **facts)
    return services.register(user=user, new=new)


def register_quietly(user: User) -> WebhookEndpoint:
    """One that may be registered, for tests that send nothing."""
    return endpoint_for(user, SOMEWHERE)


def listener() -> User:
    """Staff who may hear of everybody."""
    return StaffFactory(permissions=["fintech_core.listen_to_everybody"])


def deliver() -> int:
    return delivery.deliver_due(seconds_max=10)


def only_delivery() -> WebhookDelivery:
    return WebhookDelivery.objects.get()


def make_due(*, rested: bool = True) -> None:
    """As if the time until the next try had passed, and the leases with it."""
    WebhookDelivery.objects.filter(status="pending").update(
        next_attempt_at=Now() - timedelta(seconds=1), sending_until=None
    )
    if rested:
        WebhookEndpoint.objects.update(paused_until=None)
