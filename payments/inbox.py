"""The inbox of gateway events: stored first, then each has exactly one effect.

An event is stored with its raw bytes and answered; a worker handles it. Each try is counted and
committed before it begins, and what it does is one database transaction: event and effect together
or neither. Rows are locked in this order: event, order, wallet. The queue is only a
hint: whatever it loses, the sweeper finds, for `next_attempt_at` in PostgreSQL says what is due.
"""

import json
import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, Max, OuterRef, QuerySet
from django.db.models.functions import Now
from kombu.exceptions import KombuError
from kombu.pools import producers
from redis.exceptions import RedisError
from uuid_utils.compat import uuid7

from fintech_core.database import retry_on_conflict
from fintech_core.exceptions import DomainError
from fintech_core.logs import scrub
from payments import effects, gateways
from payments.effects import Disagreement
from payments.exceptions import NotFound
from payments.gateways.base import GatewayEvent
from payments.models import WebhookAttempt, WebhookEvent
from users.models import User

logger = logging.getLogger(__name__)

QUEUE_SECONDS = 0.5  # a gateway is waiting for its answer
_QUEUE_PATIENCE = {
    "socket_connect_timeout": QUEUE_SECONDS,
    "socket_timeout": QUEUE_SECONDS,
    "max_retries": 0,
}
RETRY_FIRST = timedelta(seconds=10)
RETRY_LONGEST = timedelta(hours=1)
ERROR_LENGTH = 500
BATCH = 500
BATCHES_MAX = 100
# An event can be older than what it is about: the gateway's answer with the reference may still be
# on its way to us, or our process died with it and the client resumes the call.
ORPHAN_AGE_MAX = timedelta(days=7)
_SUBJECTS = tuple(effects.EVENT_FIELDS.values())


@dataclass(frozen=True)
class Result:
    """How a try ended."""

    outcome: WebhookAttempt.Outcome
    error: str = ""


# --- Storing -------------------------------------------------------------------------------------


@transaction.atomic
def store(*, gateway: str, event: GatewayEvent, headers: Mapping[str, str], body: bytes) -> bool:
    """Store a verified event unless it is there already, and queue it once that is committed.

    True if it is new. Simultaneous deliveries wait for each other on the unique index.
    """
    stored_id = uuid7()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO payments_webhookevent (
                id, gateway, event_id, event_type, gateway_reference, body, headers,
                status, attempts, last_error
            )
            VALUES (%s, %s, %s, %s, %s, %s, %s, 'received', 0, '')
            ON CONFLICT ON CONSTRAINT payments_webhookevent_one_per_event_id DO NOTHING
            """,
            [
                stored_id,
                gateway,
                event.event_id,
                event.type,
                event.gateway_reference,
                body,
                json.dumps(dict(headers)),
            ],
        )
        is_new = bool(cursor.rowcount)
    if is_new:
        enqueue_on_commit(stored_id)
    return is_new


def enqueue_on_commit(event_id: UUID) -> None:
    transaction.on_commit(partial(_enqueue, event_id), robust=True)


def _enqueue(event_id: UUID) -> None:
    """Best effort, and quick: without a queue the event waits for the sweeper."""
    from payments.tasks import process_webhook_async  # the task calls this module

    impatient = current_app.connection_for_write(transport_options=_QUEUE_PATIENCE)
    try:
        with producers[impatient].acquire(block=True, timeout=QUEUE_SECONDS) as producer:
            process_webhook_async.apply_async((str(event_id),), producer=producer)
    except (KombuError, RedisError, OSError):
        logger.warning("webhook event not queued", extra={"webhook_event": str(event_id)})


# --- Processing ----------------------------------------------------------------------------------


def process(event_id: UUID) -> WebhookAttempt.Outcome | None:
    """Try an event once, if it is due. Safe to run any number of times, also at once.

    Returns how the try ended, or None if there was nothing to try: the event is settled, not due
    yet, in another worker's hands, or unknown.
    """
    attempt = _begin(event_id)
    return _try(attempt) if attempt else None


def process_next_due() -> WebhookAttempt.Outcome | None:
    """Try the event that has been due for longest. None: nothing is due."""
    attempt = _begin(None)
    return _try(attempt) if attempt else None


def _begin(event_id: UUID | None) -> WebhookAttempt | None:
    """Count a try and commit that, so that even a try that kills its process is counted.

    `next_attempt_at` moves on at once: it is the lease that keeps twins of a task away, and the
    moment from which the sweeper may try again. An event whose tries are used up is parked.
    """
    while True:
        with transaction.atomic():
            due = WebhookEvent.objects.select_for_update(no_key=True, skip_locked=True).filter(
                status=WebhookEvent.Status.RECEIVED, next_attempt_at__lte=Now()
            )
            if event_id is not None:
                due = due.filter(pk=event_id)
            event = due.defer("body").order_by("next_attempt_at").first()
            if event is None:
                return None
            if event.attempts < settings.WEBHOOK_MAX_ATTEMPTS:
                return _count(event)
            _park(event, f"Gave up: {event.attempts} tries were begun and none was finished.")


def _count(event: WebhookEvent) -> WebhookAttempt:
    event.attempts += 1
    event.next_attempt_at = Now() + _backoff(event.attempts)
    event.save(update_fields=["attempts", "next_attempt_at"])
    latest = event.tries.aggregate(latest=Max("number"))["latest"] or 0
    return WebhookAttempt.objects.create(
        event=event, number=latest + 1, requested_by_id=event.requested_by_id
    )


def _backoff(attempts: int) -> timedelta:
    """Twice as long after each try; jitter, so that what failed together is not tried together."""
    delay = min(RETRY_FIRST * 2 ** min(attempts - 1, 10), RETRY_LONGEST)
    return delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter


def _try(attempt: WebhookAttempt) -> WebhookAttempt.Outcome:
    try:
        outcome = retry_on_conflict(partial(_settle, attempt))
    except Exception as exc:  # whatever it was, it is recorded, and tried again or parked
        logger.exception("webhook event failed", extra={"webhook_event": str(attempt.event_id)})
        outcome = _fail(attempt, scrub(f"{type(exc).__name__}: {exc}")[:ERROR_LENGTH])
    logger.info(
        "webhook event tried",
        extra={
            "webhook_event": str(attempt.event_id),
            "number": attempt.number,
            "outcome": str(outcome),
        },
    )
    return outcome


@transaction.atomic
def _settle(attempt: WebhookAttempt) -> WebhookAttempt.Outcome:
    """The effect of the event and the mark that it is done: one database transaction."""
    event = WebhookEvent.objects.select_for_update(no_key=True).get(pk=attempt.event_id)
    if event.status != WebhookEvent.Status.RECEIVED:
        return _finish(attempt, Result(WebhookAttempt.Outcome.NEEDLESS))
    result = _effect_or_refusal(event)
    if result.outcome == WebhookAttempt.Outcome.PARKED:
        _park(event, result.error)
    else:
        _close(event, result)
    return _finish(attempt, result)


def _effect_or_refusal(event: WebhookEvent) -> Result:
    """The whole effect, or none of it and the reason. What may pass by itself is raised."""
    try:
        with transaction.atomic():
            return _apply(event)
    except Disagreement as reason:
        return Result(WebhookAttempt.Outcome.PARKED, str(reason))
    except DomainError as refusal:
        if refusal.status >= 500:
            raise
        return Result(WebhookAttempt.Outcome.PARKED, str(refusal)[:ERROR_LENGTH])


def _apply(event: WebhookEvent) -> Result:
    """Bring what the event is about to where it says. Raises Disagreement and DomainError."""
    said = _read(event).statement
    if said is None:
        return Result(WebhookAttempt.Outcome.IGNORED, "A type that has no meaning here.")
    if field := effects.EVENT_FIELDS.get(said.subject):  # staff see it beside a refusal, too
        setattr(event, field, effects.named(said, event.gateway))
    if effects.apply(said, event.gateway) is None:
        return Result(WebhookAttempt.Outcome.IGNORED, "Nothing of ours has this reference.")
    return Result(WebhookAttempt.Outcome.PROCESSED)


def _read(event: WebhookEvent) -> GatewayEvent:
    try:
        gateway = gateways.gateway_named(event.gateway)
    except NotFound as exc:
        raise Disagreement("The gateway is not configured any more.") from exc
    return gateway.parse(headers=event.headers, body=bytes(event.body))


def _finish(attempt: WebhookAttempt, result: Result) -> WebhookAttempt.Outcome:
    WebhookAttempt.objects.filter(pk=attempt.pk).update(
        outcome=result.outcome, error=result.error, finished_at=Now()
    )
    return result.outcome


@transaction.atomic
def _fail(attempt: WebhookAttempt, reason: str) -> WebhookAttempt.Outcome:
    """Record why; the work itself was rolled back. Parks the event if this was the last try."""
    event = WebhookEvent.objects.select_for_update(no_key=True).get(pk=attempt.event_id)
    if event.status != WebhookEvent.Status.RECEIVED:
        return _finish(attempt, Result(WebhookAttempt.Outcome.NEEDLESS, reason))
    if event.attempts >= settings.WEBHOOK_MAX_ATTEMPTS:
        _park(event, reason)
        return _finish(attempt, Result(WebhookAttempt.Outcome.PARKED, reason))
    event.last_error = reason
    event.save(update_fields=["last_error"])
    return _finish(attempt, Result(WebhookAttempt.Outcome.FAILED, reason))


def _close(event: WebhookEvent, result: Result) -> None:
    event.status = WebhookEvent.Status(result.outcome)
    event.next_attempt_at = None
    event.processed_at = Now()
    event.last_error = result.error
    event.save(
        update_fields=["status", "next_attempt_at", "processed_at", "last_error", *_SUBJECTS]
    )


def _park(event: WebhookEvent, reason: str) -> None:
    """Nothing was credited and nothing more is tried until staff have looked."""
    event.status = WebhookEvent.Status.PARKED
    event.next_attempt_at = None
    event.last_error = reason
    event.save(update_fields=["status", "next_attempt_at", "last_error", *_SUBJECTS])
    logger.error("webhook event parked", extra={"webhook_event": str(event.pk), "reason": reason})


# --- Housekeeping --------------------------------------------------------------------------------


def process_due(*, seconds_max: float) -> int:
    """Try what is due, one event at a time, until nothing is or the time is used up.

    Any number of sweepers may run at once: each skips what another holds.
    """
    adopt_orphans()
    stop_at = time.monotonic() + seconds_max
    tried = 0
    while time.monotonic() < stop_at and process_next_due() is not None:
        tried += 1
    return tried


def adopt_orphans() -> int:
    """Receive again the ignored events whose order has got its reference since."""
    return sum(_adopt_orphans_about(model) for model in effects.MODELS)


@transaction.atomic
def _adopt_orphans_about(model: type[effects.Order]) -> int:
    # One kind of order at a time: of two alternatives PostgreSQL would read both tables.
    orders = model.objects.filter(
        gateway=OuterRef("gateway"), gateway_reference=OuterRef("gateway_reference")
    )
    orphans = WebhookEvent.objects.filter(
        Exists(orders),
        status=WebhookEvent.Status.IGNORED,
        **{f"{field}__isnull": True for field in _SUBJECTS},
        gateway_reference__isnull=False,
        payload_deleted_at__isnull=True,
        received_at__gt=Now() - ORPHAN_AGE_MAX,
    )
    return _receive_again(orphans)


@transaction.atomic
def receive_again(event_ids: Iterable[UUID], *, by: User) -> int:
    """Give events their full number of tries again, starting now. Returns how many.

    Processed events, and those whose payload is gone, stay as they are.
    """
    return _receive_again(
        WebhookEvent.objects.filter(
            pk__in=list(event_ids), payload_deleted_at__isnull=True
        ).exclude(status=WebhookEvent.Status.PROCESSED),
        by=by,
    )


def _receive_again(events: QuerySet[WebhookEvent], by: User | None = None) -> int:
    locked = events.select_for_update(no_key=True, of=("self",)).order_by("pk")
    ids = list(locked.values_list("pk", flat=True)[:BATCH])
    again = WebhookEvent.objects.filter(pk__in=ids)
    again.update(
        status=WebhookEvent.Status.RECEIVED,
        attempts=0,
        next_attempt_at=Now(),
        processed_at=None,
        requested_by=by,
    )
    for event_id in ids:
        enqueue_on_commit(event_id)
    return len(ids)


def delete_old_payloads() -> int:
    """Empty what was settled longer ago than the retention, in small batches.

    The row stays, so that the event is known for ever and a late delivery has no second effect.
    """
    deleted = 0
    for _ in range(BATCHES_MAX):
        batch = _delete_payload_batch()
        deleted += batch
        if batch < BATCH:
            break
    return deleted


@transaction.atomic
def _delete_payload_batch() -> int:
    ids = list(
        WebhookEvent.objects.select_for_update(skip_locked=True)
        .filter(
            status__in=[WebhookEvent.Status.PROCESSED, WebhookEvent.Status.IGNORED],
            payload_deleted_at__isnull=True,
            processed_at__lt=Now() - settings.WEBHOOK_RETENTION,
        )
        .order_by("processed_at")
        .values_list("pk", flat=True)[:BATCH]
    )
    WebhookAttempt.objects.filter(event_id__in=ids).delete()
    WebhookEvent.objects.filter(pk__in=ids).update(body=b"", headers={}, payload_deleted_at=Now())
    return len(ids)
