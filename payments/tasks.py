"""Payments' jobs. Each may run twice, also at once: the services see to it."""

from uuid import UUID

from celery import shared_task

from payments import reconciliation
from payments.services import PaymentService


@shared_task(name="payments.process_webhook_async")
def process_webhook_async(event_id: str, **_newer: object) -> None:
    """Try one stored event; `event_id` is the row's. `**_newer`: a worker one release behind
    ignores arguments that it does not know yet."""
    PaymentService.process_payment_webhook(UUID(event_id))


@shared_task(name="payments.sweep_webhook_events")
def sweep_webhook_events(**_newer: object) -> None:
    """The queue is a hint; this is what makes sure."""
    PaymentService.sweep_webhook_events()


@shared_task(name="payments.expire_payment_intents")
def expire_payment_intents(**_newer: object) -> None:
    PaymentService.expire_payment_intents()


@shared_task(name="payments.cleanup_old_webhook_events")
def cleanup_old_webhook_events(**_newer: object) -> None:
    PaymentService.cleanup_old_webhook_events()


@shared_task(name="payments.sweep_refunds")
def sweep_refunds(**_newer: object) -> None:
    PaymentService.sweep_refunds()


@shared_task(name="payments.reconcile_gateways")
def reconcile_gateways(**_newer: object) -> None:
    reconciliation.reconcile_missed_days()
