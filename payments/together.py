"""Many plain payments at once: an event that says that an open intent was paid, as it was ordered.

They are nearly all events, and a hundred of them cost little more than a few alone. What is not
plain, or in whose way something is, is left to be tried by itself: nothing here decides against it.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from fintech_core.database import execute
from fintech_core.exceptions import DomainError
from payments import gateways
from payments.effects import intents
from payments.gateways.base import Gateway, Statement, Subject
from payments.models import PaymentIntent, WebhookEvent
from transactions.services import TransactionService

logger = logging.getLogger(__name__)

_NEEDED_OF_INTENTS = ("wallet", "gateway", "gateway_reference", "status", "amount", "currency")

# Somebody who is in the way of one payment is not to hold the others up. How long for a lock:
PATIENCE = timedelta(milliseconds=250)
PATIENCE_ALONE = timedelta(milliseconds=100)  # a hundred in turn: about as long as a lease


class Attempt(NamedTuple):
    """A try that has begun: what its row says, and no more, for there are many."""

    pk: int
    event_id: UUID
    number: int


@dataclass(frozen=True)
class _Told:
    attempt: Attempt
    event: WebhookEvent
    said: Statement


@dataclass(frozen=True)
class _Payment:
    attempt: Attempt
    event: WebhookEvent
    intent: PaymentIntent


def credit_plain(attempts: Sequence[Attempt]) -> set[UUID]:
    """Credit those of the events that are plain payments; the ids of the events it settled.

    Effects and marks are one database transaction: all of them, or none and an empty set. Rows are
    locked as for one event: events, intents, wallets, each in the order of their ids. One alone is
    welcome, too: it then waits for nobody longer than `PATIENCE_ALONE`.
    """
    try:
        return _credit_plain(attempts)
    except Exception:  # whatever it was: by itself each is tried, and recorded with its reason
        extra = {"count": len(attempts)}
        logger.warning("payments are tried one by one", extra=extra, exc_info=True)
        return set()


@transaction.atomic
def _credit_plain(attempts: Sequence[Attempt]) -> set[UUID]:
    patience = PATIENCE if len(attempts) > 1 else PATIENCE_ALONE
    execute("SET LOCAL lock_timeout = %(patience)s", patience=f"{patience.microseconds // 1000}ms")
    payments = list(_plain(_locked_events(attempts)))
    if not payments:
        return set()
    credits = TransactionService.add_money_to_many(
        intents.deposit_of(payment.intent) for payment in payments
    )
    made = [(payment, credits.get(intents.effect_key(payment.intent))) for payment in payments]
    credited = [(payment, credit) for payment, credit in made if credit]
    intents.mark_credited({payment.intent.pk: credit.pk for payment, credit in credited})
    _mark_processed([payment for payment, _ in credited])
    return {payment.event.pk for payment, _ in credited}


def _locked_events(attempts: Sequence[Attempt]) -> list[_Told]:
    """What the events say that are still to be tried, and that can be read."""
    tries = {attempt.event_id: attempt for attempt in attempts}
    events = WebhookEvent.objects.select_for_update(no_key=True).filter(
        pk__in=list(tries), status=WebhookEvent.Status.RECEIVED
    )
    configured = gateways.available()
    told = []
    for event in events.only("gateway", "headers", "body").order_by("pk"):
        if said := _read(event, configured.get(event.gateway)):
            told.append(_Told(tries[event.pk], event, said))
    return told


def _read(event: WebhookEvent, gateway: Gateway | None) -> Statement | None:
    if gateway is None:
        return None
    try:
        said = gateway.parse(headers=event.headers, body=bytes(event.body)).statement
    except DomainError:  # tried by itself, it is parked with the reason
        return None
    return said if said and said.subject == Subject.INTENT else None


def _plain(told: Iterable[_Told]) -> Iterator[_Payment]:
    """The events whose intent takes the credit; of several about one intent, one."""
    by_reference = {(each.event.gateway, each.said.gateway_reference): each for each in told}
    locked = PaymentIntent.objects.select_for_update(no_key=True).filter(
        gateway_reference__in=[reference for _, reference in by_reference]
    )
    for intent in locked.only(*_NEEDED_OF_INTENTS).order_by("pk"):
        each = by_reference.get((intent.gateway, intent.gateway_reference or ""))
        if each and intents.is_plain_credit(intent, each.said):
            yield _Payment(each.attempt, each.event, intent)


def _mark_processed(credited: Collection[_Payment]) -> None:
    execute(
        _PROCESSED,
        events=[payment.event.pk for payment in credited],
        intents=[payment.intent.pk for payment in credited],
        tries=[payment.attempt.pk for payment in credited],
    )


_PROCESSED = """
WITH settled AS (
    SELECT * FROM unnest(%(events)s::uuid[], %(intents)s::uuid[], %(tries)s::bigint[])
               AS settled (event_id, intent_id, try_id)
), processed AS (
    UPDATE payments_webhookevent
       SET status = 'processed', next_attempt_at = NULL, processed_at = now(), last_error = '',
           intent_id = settled.intent_id
      FROM settled
     WHERE id = settled.event_id
)
UPDATE payments_webhookattempt
   SET outcome = 'processed', error = '', finished_at = now()
  FROM settled
 WHERE id = settled.try_id
"""
