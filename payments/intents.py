"""Asking a gateway to collect money, and storing its answer. `PaymentService` is the door."""

from datetime import timedelta
from uuid import UUID

from django.db.models.functions import Now

from payments import gateways
from payments.gateways.base import CreatedIntent, NewIntent
from payments.models import PaymentIntent

FIRST_POLL_AFTER = timedelta(minutes=15)


def ask(intent: PaymentIntent) -> CreatedIntent:
    """Raises what the gateway's `create` raises. Call it without a lock."""
    return gateways.gateway_named(intent.gateway).create(
        NewIntent(
            id=intent.pk,
            amount=intent.amount,
            currency=intent.currency,
            idempotency_key=f"payment_intent:{intent.pk}",
        )
    )


def attach(intent_id: UUID, created: CreatedIntent) -> PaymentIntent:
    """Store what the gateway answered. It answers the same to the same key, so once is enough."""
    intent = PaymentIntent.objects.select_for_update(no_key=True).get(pk=intent_id)
    if intent.gateway_reference is None:
        intent.gateway_reference = created.gateway_reference
        intent.client_secret = created.client_secret
        intent.checkout_url = created.checkout_url
        intent.save(
            update_fields=["gateway_reference", "client_secret", "checkout_url", "updated_at"]
        )
    return intent


def fail(intent_id: UUID) -> None:
    """The gateway will not collect it. One that is closed already stays as it is."""
    PaymentIntent.objects.filter(
        pk=intent_id, status=PaymentIntent.Status.REQUIRES_PAYMENT, gateway_reference=None
    ).update(status=PaymentIntent.Status.FAILED, updated_at=Now())
