"""Real threads on real PostgreSQL: one event, one intent, one credit."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import override_settings

from fintech_core.exceptions import InvalidState
from payments.models import PaymentIntent, WebhookEvent
from payments.services import PaymentService
from payments.tasks import process_webhook_async
from payments.tests.factories import PaymentIntentFactory, deliver, event_body, signed
from payments.tests.helpers import balance, credits_of, make_due, post_webhook
from transactions.tests.helpers import at_once, breaches
from users.tests.factories import UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

PAID = Decimal("100.00")


def process(event):
    return PaymentService.process_payment_webhook(event.pk)


def test_given_one_event_when_delivered_sixteen_times_at_once_then_one_row_and_one_credit():
    intent = PaymentIntentFactory()
    body = event_body(intent)
    headers = signed(body)

    def deliver_and_process():
        status = post_webhook(body, headers).status_code
        for event in WebhookEvent.objects.all():
            process(event)
        return status

    assert at_once(*[deliver_and_process] * 16) == [200] * 16
    event = WebhookEvent.objects.get()
    assert event.status == "processed"
    assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)
    assert breaches() == []


def test_given_one_task_when_run_sixteen_times_at_once_then_one_try_counts():
    intent = PaymentIntentFactory()
    event = deliver(event_body(intent))
    at_once(*[lambda: process_webhook_async(str(event.pk))] * 16)
    event.refresh_from_db()
    assert (event.status, event.attempts) == ("processed", 1)
    assert credits_of(intent.user) == 1


def test_given_two_success_events_of_one_intent_when_processed_at_once_then_one_credit():
    intent = PaymentIntentFactory()
    events = [deliver(event_body(intent)) for _ in range(6)]
    at_once(*[lambda event=event: process(event) for event in events])
    assert set(WebhookEvent.objects.values_list("status", flat=True)) == {"processed"}
    assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)
    assert breaches() == []


def test_given_a_lease_that_ran_out_when_both_tries_settle_then_one_credit():
    """A slow worker's lease is over, another takes the event: the row lock decides."""
    intent = PaymentIntentFactory()
    event = deliver(event_body(intent))

    def impatient():
        make_due(event)
        return process(event)

    at_once(*[impatient] * 5)
    make_due(event)
    process(event)
    event.refresh_from_db()
    assert event.status == "processed"
    assert credits_of(intent.user) == 1


@pytest.mark.parametrize("_", range(3))
def test_given_every_kind_of_news_when_processed_at_once_then_the_money_counts(_):
    intent = PaymentIntentFactory()
    kinds = ["processing", "failed", "canceled", "succeeded"] * 2
    events = [deliver(event_body(intent, kind)) for kind in kinds]
    at_once(*[lambda event=event: process(event) for event in events])
    intent.refresh_from_db()
    assert intent.status == "succeeded"
    assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)


def test_given_intents_of_one_wallet_when_paid_at_once_then_each_is_credited():
    alice = UserFactory(kyc="approved")
    intents = [PaymentIntentFactory(user=alice, amount="10.00") for _ in range(8)]
    events = [deliver(event_body(intent)) for intent in intents]
    at_once(*[lambda event=event: process(event) for event in events])
    assert (balance(alice), credits_of(alice)) == (Decimal("80.00"), 8)
    assert breaches() == []


def test_given_sweepers_when_they_run_at_once_then_each_event_is_tried_once():
    intents = [PaymentIntentFactory() for _ in range(10)]
    for intent in intents:
        deliver(event_body(intent))
    tried = at_once(*[PaymentService.sweep_webhook_events] * 4)
    assert sum(tried) == 10
    assert [credits_of(intent.user) for intent in intents] == [1] * 10


def test_given_cancel_and_success_when_at_once_then_the_money_counts():
    for _ in range(5):
        intent = PaymentIntentFactory()
        event = deliver(event_body(intent))
        outcome, _tried = at_once(
            lambda intent=intent: PaymentService.cancel_payment_intent(
                user=intent.user, intent_id=intent.pk
            ),
            lambda event=event: process(event),
        )
        assert isinstance(outcome, PaymentIntent | InvalidState)
        intent.refresh_from_db()
        assert intent.status == "succeeded"
        assert balance(intent.user) == PAID


def test_given_twin_cancels_when_at_once_then_one_wins():
    intent = PaymentIntentFactory()
    outcomes = at_once(
        *[lambda: PaymentService.cancel_payment_intent(user=intent.user, intent_id=intent.pk)] * 6
    )
    assert sum(isinstance(outcome, PaymentIntent) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, InvalidState) for outcome in outcomes) == 5


def test_given_expiry_and_success_when_at_once_then_the_money_counts():
    for _ in range(5):
        with override_settings(PAYMENT_INTENT_LIFETIME=timedelta(0)):
            intent = overdue_intent()
        event = deliver(event_body(intent))
        at_once(PaymentService.expire_payment_intents, lambda event=event: process(event))
        intent.refresh_from_db()
        assert intent.status == "succeeded"
        assert balance(intent.user) == PAID


def overdue_intent():
    from payments.tests.factories import _begin

    return _begin(UserFactory(kyc="approved"), PAID)
