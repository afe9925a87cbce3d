"""Deliveries arrive signed, once if all goes well and again if not, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings as configured
from django.db import connections
from django.utils import timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from fintech_core.models import (
    DeliveryAttempt,
    DeliveryTurn,
    OutgoingEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from fintech_core.tasks import delete_old_deliveries, deliver_webhooks
from fintech_core.tests.webhooks.helpers import (
    deliver,
    endpoint_for,
    listener,
    make_due,
    only_delivery,
)
from fintech_core.tests.webhooks.receiver import answering, receiving, slowly
from fintech_core.webhooks import delivery, services
from transactions.tests.helpers import at_once, breaches, person, send
from users.models import User
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db(transaction=True)

NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def private_targets(settings):
    settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = True


@pytest.fixture
def receiver():
    with receiving() as made:
        yield made


@pytest.fixture
def alice():
    return person("100.00")


def happens_to(user, times=1):
    for _ in range(times):
        send(user, person(), "1.00")


class TestSigned:
    def test_given_an_event_when_delivered_then_the_standards_library_accepts_it(
        self, alice, receiver
    ):
        endpoint = endpoint_for(alice, receiver.url())
        happens_to(alice)
        assert deliver() == 1
        [(headers, body)] = receiver.received
        said = Webhook(endpoint.secret).verify(body, headers)
        event = OutgoingEvent.objects.get()
        assert headers["webhook-id"] == str(event.pk)
        assert (said["type"], said["user_id"]) == ("transfer.sent", str(alice.pk))
        assert said["data"]["balance_after"] == "99.00"
        assert datetime.fromisoformat(said["timestamp"]) == event.created_at
        assert headers["content-type"] == "application/json"
        with pytest.raises(WebhookVerificationError):
            Webhook(endpoint.secret).verify(body + b" ", headers)
        assert breaches() == []

    def test_given_a_rotated_secret_when_delivered_then_both_verify_until_the_overlap_ends(
        self, alice, receiver, settings
    ):
        old = endpoint_for(alice, receiver.url())
        new = services.rotate_secret(user_id=alice.pk, endpoint_id=old.pk)
        assert new.secret != old.secret
        happens_to(alice)
        deliver()
        [(headers, body)] = receiver.received
        assert len(headers["webhook-signature"].split(" ")) == 2
        for secret in (old.secret, new.secret):
            Webhook(secret).verify(body, headers)
        WebhookEndpoint.objects.update(previous_secret_expires_at=timezone.now())
        happens_to(alice)
        deliver()
        headers, body = receiver.received[1]
        Webhook(new.secret).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(old.secret).verify(body, headers)

    def test_given_two_endpoints_when_delivered_then_one_id_and_each_its_secret(
        self, alice, receiver
    ):
        first, second = (endpoint_for(alice, receiver.url(path)) for path in ("/1", "/2"))
        happens_to(alice)
        assert deliver() == 2
        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
        assert first.secret != second.secret


class TestRetries:
    def test_given_failures_when_tried_then_by_the_standards_schedule_and_then_failed(
        self, alice, receiver
    ):
        receiver.answer = answering(500, b"broken")
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        for gap in delivery.SCHEDULE:
            before = timezone.now()
            assert deliver() == 1
            waiting = only_delivery()
            delay = waiting.next_attempt_at - before
            assert gap <= delay <= gap * 1.2 + timedelta(seconds=5)
            assert waiting.status == "pending"
            assert deliver() == 0
            make_due()
        assert deliver() == 1
        over = only_delivery()
        assert (over.status, over.attempts) == ("failed", 10)
        assert over.last_error == "It answered 500."
        tries = DeliveryAttempt.objects.order_by("number")
        assert [each.number for each in tries] == list(range(1, 11))
        assert {(each.response_status, each.response_body) for each in tries} == {(500, "broken")}
        ids = {headers["webhook-id"] for headers, _ in receiver.received}
        assert len({body for _, body in receiver.received}) == len(ids) == 1
        make_due()
        assert deliver() == 0

    def test_given_a_failure_when_it_works_again_then_delivered_and_forgotten(
        self, alice, receiver
    ):
        receiver.answer = answering(503)
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        deliver()
        assert WebhookEndpoint.objects.get().failing_since
        receiver.answer = answering(204, b"")
        make_due()
        deliver()
        assert (only_delivery().status, only_delivery().last_error) == ("delivered", "")
        endpoint = WebhookEndpoint.objects.get()
        assert (endpoint.failing_since, endpoint.failures) == (None, 0)

    def test_given_an_endpoint_that_fails_when_more_happens_then_it_rests(self, alice):
        endpoint_for(alice, NOWHERE)
        happens_to(alice, 8)
        assert deliver() == delivery.AT_ONCE_TO_ENDPOINT  # they find out; the others wait
        assert deliver() == 0
        WebhookEndpoint.objects.update(paused_until=None)
        assert deliver() == 1

    def test_given_days_of_failures_then_it_is_switched_off_and_says_why(self, alice):
        endpoint_for(alice, NOWHERE)
        happens_to(alice)
        deliver()
        long_ago = timezone.now() - configured.WEBHOOK_DISABLE_AFTER
        WebhookEndpoint.objects.update(failing_since=long_ago)
        make_due()
        deliver()
        endpoint = WebhookEndpoint.objects.get()
        assert (endpoint.status, endpoint.disabled_reason) == ("disabled", "failing")
        make_due()
        assert deliver() == 0
        assert (only_delivery().status, only_delivery().last_error) == (
            "abandoned",
            "The endpoint is disabled.",
        )

    def test_given_a_long_silence_when_one_try_fails_then_the_days_are_counted_anew(self, alice):
        endpoint_for(alice, NOWHERE)
        happens_to(alice)
        deliver()
        now = timezone.now()
        WebhookEndpoint.objects.update(
            failures=delivery.TRIES_MAX,
            failing_since=now - configured.WEBHOOK_DISABLE_AFTER - delivery.SILENCE,
            paused_until=now - delivery.SILENCE,
        )
        make_due(rested=False)
        assert deliver() == 1
        endpoint = WebhookEndpoint.objects.get()
        assert (endpoint.status, endpoint.failures) == ("active", 1)
        assert endpoint.failing_since >= now

    def test_given_410_then_it_is_switched_off_at_once(self, alice, receiver):
        receiver.answer = answering(410)
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        deliver()
        assert WebhookEndpoint.objects.get().disabled_reason == "gone"

    def test_given_a_deleted_endpoint_then_what_was_on_its_way_is_abandoned(self, alice, receiver):
        endpoint = endpoint_for(alice, receiver.url())
        happens_to(alice)
        services.remove(user_id=alice.pk, endpoint_id=endpoint.pk)
        assert deliver() == 0
        assert only_delivery().status == "abandoned"
        assert receiver.received == []
        endpoint.refresh_from_db()
        assert endpoint.secret == ""

    @pytest.mark.parametrize(
        ("result", "outcome", "status"),
        [
            (delivery.Result(status=200), "delivered", "delivered"),
            (delivery.Result(status=410, error="It answered 410."), "failed", "pending"),
        ],
    )
    def test_given_an_endpoint_deleted_while_it_is_tried_then_the_try_is_recorded(
        self, alice, result, outcome, status
    ):
        endpoint = endpoint_for(alice, NOWHERE)
        happens_to(alice)
        deliver()
        make_due()
        [sending] = delivery._claim_all(1, {})
        services.remove(user_id=alice.pk, endpoint_id=endpoint.pk)
        delivery._record_safely(sending, result)
        assert DeliveryAttempt.objects.get(pk=sending.attempt_id).outcome == outcome
        assert only_delivery().status == status
        endpoint.refresh_from_db()
        assert (endpoint.status, endpoint.failures) == ("deleted", 1)

    def test_given_a_deactivated_owner_then_nothing_is_sent(self, alice, receiver):
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        User.objects.filter(pk=alice.pk).update(is_active=False)
        deliver()
        assert receiver.received == []
        assert only_delivery().status == "abandoned"

    def test_given_staff_without_the_permission_any_more_then_nothing_of_others_is_sent(
        self, alice, receiver
    ):
        staff = listener()
        endpoint_for(staff, receiver.url(), "transfer.sent", scope="everybody")
        happens_to(alice)
        assert deliver() == 1
        staff.user_permissions.clear()
        happens_to(alice)
        assert deliver() == 0
        assert len(receiver.received) == 1

    def test_given_a_private_target_when_it_is_no_longer_allowed_then_refused_at_connect_time(
        self, alice, receiver, settings
    ):
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = False
        deliver()
        assert receiver.received == []
        assert only_delivery().last_error == "The URL must begin with https://."


class TestAtOnce:
    def test_given_twin_deliverers_when_they_run_then_each_event_arrives_once(
        self, alice, receiver
    ):
        endpoint_for(alice, receiver.url())
        happens_to(alice, 12)
        assert sum(at_once(*[deliver] * 3)) == 12
        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 12
        assert len(receiver.received) == 12
        assert set(WebhookDelivery.objects.values_list("status", flat=True)) == {"delivered"}

    def test_given_twin_deliverers_when_they_run_then_no_more_than_the_bound_at_once(
        self, alice, receiver
    ):
        lock, now, most = threading.Lock(), [0], [0]

        def counting(handler):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.1)
            with lock:
                now[0] -= 1
            answering(200)(handler)

        receiver.answer = counting
        endpoint_for(alice, receiver.url())
        happens_to(alice, 12)
        at_once(*[deliver] * 3)
        assert len(receiver.received) == 12
        assert 1 < most[0] <= delivery.AT_ONCE_TO_ENDPOINT

    def test_given_a_slow_endpoint_when_others_listen_then_they_do_not_wait(self, alice, receiver):
        bob = person("100.00")
        with receiving() as slow:
            slow.answer = slowly(3)
            endpoint_for(alice, slow.url())
            endpoint_for(bob, receiver.url())
            happens_to(alice, 60)
            happens_to(bob, 5)
            started = time.monotonic()
            worker = threading.Thread(target=run_for, args=(2.0,))
            worker.start()
            while len(receiver.received) < 5 and time.monotonic() - started < 10:
                time.sleep(0.02)
            took = time.monotonic() - started
            happens_to(bob)  # while the slow one is still being waited for
            while len(receiver.received) < 6 and time.monotonic() - started < 10:
                time.sleep(0.02)
            took_later = time.monotonic() - started
            worker.join()
        assert len(slow.received) == delivery.AT_ONCE_TO_ENDPOINT
        assert took < 1.5
        assert took_later < 2.5

    def test_given_a_customer_with_many_endpoints_when_claiming_then_the_others_get_their_turn(
        self, alice, receiver
    ):
        bob = person("100.00")
        for _ in range(services.ENDPOINTS_MAX):
            endpoint_for(alice, receiver.url("/alice"))
        endpoint_for(bob, receiver.url("/bob"))
        happens_to(alice, 6)
        happens_to(bob)
        claimed = delivery._claim_all(delivery.AT_ONCE, {})
        owners = [each.owner_id for each in claimed]
        assert (owners.count(alice.pk), owners.count(bob.pk)) == (delivery.AT_ONCE_TO_USER, 1)
        assert delivery._claim_all(delivery.AT_ONCE, {}) == []
        make_due()
        assert deliver() == 61

    def test_given_twin_deliverers_when_they_claim_then_no_more_than_the_bound_for_a_customer(
        self, alice
    ):
        for _ in range(services.ENDPOINTS_MAX):
            endpoint_for(alice, NOWHERE)
        happens_to(alice, 6)
        claims = at_once(*[lambda: len(delivery._claim_all(4, {}))] * 4)
        assert sum(claims) == delivery.AT_ONCE_TO_USER

    def test_given_another_worker_is_at_it_when_the_job_runs_then_it_leaves_it_alone(
        self, alice, receiver
    ):
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        DeliveryTurn.objects.create(until=timezone.now() + timedelta(seconds=20))
        deliver_webhooks()
        assert receiver.received == []
        DeliveryTurn.objects.update(until=timezone.now())  # that one died long ago
        deliver_webhooks()
        deliver_webhooks()
        assert len(receiver.received) == 1


def run_for(seconds):
    try:
        delivery.deliver_due(seconds_max=seconds)
    finally:
        connections.close_all()


class TestCrashes:
    def test_given_a_deliverer_killed_in_a_try_then_it_is_made_again(self, alice, receiver):
        receiver.answer = slowly(30)
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import django; django.setup()\n"
                "from fintech_core.webhooks import delivery\n"
                "delivery.deliver_due(seconds_max=10)",
            ],
            env={
                **os.environ,
                "LOG_DIR": "",
                "WEBHOOK_ALLOW_PRIVATE_TARGETS": "true",
                "REDIS_URL": configured.CELERY_BROKER_URL,
            },
            cwd=configured.BASE_DIR,
        )
        deadline = time.monotonic() + 30
        while not receiver.received and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        [cut_short] = DeliveryAttempt.objects.all()
        assert cut_short.outcome == "started"
        assert deliver() == 0  # its lease still runs
        lease = only_delivery().next_attempt_at - timezone.now()
        assert timedelta(0) < lease <= delivery.LEASE
        receiver.answer = answering(200)
        make_due()
        assert deliver() == 1
        assert only_delivery().status == "delivered"
        (first, _), (second, _) = receiver.received
        assert first["webhook-id"] == second["webhook-id"]

    def test_given_the_last_try_was_cut_short_then_the_delivery_failed(self, alice):
        endpoint_for(alice, NOWHERE)
        happens_to(alice)
        WebhookDelivery.objects.update(attempts=delivery.TRIES_MAX)
        assert deliver() == 0
        assert (only_delivery().status, only_delivery().last_error) == (
            "failed",
            "The last try was cut short.",
        )

    def test_given_a_failure_that_comes_after_its_lease_then_the_other_try_counts(self, alice):
        endpoint_for(alice, NOWHERE)
        happens_to(alice)
        [late] = delivery._claim_all(1, {})
        make_due()
        [other] = delivery._claim_all(1, {})
        delivery._record(late, delivery.Result(error="Late."))
        waiting = only_delivery()
        assert (waiting.sending_until, waiting.last_error) == (other.until, "")
        delivery._record(other, delivery.Result(status=200))
        assert only_delivery().status == "delivered"


class TestReplay:
    def test_given_a_failed_delivery_when_replayed_then_it_is_tried_anew(self, alice, receiver):
        endpoint = endpoint_for(alice, receiver.url())
        happens_to(alice)
        deliver()
        again = services.replay(
            user_id=alice.pk, endpoint_id=endpoint.pk, delivery_id=only_delivery().pk
        )
        assert (again.status, again.attempts) == ("pending", 0)
        deliver()
        (first, one), (second, two) = receiver.received
        assert (first["webhook-id"], one) == (second["webhook-id"], two)
        assert [each.number for each in DeliveryAttempt.objects.order_by("number")] == [1, 2]


class TestRetention:
    def age(self, owner, days):
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "UPDATE fintech_core_outgoingevent SET created_at = now() - %s",
            [timedelta(days=days)],
        )
        owner.execute("SET session_replication_role = origin")

    def test_given_old_events_when_cleaned_up_then_gone_but_for_what_is_on_its_way(
        self, alice, receiver, owner, monkeypatch
    ):
        monkeypatch.setattr(delivery, "_PURGED", 2)
        endpoint_for(alice, receiver.url())
        happens_to(alice, 5)
        deliver()
        happens_to(alice)
        self.age(owner, 31)
        delete_old_deliveries()
        assert only_delivery().status == "pending"
        assert OutgoingEvent.objects.count() == 1
        assert not DeliveryAttempt.objects.exists()

    def test_given_young_events_when_cleaned_up_then_they_stay(self, alice, receiver, owner):
        endpoint_for(alice, receiver.url())
        happens_to(alice)
        deliver()
        self.age(owner, 29)
        assert delivery.delete_old() == 0
        assert OutgoingEvent.objects.exists()


def test_given_logs_when_delivering_then_no_secret_and_no_payload(alice, receiver, caplog):
    endpoint = endpoint_for(alice, receiver.url("/hooks?token=of-the-receiver"))
    with caplog.at_level("INFO"):
        happens_to(alice)
        deliver()
        services.rotate_secret(user_id=alice.pk, endpoint_id=endpoint.pk)
    written = " ".join(str(record.__dict__) for record in caplog.records)
    assert "webhook tried" in written
    assert endpoint.secret not in written
    assert "of-the-receiver" not in written
    assert "balance_after" not in written


def test_given_staff_who_lost_everything_when_registering_for_everybody_then_refused():
    from fintech_core.webhooks.exceptions import NotPermitted

    with pytest.raises(NotPermitted):
        endpoint_for(StaffFactory(), NOWHERE, scope="everybody")
    assert not WebhookEndpoint.objects.exists()


def test_given_the_clock_when_signing_then_the_moment_of_the_try(alice, receiver):
    endpoint_for(alice, receiver.url())
    happens_to(alice)
    deliver()
    headers, _ = receiver.received[0]
    moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), tz=UTC)
    assert abs(moment - timezone.now()) < timedelta(seconds=30)
