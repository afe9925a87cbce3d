"""How the sandbox delivers its events: signed, over HTTP, to our endpoint, and again if need be.

A worker does it, so no web process waits for what is late. No lock and no transaction is open while
it sends. The queue is only a hint: `next_attempt_at` in PostgreSQL says what is due.
"""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID

import urllib3
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from payments.gateways.sandbox import SandboxGateway
from payments.models import SandboxDelivery
from payments.models.sandbox import ATTEMPTS_MAX

logger = logging.getLogger(__name__)

PATH = "/api/v1/payments/webhooks/sandbox/"
CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
ANSWER_BYTES = 2_000
RETRY_FIRST = timedelta(seconds=5)
# A queue hands out again what it holds for longer; the sweeper sends what is later than this.
QUEUED_SECONDS_MAX = 120.0
SWEEP_SECONDS_MAX = 10.0  # less than between two sweeps in CELERY_BEAT_SCHEDULE


@dataclass(frozen=True)
class Answer:
    """What our endpoint said. No status: it was not reached."""

    status: int | None
    text: str


def enqueue_on_commit(made: SandboxDelivery) -> None:
    transaction.on_commit(partial(_enqueue, made.pk, made.next_attempt_at), robust=True)


def _enqueue(delivery_id: UUID, due_at: datetime | None) -> None:
    from payments.tasks import deliver_sandbox_event  # the task calls this module

    now = datetime.now(tz=UTC)
    seconds = max(0.0, ((due_at or now) - now).total_seconds())
    if seconds > QUEUED_SECONDS_MAX:
        return
    try:
        deliver_sandbox_event.apply_async((str(delivery_id),), countdown=seconds)
    except (KombuError, RedisError, OSError):
        logger.warning("sandbox event not queued", extra={"delivery": str(delivery_id)})


def deliver(delivery_id: UUID) -> Answer | None:
    """Send an event once, if it is due. Safe to run any number of times, also at once.

    None: there was nothing to send; it is done, not due yet, in another worker's hands, or unknown.
    """
    return _deliver(delivery_id)


def deliver_due(*, seconds_max: float = SWEEP_SECONDS_MAX) -> int:
    """Send what is due, one event at a time, until nothing is or the time is used up."""
    stop_at = time.monotonic() + seconds_max
    sent = 0
    while time.monotonic() < stop_at and _deliver(None) is not None:
        sent += 1
    return sent


def _deliver(delivery_id: UUID | None) -> Answer | None:
    sandbox = SandboxGateway.from_settings()
    claimed = _claim(delivery_id) if sandbox else None
    if sandbox is None or claimed is None:
        return None
    answer = _send(sandbox, claimed)
    _record(claimed, answer)
    return answer


@transaction.atomic
def _claim(delivery_id: UUID | None) -> SandboxDelivery | None:
    """Count the try and commit that, so that a worker's death costs a try and nothing else."""
    due = SandboxDelivery.objects.select_for_update(no_key=True, skip_locked=True).filter(
        status=SandboxDelivery.Status.WAITING, next_attempt_at__lte=Now()
    )
    if delivery_id is not None:
        due = due.filter(pk=delivery_id)
    claimed = due.order_by("next_attempt_at").first()
    if claimed is None:
        return None
    claimed.attempts = min(claimed.attempts + 1, ATTEMPTS_MAX)
    claimed.next_attempt_at = (
        Now()
        + RETRY_FIRST * 2 ** (claimed.attempts - 1)
        + timedelta(seconds=CONNECT_SECONDS + READ_SECONDS)
    )
    claimed.save(update_fields=["attempts", "next_attempt_at"])
    return claimed


def _send(sandbox: SandboxGateway, claimed: SandboxDelivery) -> Answer:
    """Signed now: a signature is good for five minutes, and the event may be late."""
    body = claimed.body.encode()
    signed = sandbox.sign(event_id=claimed.event_id, at=datetime.now(tz=UTC), body=body)
    try:
        with (
            urllib3.PoolManager(
                retries=False, timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
            ) as pool,
            pool.request(
                "POST",
                settings.SANDBOX_DELIVERY_BASE_URL + PATH,
                body=body,
                headers=_headers() | signed,
                redirect=False,
                preload_content=False,
            ) as response,
        ):
            said = response.read(ANSWER_BYTES)
            return Answer(response.status, said.decode(errors="replace").replace("\x00", "�"))
    except (urllib3.exceptions.HTTPError, OSError) as fault:
        return Answer(None, f"Not reached: {type(fault).__name__}.")


def _headers() -> dict[str, str]:
    """As if it had come the public way, whichever address reaches the web server from here."""
    public = urlsplit(settings.PUBLIC_BASE_URL)
    return {
        "Content-Type": "application/json",
        "Host": public.netloc,
        "X-Forwarded-Proto": public.scheme,
        "User-Agent": "fintech-core-sandbox",
    }


def _record(claimed: SandboxDelivery, answer: Answer) -> None:
    known = {"answer_status": answer.status, "answer": answer.text[:500]}
    this = SandboxDelivery.objects.filter(pk=claimed.pk, status=SandboxDelivery.Status.WAITING)
    if answer.status is not None and 200 <= answer.status < 300:
        this.update(
            status=SandboxDelivery.Status.DELIVERED,
            delivered_at=Now(),
            next_attempt_at=None,
            **known,
        )
    elif claimed.attempts >= ATTEMPTS_MAX:
        this.update(status=SandboxDelivery.Status.GIVEN_UP, next_attempt_at=None, **known)
    else:
        this.update(**known)
