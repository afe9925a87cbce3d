"""The inbox of gateway events: stored first, then each has exactly one effect.

An event is stored with its raw bytes and answered; a worker handles it. Each try is counted and
committed before it begins, and what it does is one database transaction: event and effect together
or neither. Rows are locked in this order: event, order, wallet. The queue is only a hint: whatever
it loses, the sweeper finds, for `next_attempt_at` in PostgreSQL says what is due.
"""

import json
import logging
import random
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from kombu import Connection
from kombu.exceptions import KombuError
from kombu.pools import producers
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry
from uuid_utils.compat import uuid7

from fintech_core.database import query, retry_on_conflict
from fintech_core.exceptions import DomainError
from fintech_core.logs import scrub
from fintech_core.own_redis import OwnRedis
from payments import effects, gateways, together
from payments.effects import Disagreement
from payments.effects.payouts import GIVEN_BACK_AND_PAID
from payments.effects.refunds import REFUSED_AND_SENT
from payments.exceptions import NotFound
from payments.gateways.base import GatewayEvent
from payments.models import WebhookAttempt, WebhookEvent
from payments.together import Attempt
from users.models import User

logger = logging.getLogger(__name__)

QUEUE_SECONDS = 0.5  # a gateway is waiting for its answer
_QUEUE_PATIENCE = {
    "socket_connect_timeout": QUEUE_SECONDS,
    "socket_timeout": QUEUE_SECONDS,
    "max_retries": 0,
}
_QUEUE_IS_AWAY = (KombuError, RedisError, OSError)
_HINT = "fintech:inbox:hint"
_HINT_MILLISECONDS = 10_000  # a task that is lost holds nobody up for longer
RETRY_FIRST = timedelta(seconds=10)
RETRY_LONGEST = timedelta(hours=1)
_JITTER = (0.8, 1.2)
ERROR_LENGTH = 500
BATCH = 500
BATCHES_MAX = 100
TOGETHER = 100  # events that are tried in one go
GATHER_SECONDS = 0.05  # how long the first of them waits for the others
AGAIN_BATCHES_MAX = 10
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


def store(*, gateway: str, event: GatewayEvent, headers: Mapping[str, str], body: bytes) -> bool:
    """Store a verified event unless it is there already, and queue it once that is committed.

    True if it is new. Simultaneous deliveries wait for each other on the unique index. One
    statement: it needs no database transaction around it.
    """
    stored_id = uuid7()
    is_new = bool(
        query(
            _STORE,
            id=stored_id,
            gateway=gateway,
            event_id=event.event_id,
            event_type=event.type,
            gateway_reference=event.gateway_reference,
            body=body,
            headers=json.dumps(dict(headers)),
        )
    )
    if is_new:
        enqueue_on_commit(stored_id)
    return is_new


_STORE = """
INSERT INTO payments_webhookevent (
    id, gateway, event_id, event_type, gateway_reference, body, headers,
    status, attempts, last_error
)
VALUES (
    %(id)s, %(gateway)s, %(event_id)s, %(event_type)s, %(gateway_reference)s, %(body)s, %(headers)s,
    'received', 0, ''
)
ON CONFLICT ON CONSTRAINT payments_webhookevent_one_per_event_id DO NOTHING
RETURNING true
"""


def enqueue_on_commit(event_id: UUID) -> None:
    transaction.on_commit(partial(_enqueue, event_id), robust=True)


def _enqueue(event_id: UUID) -> None:
    """Best effort, and quick: without a queue the event waits for the sweeper.

    Nothing is queued while a task is still waiting in the queue: it will find this event, too, for
    it takes the hint away before it looks, and the event was committed before the hint was seen.
    """
    ours = str(event_id)
    try:
        found = _hints.ask("SET", _HINT, ours, "NX", "GET", "PX", _HINT_MILLISECONDS)
        if found in (None, ours.encode()):  # ours: asked again, as the answer was lost
            _queue_task(event_id)
    except _QUEUE_IS_AWAY:
        logger.warning("webhook event not queued", extra={"webhook_event": str(event_id)})


def _queue_task(event_id: UUID) -> None:
    from payments.tasks import process_webhook_async  # the task calls this module

    pool = producers[_impatient(current_app.conf.broker_write_url)]
    with pool.acquire(block=True, timeout=QUEUE_SECONDS) as producer:
        process_webhook_async.apply_async((str(event_id),), producer=producer)


def take_hint() -> None:
    """From now on whoever stores an event queues a task for it."""
    with suppress(*_QUEUE_IS_AWAY):  # else it runs out by itself
        _hints.ask("DEL", _HINT)


def _hint_pool() -> ConnectionPool:
    return ConnectionPool.from_url(
        current_app.conf.broker_write_url,
        socket_connect_timeout=QUEUE_SECONDS,
        socket_timeout=QUEUE_SECONDS,
        # What was kept may have been closed; what takes too long is not asked again.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    )


# Where the queue is, without its layers: most events need nothing of it but the hint.
_hints = OwnRedis(_hint_pool)


@lru_cache
def _impatient(url: str) -> Connection:
    """What names the pool of connections; to describe it anew each time took a fifth of a call."""
    return current_app.connection_for_write(url, transport_options=_QUEUE_PATIENCE)


# --- Processing ----------------------------------------------------------------------------------


def process(event_id: UUID) -> WebhookAttempt.Outcome | None:
    """Try an event once, if it is due. Safe to run any number of times, also at once.

    Returns how the try ended, or None if there was nothing to try: the event is settled, not due
    yet, in another worker's hands, or unknown.
    """
    return next((_try(attempt) for attempt in _begin(1, pk=event_id)), None)


def process_arrived(*, seconds_max: float) -> int:
    """Try what is due, for a task that was queued because something came; how many tries.

    What comes within a moment of it is tried with it: many together cost little more than one.
    """
    time.sleep(GATHER_SECONDS)
    take_hint()
    return process_due(seconds_max=seconds_max)


def process_due(*, seconds_max: float) -> int:
    """Try all that is due, oldest first, or until the time is used up; how many tries.

    What has not been tried yet comes first, and many at once; what comes meanwhile has a task of
    its own. Whatever failed before is tried alone, for it may fail again, or kill its process. Any
    number may run at once: each skips what another holds.
    """
    stop_at = time.monotonic() + seconds_max
    tried, is_more = 0, True
    while is_more and time.monotonic() < stop_at:
        attempts = _begin_new()
        _try_all(attempts, stop_at)
        tried += len(attempts)
        is_more = len(attempts) == TOGETHER
    while time.monotonic() < stop_at and (attempts := _begin(1, attempts__gt=0)):
        _try(attempts[0])
        tried += 1
    return tried


def _try_all(attempts: list[Attempt], stop_at: float) -> None:
    """What nobody is in the way of first, for the rest may have to wait for locks."""
    rest = _not_credited(attempts)
    while rest and time.monotonic() < stop_at:
        _try(rest.pop(0))
    if rest:
        _put_back(rest)


@transaction.atomic
def _put_back(attempts: list[Attempt]) -> None:
    """There was no time for them: the try does not count, and the lease runs out by itself."""
    WebhookEvent.objects.filter(
        pk__in=[attempt.event_id for attempt in attempts],
        status=WebhookEvent.Status.RECEIVED,
        attempts__gt=0,  # staff may have asked for it again meanwhile, and it counts from there
    ).update(attempts=F("attempts") - 1)
    WebhookAttempt.objects.filter(pk__in=[attempt.pk for attempt in attempts]).update(
        outcome=WebhookAttempt.Outcome.NEEDLESS,
        error="There was no time for it.",
        finished_at=Now(),
    )


def _not_credited(attempts: list[Attempt]) -> list[Attempt]:
    if len(attempts) <= 1:
        return list(attempts)
    credited = together.credit_plain(attempts)
    if not credited:  # one of them is in the way of all
        for attempt in attempts:
            credited |= together.credit_plain([attempt])
    if credited:  # one line for all: it would be a fifth of the work to write one for each
        events = [str(event_id) for event_id in credited]
        logger.info("webhook events credited", extra={"webhook_events": events})
    return [attempt for attempt in attempts if attempt.event_id not in credited]


def _begin_new() -> list[Attempt]:
    """As `_begin`, for the oldest that have not been tried: none of them can be worn."""
    least, most = _JITTER
    rows = query(
        _BEGIN_NEW,
        most=TOGETHER,
        lease=RETRY_FIRST * least,
        jitter=RETRY_FIRST * (most - least),
    )
    return [Attempt(*row) for row in rows]


def _begin(most: int, **which: object) -> list[Attempt]:
    """Count tries and commit that, so that even a try that kills its process is counted.

    `next_attempt_at` moves on at once: it is the lease that keeps twins of a task away, and the
    moment from which the sweeper may try again. An event whose tries are used up is parked.
    """
    due = WebhookEvent.objects.filter(
        status=WebhookEvent.Status.RECEIVED, next_attempt_at__lte=Now(), **which
    )
    while True:
        with transaction.atomic():
            locked = due.select_for_update(no_key=True, skip_locked=True)
            events = list(locked.only("attempts", *_SUBJECTS).order_by("next_attempt_at")[:most])
            fresh = [event for event in events if not _park_if_worn(event)]
            attempts = _count(fresh) if fresh else []
        if attempts or not events:
            return attempts


def _park_if_worn(event: WebhookEvent) -> bool:
    if event.attempts < settings.WEBHOOK_MAX_ATTEMPTS:
        return False
    _park(event, f"Gave up: {event.attempts} tries were begun and none was finished.")
    return True


def _count(events: list[WebhookEvent]) -> list[Attempt]:
    rows = query(
        _COUNT,
        events=[event.pk for event in events],
        leases=[_backoff(event.attempts + 1) for event in events],
    )
    return [Attempt(*row) for row in rows]


# One statement, and so one database transaction. The tries are numbered through all that staff
# asked for, however often.
_TRIES = """
INSERT INTO payments_webhookattempt (event_id, number, outcome, error, requested_by_id)
SELECT id,
       (SELECT coalesce(max(number), 0) + 1
          FROM payments_webhookattempt earlier
         WHERE earlier.event_id = counted.id),
       'started', '', requested_by_id
  FROM counted
RETURNING id, event_id, number
"""
_COUNT = f"""
WITH counted AS (
    UPDATE payments_webhookevent
       SET attempts = attempts + 1, next_attempt_at = now() + due.lease
      FROM unnest(%(events)s::uuid[], %(leases)s::interval[]) AS due (event_id, lease)
     WHERE id = due.event_id
    RETURNING id, requested_by_id
)
{_TRIES}
"""  # noqa: S608
_BEGIN_NEW = f"""
WITH counted AS (
    UPDATE payments_webhookevent
       SET attempts = 1, next_attempt_at = now() + %(lease)s + %(jitter)s * random()
     WHERE id = ANY (ARRAY(
         SELECT id FROM payments_webhookevent
          WHERE status = 'received' AND attempts = 0 AND next_attempt_at <= statement_timestamp()
          ORDER BY next_attempt_at
          LIMIT %(most)s
            FOR NO KEY UPDATE SKIP LOCKED
     ))
    RETURNING id, requested_by_id
)
{_TRIES}
"""  # noqa: S608


def _backoff(attempts: int) -> timedelta:
    """Twice as long after each try; jitter, so that what failed together is not tried together."""
    delay = min(RETRY_FIRST * 2 ** min(attempts - 1, 10), RETRY_LONGEST)
    return delay * random.uniform(*_JITTER)  # noqa: S311 - jitter


def _try(attempt: Attempt) -> WebhookAttempt.Outcome:
    try:
        outcome = retry_on_conflict(partial(_settle, attempt))
    except Exception as exc:  # whatever it was, it is recorded, and tried again or parked
        logger.exception("webhook event failed", extra={"webhook_event": str(attempt.event_id)})
        outcome = _fail(attempt, scrub(f"{type(exc).__name__}: {exc}")[:ERROR_LENGTH])
    _log(attempt, outcome)
    return outcome


def _log(attempt: Attempt, outcome: WebhookAttempt.Outcome) -> None:
    logger.info(
        "webhook event tried",
        extra={
            "webhook_event": str(attempt.event_id),
            "number": attempt.number,
            "outcome": str(outcome),
        },
    )


@transaction.atomic
def _settle(attempt: Attempt) -> WebhookAttempt.Outcome:
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


def _finish(attempt: Attempt, result: Result) -> WebhookAttempt.Outcome:
    WebhookAttempt.objects.filter(pk=attempt.pk).update(
        outcome=result.outcome, error=result.error, finished_at=Now()
    )
    return result.outcome


@transaction.atomic
def _fail(attempt: Attempt, reason: str) -> WebhookAttempt.Outcome:
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


def adopt_orphans() -> int:
    """Receive again the ignored events whose order has got its reference since."""
    return sum(
        _adopt_orphans_about(model, orphaned) for model in effects.MODELS for orphaned in _ORPHANED
    )


# What was ignored for want of an order; and what looked like a payout or a refund whose money had
# been given back.
_ORPHANED = (
    Q(status=WebhookEvent.Status.IGNORED),
    Q(status=WebhookEvent.Status.PARKED, last_error=GIVEN_BACK_AND_PAID),
    Q(status=WebhookEvent.Status.PARKED, last_error=REFUSED_AND_SENT),
)


@transaction.atomic
def _adopt_orphans_about(model: type[effects.Order], orphaned: Q) -> int:
    # One kind of each at a time: of two alternatives PostgreSQL would read both.
    orders = model.objects.filter(
        gateway=OuterRef("gateway"), gateway_reference=OuterRef("gateway_reference")
    )
    orphans = WebhookEvent.objects.filter(
        Exists(orders),
        orphaned,
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


def receive_parked_again(*, gateway: str, event_type: str, by: User) -> int:
    """The same for parked events of a gateway and a type, up to a bound; how many. The sweeper
    takes them up, for so many messages would keep whoever asks waiting."""
    parked = WebhookEvent.objects.filter(
        status=WebhookEvent.Status.PARKED, gateway=gateway, event_type=event_type
    )
    received = 0
    for _ in range(AGAIN_BATCHES_MAX):
        with transaction.atomic():
            batch = len(_receive_batch_again(parked, by=by))
        received += batch
        if batch < BATCH:
            break
    return received


def _receive_again(events: QuerySet[WebhookEvent], by: User | None = None) -> int:
    ids = _receive_batch_again(events, by)
    for event_id in ids:
        enqueue_on_commit(event_id)
    return len(ids)


def _receive_batch_again(events: QuerySet[WebhookEvent], by: User | None) -> list[UUID]:
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
    return ids


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
