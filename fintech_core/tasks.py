"""Housekeeping of the shared kernel."""

from celery import shared_task
from django.utils import timezone

from fintech_core.models import RateLimitCounter
from fintech_core.webhooks import delivery


@shared_task(name="fintech_core.delete_old_counters")
def delete_old_counters(**_newer: object) -> None:
    """Safe to run twice. Counters are few: they are made only while Redis is away."""
    RateLimitCounter.objects.filter(expires_at__lt=timezone.now()).delete()


@shared_task(name="fintech_core.deliver_webhooks")
def deliver_webhooks(**_newer: object) -> None:
    """Safe to run twice, and at once: what one has claimed, the other skips."""
    delivery.run()


@shared_task(name="fintech_core.delete_old_deliveries")
def delete_old_deliveries(**_newer: object) -> None:
    delivery.delete_old()
