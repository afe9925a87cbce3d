"""Without Redis, and with a real Celery worker: the queue is a hint, PostgreSQL is the truth."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from decimal import Decimal

import pytest
from django.conf import settings
from redis import Redis

from fintech_core.celery import app
from fintech_core.own_redis import OwnRedis
from payments import inbox
from payments.models import WebhookEvent
from payments.services import PaymentService
from payments.tasks import sweep_webhook_events
from payments.tests.factories import PaymentIntentFactory, event_body, signed
from payments.tests.helpers import balance, credits_of, make_due, post_webhook
from transactions.tests.helpers import breaches

pytestmark = pytest.mark.django_db(transaction=True)

PAID = Decimal("100.00")
SECONDS_MAX = 40


@contextmanager
def silent_server():
    """Takes connections and never answers, as a Redis that hangs."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@contextmanager
def closed_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    yield f"redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize("broken", [closed_port, silent_server])
def test_given_redis_is_away_when_an_event_comes_then_it_is_stored_and_processed_later(
    broken, monkeypatch
):
    intent = PaymentIntentFactory()
    body = event_body(intent)
    with broken() as url:
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", url)
        # Or the connection is kept.
        monkeypatch.setattr(inbox, "_hints", OwnRedis(inbox._hint_pool))
        started = time.perf_counter()
        response = post_webhook(body, signed(body))
        elapsed = time.perf_counter() - started
    assert (response.status_code, response.json()) == (200, {"received": True})
    assert elapsed < 1.5
    event = WebhookEvent.objects.get()
    assert (event.status, balance(intent.user)) == ("received", 0)
    assert PaymentService.sweep_webhook_events() == 1
    assert balance(intent.user) == PAID


def test_given_redis_was_flushed_when_swept_then_the_event_is_processed():
    intent = PaymentIntentFactory()
    body = event_body(intent)
    post_webhook(body, signed(body))
    assert queue_length() >= 1
    empty_queue()
    PaymentService.sweep_webhook_events()
    assert balance(intent.user) == PAID


def test_given_an_event_that_is_not_committed_when_rolled_back_then_nothing_is_queued():
    from django.db import transaction

    empty_queue()
    body = event_body()
    with transaction.atomic():
        post_webhook(body, signed(body))
        assert queue_length() == 0
        transaction.set_rollback(True)
    assert queue_length() == 0
    assert not WebhookEvent.objects.exists()


def test_given_a_real_worker_when_events_come_then_it_credits_even_after_kill_9(owner):
    empty_queue()
    first, second = PaymentIntentFactory(), PaymentIntentFactory()
    with worker() as process:
        post_event(first)
        wait_until(lambda: balance(first.user) == PAID)
        # Killed in the middle: the try is counted, and the wallet is out of its reach.
        owner.execute("BEGIN")
        owner.execute(
            "SELECT 1 FROM wallet_wallet WHERE id = %s FOR UPDATE", [str(second.wallet_id)]
        )
        event = post_event(second)
        wait_until(lambda: event.tries.exists())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        owner.execute("ROLLBACK")
    event.refresh_from_db()
    assert (event.status, event.attempts, balance(second.user)) == ("received", 1, 0)
    with worker():
        make_due(event)  # its lease would be over in some ten seconds
        for _ in range(3):
            sweep_webhook_events.delay()
            inbox._enqueue(event.pk)  # and the queue delivers it again, several times
        wait_until(lambda: balance(second.user) == PAID)
    event.refresh_from_db()
    assert event.status == "processed"
    assert list(event.tries.order_by("number").values_list("outcome", flat=True)) == [
        "started",
        "processed",
    ]
    assert [credits_of(intent.user) for intent in (first, second)] == [1, 1]
    assert breaches() == []


def post_event(intent):
    body = event_body(intent)
    headers = signed(body)
    assert post_webhook(body, headers).status_code == 200
    return WebhookEvent.objects.get(event_id=headers["webhook-id"])


def queue_length():
    with closing(Redis.from_url(settings.CELERY_BROKER_URL)) as redis:
        return redis.llen("fintech:celery")


def empty_queue():
    """This test run's own database of Redis."""
    with closing(Redis.from_url(settings.CELERY_BROKER_URL)) as redis:
        redis.flushdb()


@contextmanager
def worker():
    """A Celery worker as production starts it, on the servers of this test run."""
    command = [sys.executable, "-m", "celery", "-A", "fintech_core", "worker"]
    process = subprocess.Popen(
        [*command, "--loglevel", "INFO", "--concurrency", "2"],
        env={**os.environ, "REDIS_URL": settings.CELERY_BROKER_URL, "LOG_DIR": ""},
        cwd=settings.BASE_DIR,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def wait_until(condition):
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_given_the_schedule_when_read_then_every_task_in_it_exists():
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    ours = {name for name in scheduled if name.startswith("payments.")}
    assert ours == {
        "payments.sweep_webhook_events",
        "payments.deliver_due_sandbox_events",
        "payments.expire_payment_intents",
        "payments.cleanup_old_webhook_events",
        "payments.poll_gateways",
        "payments.sweep_refunds",
        "payments.reconcile_gateways",
    }
    assert scheduled <= set(app.tasks)
