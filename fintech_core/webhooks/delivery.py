"""Sending what the outbox holds: each event reaches its endpoint at least once, or staff can see
why not.

Due is what PostgreSQL says (`next_attempt_at`); no queue has to remember anything. One thread
claims tries, commits, and lets others talk to the network; no row is locked meanwhile. A try is
counted before it begins, and its lease (`sending_until`) keeps others away until it must be over: a
process that is killed leaves nothing but a try that is made again.

Rows are locked in this order: delivery, endpoint.
"""

import logging
import random
import time
from collections.abc import Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Count, Max, Q, QuerySet
from django.db.models.functions import Now

from fintech_core.database import database_time, execute, query, retry_on_conflict
from fintech_core.webhooks import signing, transport
from fintech_core.webhooks.models import DeliveryAttempt, WebhookDelivery, WebhookEndpoint
from fintech_core.webhooks.transport import Result

logger = logging.getLogger(__name__)

# After the first try, at once: the schedule of Standard Webhooks. Three days in all.
SCHEDULE = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
TRIES_MAX = len(SCHEDULE) + 1
SILENCE = 2 * SCHEDULE[-1]  # longer than any wait between two tries of a delivery
AT_ONCE = 24  # requests of one process
AT_ONCE_TO_ENDPOINT = 3  # and of all of them to one endpoint; to one that is failing, a single one
AT_ONCE_TO_USER = 6  # to all endpoints of one user, so that nobody takes the whole of AT_ONCE
LOOK_AGAIN_SECONDS = 0.5
LEASE = timedelta(seconds=60)  # longer than a try can take
PAUSE_LONGEST = timedelta(minutes=5)
GONE = 410
_LOOKED_AT = 50  # due deliveries, for each claim
_PURGED = 500  # events, for each batch
_PURGES_MAX = 100
HEARS_ALL = "fintech_core.listen_to_everybody"

Status = WebhookDelivery.Status
Reason = WebhookEndpoint.DisabledReason
_DELETED = WebhookEndpoint.Status.DELETED


@dataclass(frozen=True)
class Sending:
    """A try that is counted and committed, with everything that the network needs."""

    attempt_id: int
    delivery_id: UUID
    endpoint_id: UUID
    owner_id: UUID
    until: datetime
    url: str
    body: bytes
    headers: dict[str, str]


def deliver_due(*, seconds_max: float) -> int:
    """Send what is due until nothing is, or the time is up; how many tries were made.

    Returns at the latest `seconds_max` and a try's longest time after it began. Any number of
    processes may do it at once: each skips what another holds.
    """
    stop_at = time.monotonic() + seconds_max
    tried = 0
    full: dict[UUID, UUID] = {}  # endpoints that take no more for now, and their owners
    flying: dict[Future[Result], Sending] = {}
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as threads:
        while True:
            if time.monotonic() < stop_at:
                for sending in _claim_all(AT_ONCE - len(flying), full):
                    flying[threads.submit(_send, sending)] = sending
            if not flying:
                return tried
            # Not for long: what is due meanwhile must not wait for the slowest receiver.
            for finished in wait(flying, LOOK_AGAIN_SECONDS, FIRST_COMPLETED).done:
                sending = flying.pop(finished)
                _record_safely(sending, finished.result())
                full = {pk: owner for pk, owner in full.items() if owner != sending.owner_id}
                tried += 1


def _send(sending: Sending) -> Result:
    """In a thread of its own, which never touches the database."""
    try:
        return transport.post(sending.url, body=sending.body, headers=sending.headers)
    except Exception:  # whatever a hostile answer makes a library do, it is one try that failed
        logger.exception("webhook try failed", extra={"endpoint": str(sending.endpoint_id)})
        return Result(error="The request could not be made.")


# --- Claiming ------------------------------------------------------------------------------------


def _claim_all(room: int, full: dict[UUID, UUID]) -> list[Sending]:
    """Claim as many as there is room for, past the endpoints that are full.

    Endpoints found to be full, by themselves or with the others of their owner, join `full`.
    """
    claimed: list[Sending] = []
    looking = True
    while looking and len(claimed) < room:
        found, looking = _claim(room - len(claimed), full)
        claimed += found
    return claimed


@transaction.atomic
def _claim(room: int, full: dict[UUID, UUID]) -> tuple[list[Sending], bool]:
    """Claim from the oldest deliveries that are due; and whether there may be more to look at."""
    due = list(_due().exclude(endpoint_id__in=list(full))[:_LOOKED_AT])
    endpoints = _lock_endpoints({delivery.endpoint_id for delivery in due})
    refused = {pk: why for pk, each in endpoints.items() if (why := _why_not(each))}
    now = database_time()
    free = _free_slots(endpoints.values(), now)
    claimed: list[Sending] = []
    for delivery in due:
        endpoint = endpoints[delivery.endpoint_id]
        if reason := refused.get(delivery.endpoint_id):
            _close(delivery, Status.ABANDONED, reason)
        elif delivery.attempts >= TRIES_MAX:
            _close(delivery, Status.FAILED, "The last try was cut short.")
        elif min(free[endpoint.pk], free[endpoint.user_id]) < 1:
            full[endpoint.pk] = endpoint.user_id
        elif len(claimed) < room:
            free[endpoint.pk] -= 1
            free[endpoint.user_id] -= 1
            claimed.append(_begin(delivery, endpoint, now))
    return claimed, len(due) == _LOOKED_AT


def _due() -> QuerySet[WebhookDelivery]:
    return (
        WebhookDelivery.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
        .filter(status=Status.PENDING, next_attempt_at__lte=Now())
        .select_related("event")
        .order_by("next_attempt_at")
    )


def _lock_endpoints(ids: Iterable[UUID]) -> dict[UUID, WebhookEndpoint]:
    """Locked with all that their owners have, so that everybody who claims counts what the others
    have claimed; in the order of their ids, so that no two wait for each other."""
    chosen = WebhookEndpoint.objects.filter(pk__in=list(ids))
    owners = list(chosen.values_list("user_id", flat=True))
    siblings = Q(user_id__in=owners, status=WebhookEndpoint.Status.ACTIVE)
    locking = WebhookEndpoint.objects.filter(Q(pk__in=list(ids)) | siblings).order_by("pk")
    list(locking.select_for_update(no_key=True).values_list("pk"))
    return {endpoint.pk: endpoint for endpoint in chosen.select_related("user")}


def _why_not(endpoint: WebhookEndpoint) -> str:
    """Why nothing is sent there any more; empty if something is."""
    if not endpoint.is_active:
        return f"The endpoint is {endpoint.status}."
    if not endpoint.user.is_active:
        return "Whoever registered the endpoint is deactivated."
    if endpoint.scope == WebhookEndpoint.Scope.EVERYBODY and not may_hear_all(endpoint.user):
        return "Whoever registered the endpoint may not hear of everybody any more."
    return ""


def may_hear_all(user: Any) -> bool:
    """Whether the events of everybody may be sent to this member of staff."""
    return bool(user.is_active and user.is_staff and user.has_perm(HEARS_ALL))


def _free_slots(endpoints: Collection[WebhookEndpoint], now: datetime) -> dict[UUID, int]:
    """How many more requests each endpoint gets now, and each of their owners, by their ids."""
    free = {each.pk: _slots(each, now) for each in endpoints}
    owners = {each.user_id for each in endpoints}
    free |= dict.fromkeys(owners, AT_ONCE_TO_USER)
    for endpoint_id, owner_id, count in _being_sent(owners, now):
        free[owner_id] -= count
        if endpoint_id in free:
            free[endpoint_id] -= count
    return free


def _being_sent(owners: Iterable[UUID], now: datetime) -> Iterable[tuple[UUID, UUID, int]]:
    """Each endpoint of theirs that is being sent something, its owner, and how much."""
    return (
        WebhookDelivery.objects.filter(endpoint__user_id__in=list(owners), sending_until__gt=now)
        .values_list("endpoint_id", "endpoint__user_id")
        .annotate(count=Count("pk"))
    )


def _slots(endpoint: WebhookEndpoint, now: datetime) -> int:
    """How many requests an endpoint gets at once: none while it rests after a failure."""
    if endpoint.paused_until and endpoint.paused_until > now:
        return 0
    return 1 if endpoint.failures else AT_ONCE_TO_ENDPOINT


def _begin(delivery: WebhookDelivery, endpoint: WebhookEndpoint, now: datetime) -> Sending:
    until = now + LEASE
    delivery.attempts += 1
    delivery.next_attempt_at = delivery.sending_until = until
    delivery.save(update_fields=["attempts", "next_attempt_at", "sending_until"])
    latest = delivery.tries.aggregate(latest=Max("number"))["latest"] or 0
    attempt = DeliveryAttempt.objects.create(delivery=delivery, number=latest + 1)
    body = signing.body_of(delivery.event)
    return Sending(
        attempt_id=attempt.pk,
        delivery_id=delivery.pk,
        endpoint_id=endpoint.pk,
        owner_id=endpoint.user_id,
        until=until,
        url=endpoint.url,
        body=body,
        headers=signing.headers_of(delivery.event, endpoint, body, now=now),
    )


# --- Recording -----------------------------------------------------------------------------------


def _record_safely(sending: Sending, result: Result) -> None:
    """One that cannot be recorded is made again when its lease has run out; the others go on."""
    try:
        retry_on_conflict(lambda: _record(sending, result))
    except DatabaseError:
        logger.exception("webhook try not recorded", extra={"delivery": str(sending.delivery_id)})


@transaction.atomic
def _record(sending: Sending, result: Result) -> None:
    """Write down how a try ended, and what follows for the delivery and its endpoint."""
    delivery = WebhookDelivery.objects.select_for_update(no_key=True).get(pk=sending.delivery_id)
    endpoint = WebhookEndpoint.objects.select_for_update(no_key=True).get(pk=sending.endpoint_id)
    _finish_attempt(sending, result)
    if result.is_success:
        if delivery.status == Status.PENDING:
            _close(delivery, Status.DELIVERED)
        _note_success(endpoint)
    elif delivery.sending_until == sending.until:  # else the lease ran out, and another has it
        _retry_or_fail(delivery, result)
        _note_failure(endpoint, result)
    logger.info(
        "webhook tried",
        extra={
            "delivery": str(delivery.pk),
            "endpoint": str(endpoint.pk),
            "outcome": str(delivery.status),
            "response_status": result.status,
            "duration_ms": result.duration_ms,
        },
    )


def _finish_attempt(sending: Sending, result: Result) -> None:
    outcomes = DeliveryAttempt.Outcome
    DeliveryAttempt.objects.filter(pk=sending.attempt_id).update(
        outcome=outcomes.DELIVERED if result.is_success else outcomes.FAILED,
        duration_ms=result.duration_ms,
        response_status=result.status,
        response_body=result.body,
        error=result.error,
        finished_at=Now(),
    )


def _retry_or_fail(delivery: WebhookDelivery, result: Result) -> None:
    if delivery.attempts >= TRIES_MAX:
        _close(delivery, Status.FAILED, result.error)
        return
    delay = SCHEDULE[delivery.attempts - 1] * random.uniform(1.0, 1.2)  # noqa: S311 - jitter
    delivery.next_attempt_at = Now() + delay
    delivery.sending_until = None
    delivery.last_error = result.error
    delivery.save(update_fields=["next_attempt_at", "sending_until", "last_error"])


def _close(delivery: WebhookDelivery, status: WebhookDelivery.Status, reason: str = "") -> None:
    delivery.status = status
    delivery.next_attempt_at = delivery.sending_until = None
    delivery.finished_at = Now()
    delivery.last_error = reason
    delivery.save(
        update_fields=["status", "next_attempt_at", "sending_until", "finished_at", "last_error"]
    )


def _note_success(endpoint: WebhookEndpoint) -> None:
    if endpoint.failures and endpoint.status != _DELETED:
        endpoint.failures, endpoint.failing_since, endpoint.paused_until = 0, None, None
        endpoint.save(update_fields=["failures", "failing_since", "paused_until"])


def _note_failure(endpoint: WebhookEndpoint, result: Result) -> None:
    """It rests the longer the more failures came in a row, and is switched off after days of
    nothing else, or when it says that it is gone.

    After a silence the days begin anew: one try that fails is not days of failures. A deleted
    endpoint never changes.
    """
    if endpoint.status == _DELETED:
        return
    now = database_time()
    if endpoint.paused_until and now - endpoint.paused_until > SILENCE:
        endpoint.failures, endpoint.failing_since = 0, None
    endpoint.failures += 1
    endpoint.failing_since = endpoint.failing_since or now
    endpoint.paused_until = now + min(
        timedelta(seconds=2 ** min(endpoint.failures, 10)), PAUSE_LONGEST
    )
    endpoint.save(update_fields=["failures", "failing_since", "paused_until"])
    if not endpoint.is_active:
        return
    if result.status == GONE:
        switch_off(endpoint, Reason.GONE, now)
    elif now - endpoint.failing_since >= settings.WEBHOOK_DISABLE_AFTER:
        switch_off(endpoint, Reason.FAILING, now)


def switch_off(endpoint: WebhookEndpoint, reason: Reason, now: datetime) -> None:
    """Nothing more is sent there. `endpoint` is locked."""
    endpoint.status = WebhookEndpoint.Status.DISABLED
    endpoint.disabled_reason, endpoint.disabled_at, endpoint.updated_at = reason, now, now
    endpoint.save(update_fields=["status", "disabled_reason", "disabled_at", "updated_at"])
    logger.warning(
        "webhook endpoint disabled", extra={"endpoint": str(endpoint.pk), "reason": str(reason)}
    )


# --- Jobs ----------------------------------------------------------------------------------------

RUN_SECONDS = 20.0


def run() -> int:
    """`deliver_due`, unless another worker is at it: slow receivers must not take all workers.

    What is right does not depend on that. Once no more is claimed, the next run may begin, while
    the last answers are still waited for; and `RUN_SECONDS` after one that died began.
    """
    begun = time.monotonic()
    if not query(_TAKE_TURN, seconds=RUN_SECONDS):
        return 0
    tried = deliver_due(seconds_max=RUN_SECONDS)
    if time.monotonic() - begun < RUN_SECONDS:
        execute(_END_TURN)
    return tried


_TAKE_TURN = """
INSERT INTO fintech_core_deliveryturn AS turn (id, until)
VALUES (1, now() + make_interval(secs => %(seconds)s))
    ON CONFLICT (id) DO UPDATE SET until = excluded.until WHERE turn.until <= now()
RETURNING 1
"""
_END_TURN = "UPDATE fintech_core_deliveryturn SET until = now() WHERE id = 1"


def delete_old() -> int:
    """Delete events older than the retention with their deliveries, in small batches; how many.

    What is still pending stays.
    """
    deleted = 0
    for _ in range(_PURGES_MAX):
        batch = _delete_batch()
        deleted += batch
        if batch < _PURGED:
            break
    return deleted


_OLD = """
SELECT event.id FROM fintech_core_outgoingevent event
 WHERE event.created_at < now() - %(retention)s
   AND NOT EXISTS (SELECT FROM fintech_core_webhookdelivery delivery
                    WHERE delivery.event_id = event.id AND delivery.status = 'pending')
 ORDER BY event.created_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
"""
# Asked again under the lock: one that is to be replayed meanwhile stays, and its event.
_DELIVERIES = """
SELECT id FROM fintech_core_webhookdelivery
 WHERE event_id = ANY(%(events)s) AND status <> 'pending' ORDER BY id FOR UPDATE
"""
_DELETE_TRIES = """
WITH gone AS (
    DELETE FROM fintech_core_deliveryattempt WHERE delivery_id = ANY(%(deliveries)s) RETURNING 1
) SELECT count(*) FROM gone
"""
_DELETE_DELIVERIES = """
WITH gone AS (
    DELETE FROM fintech_core_webhookdelivery WHERE id = ANY(%(deliveries)s) RETURNING 1
) SELECT count(*) FROM gone
"""
_DELETE_EVENTS = """
WITH gone AS (
    DELETE FROM fintech_core_outgoingevent event WHERE id = ANY(%(events)s)
       AND NOT EXISTS (SELECT FROM fintech_core_webhookdelivery delivery
                        WHERE delivery.event_id = event.id)
    RETURNING 1
) SELECT count(*) FROM gone
"""


@transaction.atomic
def _delete_batch() -> int:
    events = _ids(query(_OLD, retention=settings.WEBHOOK_DELIVERY_RETENTION, most=_PURGED))
    deliveries = _ids(query(_DELIVERIES, events=events))
    query(_DELETE_TRIES, deliveries=deliveries)
    query(_DELETE_DELIVERIES, deliveries=deliveries)
    [(count,)] = query(_DELETE_EVENTS, events=events)
    return int(count)


def _ids(rows: Iterable[tuple[UUID]]) -> list[UUID]:
    return [pk for (pk,) in rows]
