"""Payments' jobs. Each may run twice, also at once: the services see to it."""

from uuid import UUID

from celery import shared_task

from payments import reconciliation
from payments.sandbox import delivery
from payments.services import PaymentService


@shared_task(name="payments.process_webhook_async")
def process_webhook_async(event_id: str, **_newer: object) -> None:
    """Try what is due: the stored event that it was queued for (`event_id` is the row's), and with
    it whatever came meanwhile. `**_newer`: a worker one release behind ignores arguments that it
    does not know yet."""
    PaymentService.process_arrived_webhooks()


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


@shared_task(name="payments.poll_gateways")
def poll_gateways(**_newer: object) -> None:
    """Events get lost; this finds out what they would have said."""
    PaymentService.poll_gateways()


@shared_task(name="payments.deliver_sandbox_event")
def deliver_sandbox_event(delivery_id: str, **_newer: object) -> None:
    """Send one event of the sandbox to our endpoint, if it is due."""
    delivery.deliver(UUID(delivery_id))


@shared_task(name="payments.deliver_due_sandbox_events")
def deliver_due_sandbox_events(**_newer: object) -> None:
    """What is too late for the queue, was lost by it, or did not arrive."""
    delivery.deliver_due()


@shared_task(name="payments.sweep_refunds")
def sweep_refunds(**_newer: object) -> None:
    PaymentService.sweep_refunds()


# Longer than other tasks may take, shorter than until the broker would hand it out again.
@shared_task(name="payments.reconcile_gateways", soft_time_limit=540, time_limit=570)
def reconcile_gateways(**_newer: object) -> None:
    """The days that are missed; bigger ones than fit in its time are for `manage.py reconcile`."""
    reconciliation.reconcile_missed_days()
