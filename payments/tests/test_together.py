"""Plain payments are credited many at once; whatever is not plain goes its own way beside them."""

import socket
import threading
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from redis.exceptions import ConnectionError

from fintech_core.database import query
from payments import inbox
from payments.gateways.sandbox import SandboxGateway
from payments.models import WebhookAttempt, WebhookEvent
from payments.services import PaymentService
from payments.tests.factories import PaymentIntentFactory, deliver, event_body
from payments.tests.helpers import balance, credits_of, make_due
from payments.tests.test_queue import empty_queue, queue_length
from transactions.services import TransactionService
from transactions.tests.helpers import at_once, breaches, close
from users.tests.factories import UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

PAID = Decimal("100.00")


def arrive(*intents, **data) -> list[WebhookEvent]:
    return [deliver(event_body(intent, **data)) for intent in intents]


def outcomes(events) -> list[tuple[str, list[str]]]:
    """Of each event its status, and how its tries ended."""
    return [
        (
            WebhookEvent.objects.get(pk=event.pk).status,
            list(event.tries.order_by("number").values_list("outcome", flat=True)),
        )
        for event in events
    ]


def test_given_many_payments_when_they_arrived_then_each_is_credited_once_and_on_record():
    intents = [PaymentIntentFactory(amount="10.00") for _ in range(6)]
    events = arrive(*intents)
    assert PaymentService.process_arrived_webhooks() == 6
    assert outcomes(events) == [("processed", ["processed"])] * 6
    for intent, event in zip(intents, events, strict=True):
        intent.refresh_from_db()
        event.refresh_from_db()
        assert (intent.status, event.intent_id) == ("succeeded", intent.pk)
        assert intent.transaction.effect_key == f"payment_intent:{intent.pk}"
        assert (balance(intent.user), credits_of(intent.user)) == (Decimal("10.00"), 1)
    assert PaymentService.process_arrived_webhooks() == 0
    assert breaches() == []


def test_given_more_payments_when_they_arrived_then_not_more_statements():
    arrive(*[PaymentIntentFactory() for _ in range(3)])
    with CaptureQueriesContext(connection) as few:
        PaymentService.process_arrived_webhooks()
    arrive(*[PaymentIntentFactory() for _ in range(12)])
    with CaptureQueriesContext(connection) as many:
        PaymentService.process_arrived_webhooks()
    assert len(many) == len(few)


def test_given_tables_without_statistics_when_credited_then_each_row_is_found_by_its_key():
    """PostgreSQL would rather read the whole of a small table, and remember how for a long time."""
    arrive(*[PaymentIntentFactory() for _ in range(30)])
    with CaptureQueriesContext(connection) as said:
        PaymentService.process_arrived_webhooks()
    [credit] = [one["sql"] for one in said if "lock_timeout" in one["sql"]]
    assert "SET LOCAL enable_seqscan = off" in credit
    assert query("SHOW enable_seqscan") == [("on",)]


def test_given_payments_of_one_wallet_when_they_arrived_then_each_counts():
    alice = UserFactory(kyc="approved")
    arrive(*[PaymentIntentFactory(user=alice, amount="10.00") for _ in range(5)])
    PaymentService.process_arrived_webhooks()
    assert (balance(alice), credits_of(alice)) == (Decimal("50.00"), 5)
    assert breaches() == []


def test_given_two_events_of_one_intent_when_they_arrived_then_one_credit():
    intent, other = PaymentIntentFactory(), PaymentIntentFactory()
    events = arrive(intent, intent, other)
    PaymentService.process_arrived_webhooks()
    assert outcomes(events) == [("processed", ["processed"])] * 3
    assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)


def test_given_others_that_are_not_plain_when_they_arrived_then_each_goes_its_own_way():
    plain = [PaymentIntentFactory() for _ in range(2)]
    wrong, late, closed, news = (
        PaymentIntentFactory(),
        PaymentIntentFactory(status="expired"),
        PaymentIntentFactory(),
        PaymentIntentFactory(),
    )
    close(closed.user)
    events = [
        *arrive(*plain),
        *arrive(wrong, amount="99.00"),
        *arrive(late, closed),
        deliver(event_body(news, "processing")),
        deliver(event_body(None)),
    ]
    PaymentService.process_arrived_webhooks()
    assert [status for status, _ in outcomes(events)] == [
        "processed",
        "processed",
        "parked",
        "processed",
        "processed",
        "processed",
        "ignored",
    ]
    for intent in (*plain, wrong, late, closed, news):
        intent.refresh_from_db()
    assert [intent.status for intent in (*plain, late, closed)] == ["succeeded"] * 4
    assert (wrong.status, news.status) == ("requires_payment", "processing")
    assert late.late_after == "expired"
    assert [balance(intent.user) for intent in (*plain, late)] == [PAID] * 3
    assert [balance(intent.user) for intent in (wrong, closed, news)] == [0] * 3
    assert closed.transaction.entries.get(entry_type="credit").account == "suspense"
    assert breaches() == []


def test_given_somebody_is_in_the_way_of_one_when_they_arrived_then_the_others_are_credited(owner):
    intents = [PaymentIntentFactory() for _ in range(3)]
    events = arrive(*intents)
    owner.execute("BEGIN")
    owner.execute(
        "SELECT 1 FROM wallet_wallet WHERE id = %s FOR UPDATE", [str(intents[1].wallet_id)]
    )
    try:
        PaymentService.process_arrived_webhooks()
    finally:
        owner.execute("ROLLBACK")
    assert outcomes(events) == [
        ("processed", ["processed"]),
        ("received", ["failed"]),
        ("processed", ["processed"]),
    ]
    assert [balance(intent.user) for intent in intents] == [PAID, 0, PAID]


def test_given_a_failure_after_the_credits_when_they_arrived_then_one_credit_each(monkeypatch):
    """What was credited together is undone together; then each is tried alone."""
    intents = [PaymentIntentFactory() for _ in range(3)]
    events = arrive(*intents)
    monkeypatch.setattr("payments.together._PROCESSED", "SELECT 1 / 0")
    PaymentService.process_arrived_webhooks()
    assert outcomes(events) == [("processed", ["processed"])] * 3
    assert [credits_of(intent.user) for intent in intents] == [1] * 3
    assert breaches() == []


def test_given_workers_and_payers_when_all_at_once_then_the_money_counts():
    alice, bob = (UserFactory(kyc="approved") for _ in range(2))
    arrive(*[PaymentIntentFactory(user=user, amount="1.00") for user in [alice, bob] * 20])
    tried = at_once(*[PaymentService.process_arrived_webhooks] * 4)
    assert sum(tried) == 40
    assert [balance(user) for user in (alice, bob)] == [Decimal("20.00")] * 2
    assert breaches() == []


def test_given_a_credit_that_was_made_before_when_added_with_others_then_it_is_left_out():
    alice = UserFactory(kyc="approved")
    intent = PaymentIntentFactory(user=alice)
    from payments.effects import intents

    deposit = intents.deposit_of(intent)
    first = TransactionService.add_money_to_many([deposit])
    assert list(first) == [deposit.effect_key]
    assert TransactionService.add_money_to_many([deposit]) == {}
    assert (balance(alice), credits_of(alice)) == (PAID, 1)


def test_given_an_event_that_cannot_be_handled_when_they_arrived_then_the_others_are_credited(
    monkeypatch,
):
    """Whatever one raises, the others must not lose their tries over it."""
    good = [PaymentIntentFactory() for _ in range(3)]
    bad = PaymentIntentFactory()
    events = [*arrive(*good), *arrive(bad, currency="EUR")]
    read = SandboxGateway.parse

    def stumble(self, *, headers, body):
        if b'"EUR"' in body:
            raise RuntimeError("no reader for this")
        return read(self, headers=headers, body=body)

    monkeypatch.setattr(SandboxGateway, "parse", stumble)
    PaymentService.process_arrived_webhooks()
    assert outcomes(events) == [("processed", ["processed"])] * 3 + [("received", ["failed"])]
    assert [balance(intent.user) for intent in good] == [PAID] * 3


def test_given_many_events_wait_for_one_wallet_when_time_is_up_then_their_tries_do_not_count(owner):
    alice, other = UserFactory(kyc="approved"), PaymentIntentFactory()
    waiting = arrive(*[PaymentIntentFactory(user=alice) for _ in range(3)])
    [free] = arrive(other)
    owner.execute("BEGIN")
    owner.execute("SELECT 1 FROM wallet_wallet WHERE id = %s FOR UPDATE", [str(alice.wallet.pk)])
    try:
        inbox.process_due(seconds_max=0.5)
    finally:
        owner.execute("ROLLBACK")
    assert outcomes([free]) == [("processed", ["processed"])]
    assert balance(other.user) == PAID
    for event in waiting:
        event.refresh_from_db()
    assert [(event.status, event.attempts) for event in waiting] == [("received", 0)] * 3
    for event in waiting:
        make_due(event)
    PaymentService.process_arrived_webhooks()
    assert (balance(alice), credits_of(alice)) == (Decimal("300.00"), 3)
    assert breaches() == []


class TestHint:
    """One task in the queue is enough for however many events are stored before it begins."""

    def test_given_a_task_that_waits_when_more_events_come_then_nothing_more_is_queued(self):
        empty_queue()
        inbox.take_hint()
        arrive(*[PaymentIntentFactory() for _ in range(4)])
        assert queue_length() == 1

    def test_given_a_task_that_is_lost_when_events_keep_coming_then_the_hint_runs_out_all_the_same(
        self,
    ):
        inbox.take_hint()
        arrive(PaymentIntentFactory())
        inbox._hints.ask("PEXPIRE", inbox._HINT, 1_000)
        arrive(PaymentIntentFactory())
        assert 0 <= inbox._hints.ask("PTTL", inbox._HINT) <= 1_000

    def test_given_a_task_that_began_when_an_event_comes_then_it_is_queued(self):
        empty_queue()
        inbox.take_hint()
        arrive(PaymentIntentFactory())
        PaymentService.process_arrived_webhooks()
        arrive(PaymentIntentFactory())
        assert queue_length() == 2

    def test_given_a_task_that_waits_a_moment_when_more_come_then_they_are_credited_with_it(
        self, monkeypatch
    ):
        empty_queue()
        inbox.take_hint()
        first, *others = [PaymentIntentFactory() for _ in range(4)]
        arrive(first)
        monkeypatch.setattr(inbox.time, "sleep", lambda _seconds: arrive(*others))
        assert PaymentService.process_arrived_webhooks() == 4
        assert queue_length() == 1
        assert WebhookAttempt.objects.values("finished_at").distinct().count() == 1

    def test_given_one_that_failed_when_more_come_during_its_try_then_they_have_their_own_task(
        self, monkeypatch
    ):
        """They would be tried one by one, for it may take long."""
        [failed] = arrive(PaymentIntentFactory())
        WebhookEvent.objects.update(attempts=1)
        others = [PaymentIntentFactory() for _ in range(3)]
        try_alone = inbox._try

        def meanwhile(attempt):
            empty_queue()
            arrive(*others)
            return try_alone(attempt)

        monkeypatch.setattr(inbox, "_try", meanwhile)
        assert PaymentService.process_arrived_webhooks() == 1
        assert outcomes([failed]) == [("processed", ["processed"])]
        assert queue_length() == 1
        assert PaymentService.process_arrived_webhooks() == 3
        assert WebhookAttempt.objects.values("finished_at").distinct().count() == 2

    def test_given_an_answer_that_is_lost_when_an_event_comes_then_it_is_queued_all_the_same(
        self, monkeypatch
    ):
        arrive(PaymentIntentFactory())
        empty_queue()
        inbox.take_hint()
        redis = inbox._hints.client.connection
        read, lost = redis.read_response, []

        def lose_the_first(*arguments, **options):
            answer = read(*arguments, **options)
            if not lost:
                lost.append(answer)
                raise ConnectionError("lost")
            return answer

        monkeypatch.setattr(redis, "read_response", lose_the_first)
        arrive(PaymentIntentFactory())
        assert lost
        assert queue_length() == 1

    def test_given_staff_who_ask_again_when_there_is_no_time_then_the_others_are_put_back(self):
        events = arrive(*[PaymentIntentFactory() for _ in range(3)])
        attempts = inbox._begin_new()
        inbox.receive_again([events[0].pk], by=UserFactory())
        inbox._put_back(attempts)
        assert set(WebhookEvent.objects.values_list("status", "attempts")) == {("received", 0)}

    def test_given_a_connection_that_was_closed_when_an_event_comes_then_it_is_queued(self):
        arrive(PaymentIntentFactory())
        empty_queue()
        inbox._hints.client.connection._sock.shutdown(socket.SHUT_RDWR)
        arrive(PaymentIntentFactory())
        assert queue_length() == 1

    def test_given_events_come_while_a_task_runs_when_all_is_over_then_none_waits(self):
        """Whoever sees the hint of a task has committed before that task looks."""
        empty_queue()
        intents = [PaymentIntentFactory() for _ in range(12)]
        stop = threading.Event()

        def work():
            while not stop.is_set() or queue_length():
                if queue_length():
                    empty_queue()
                    PaymentService.process_arrived_webhooks()
            connection.close()

        worker = threading.Thread(target=work)
        worker.start()
        try:
            arrive(*intents)
        finally:
            stop.set()
            worker.join()
        assert not WebhookEvent.objects.filter(status="received").exists()
        assert [credits_of(intent.user) for intent in intents] == [1] * 12
