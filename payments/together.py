"""Many plain payments at once: an event that says that an open intent was paid, as it was ordered.

They are nearly all events, and a hundred of them cost little more than a few alone. What is not
plain, or in whose way something is, is left to be tried by itself: nothing here decides against it.
"""

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from fintech_core.database import query, send_along, sent_together
from fintech_core.exceptions import DomainError
from fintech_core.rows import instance_of
from payments import gateways
from payments.effects import intents
from payments.gateways.base import Gateway, Statement, Subject
from payments.models import PaymentIntent, WebhookEvent
from transactions.services import TransactionService

logger = logging.getLogger(__name__)

# Somebody who is in the way of one payment is not to hold the others up. How long for a lock:
PATIENCE = timedelta(milliseconds=250)
PATIENCE_ALONE = timedelta(milliseconds=100)  # a hundred in turn: about as long as a lease


class Attempt(NamedTuple):
    """A try that has begun: what its row says, and no more, for there are many."""

    pk: int
    event_id: UUID
    number: int


class _Told(NamedTuple):
    attempt: Attempt
    gateway: str
    said: Statement


class _Payment(NamedTuple):
    attempt: Attempt
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
    with sent_together():
        milliseconds = f"{patience.microseconds // 1000}ms"
        send_along("SET LOCAL lock_timeout = %(patience)s", patience=milliseconds)
        # All are look-ups by keys; for a hundred of them PostgreSQL would often read whole tables.
        send_along("SET LOCAL enable_seqscan = off")
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
    return {payment.attempt.event_id for payment, _ in credited}


def _locked_events(attempts: Sequence[Attempt]) -> Iterator[_Told]:
    """What the events say that are still to be tried, and that can be read."""
    tries = {attempt.event_id: attempt for attempt in attempts}
    configured = gateways.available()
    for event_id, status, name, headers, body in query(_LOCK_EVENTS, events=list(tries)):
        if status != WebhookEvent.Status.RECEIVED:
            continue
        if said := _read(configured.get(name), json.loads(headers), bytes(body)):
            yield _Told(tries[event_id], name, said)


_LOCK_EVENTS = """
SELECT id, status, gateway, headers, body
  FROM payments_webhookevent
 WHERE id = ANY (%(events)s::uuid[])
 ORDER BY id
   FOR NO KEY UPDATE
"""


def _read(gateway: Gateway | None, headers: Mapping[str, str], body: bytes) -> Statement | None:
    if gateway is None:
        return None
    try:
        said = gateway.parse(headers=headers, body=body).statement
    except DomainError:  # tried by itself, it is parked with the reason
        return None
    return said if said and said.subject == Subject.INTENT else None


def _plain(told: Iterable[_Told]) -> Iterator[_Payment]:
    """The events whose intent takes the credit; of several about one intent, one."""
    by_reference = {(each.gateway, each.said.gateway_reference): each for each in told}
    references = [reference for _, reference in by_reference]
    for row in query(_LOCK_INTENTS, references=references):
        intent = instance_of(PaymentIntent, dict(zip(_INTENT_COLUMNS, row, strict=True)))
        each = by_reference.get((intent.gateway, intent.gateway_reference or ""))
        if each and intents.is_plain_credit(intent, each.said):
            yield _Payment(each.attempt, intent)


_INTENT_COLUMNS = (
    "id", "wallet_id", "gateway", "gateway_reference", "status", "amount", "currency",
)  # fmt: skip
_LOCK_INTENTS = f"""
SELECT {", ".join(_INTENT_COLUMNS)}
  FROM payments_paymentintent
 WHERE gateway_reference = ANY (%(references)s)
 ORDER BY id
   FOR NO KEY UPDATE
"""  # noqa: S608


def _mark_processed(credited: Collection[_Payment]) -> None:
    send_along(
        _PROCESSED,
        events=[payment.attempt.event_id for payment in credited],
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
