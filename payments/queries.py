"""Reading intents, payouts and events."""

from uuid import UUID

from django.db.models import QuerySet

from payments.exceptions import NotFound
from payments.models import PaymentIntent, Payout, WebhookEvent


def intents_of(user_id: UUID) -> QuerySet[PaymentIntent]:
    """The user's own intents."""
    return PaymentIntent.objects.filter(user_id=user_id)


def intent_of(user_id: UUID, intent_id: UUID) -> PaymentIntent:
    """Raises NotFound for an intent that does not exist or is another person's: no difference."""
    intent = intents_of(user_id).filter(pk=intent_id).first()
    if intent is None:
        raise NotFound
    return intent


def payouts_of(user_id: UUID) -> QuerySet[Payout]:
    """The user's own payouts."""
    return Payout.objects.filter(user_id=user_id)


def webhook_events() -> QuerySet[WebhookEvent]:
    """All events, for staff, without their payloads."""
    return WebhookEvent.objects.defer("body", "headers")
