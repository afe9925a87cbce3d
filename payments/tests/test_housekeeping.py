"""What beat starts: expiry, and emptying old payloads."""

from datetime import timedelta

import pytest
from django.test import override_settings

from payments import inbox, services
from payments.checks import payloads_outlive_the_gateways_retries
from payments.models import PaymentIntent, WebhookEvent
from payments.services import PaymentService
from payments.tasks import cleanup_old_webhook_events, expire_payment_intents
from payments.tests.factories import (
    PaymentIntentFactory,
    WebhookEventFactory,
    deliver,
    event_body,
    settle,
)
from payments.tests.helpers import credits_of
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db


class TestExpiry:
    def test_given_intents_when_their_time_is_over_then_only_unpaid_ones_expire(self):
        with override_settings(PAYMENT_INTENT_LIFETIME=timedelta(0)):
            states = ["requires_payment", "processing", "succeeded", "failed", "canceled"]
            overdue = [unexpired(state) for state in states]
        young = PaymentIntentFactory()
        expire_payment_intents()
        assert [PaymentIntent.objects.get(pk=i.pk).status for i in [*overdue, young]] == [
            "expired",
            "processing",
            "succeeded",
            "failed",
            "canceled",
            "requires_payment",
        ]

    def test_given_more_than_a_batch_when_expired_then_all_are(self, monkeypatch):
        monkeypatch.setattr(services, "EXPIRY_BATCH", 2)
        intents = [PaymentIntentFactory() for _ in range(5)]
        monkeypatch.setattr(services, "Now", lambda: intents[-1].expires_at)
        assert PaymentService.expire_payment_intents() == 5
        assert PaymentService.expire_payment_intents() == 0


def unexpired(status):
    """An intent whose time is over and which nobody has closed yet."""
    from payments.tests import factories

    intent = factories._begin(factories.UserFactory(kyc="approved"), 1)
    if status == "canceled":
        PaymentService.cancel_payment_intent(user=intent.user, intent_id=intent.pk)
    elif status != "requires_payment":
        settle(intent, status)
    return intent


class TestCleanup:
    STATES = ("received", "processed", "ignored", "parked")

    def test_given_old_events_when_cleaned_then_only_settled_payloads_go_and_rows_stay(self):
        events = {state: WebhookEventFactory(status=state) for state in self.STATES}
        with override_settings(WEBHOOK_RETENTION=timedelta(0)):
            cleanup_old_webhook_events()
        for state, event in events.items():
            event.refresh_from_db()
            is_emptied = state in ("processed", "ignored")
            assert (bytes(event.body) == b"") is is_emptied
            assert (event.payload_deleted_at is not None) is is_emptied
            assert (event.headers == {}) is is_emptied
            assert event.status == state
        assert not events["processed"].tries.exists()

    def test_given_young_events_when_cleaned_then_they_stay(self):
        event = WebhookEventFactory(status="processed")
        assert PaymentService.cleanup_old_webhook_events() == 0
        event.refresh_from_db()
        assert bytes(event.body)

    def test_given_an_emptied_event_when_delivered_again_then_it_is_still_known(self):
        intent = PaymentIntentFactory()
        body = event_body(intent)
        event = deliver(body, event_id="evt_1")
        PaymentService.process_payment_webhook(event.pk)
        with override_settings(WEBHOOK_RETENTION=timedelta(0)):
            assert PaymentService.cleanup_old_webhook_events() == 1
        assert deliver(body, event_id="evt_1") == event
        PaymentService.sweep_webhook_events()
        assert WebhookEvent.objects.count() == 1
        assert credits_of(intent.user) == 1

    def test_given_an_emptied_event_when_staff_ask_again_then_it_is_left_alone(self):
        event = WebhookEventFactory(status="ignored")
        with override_settings(WEBHOOK_RETENTION=timedelta(0)):
            PaymentService.cleanup_old_webhook_events()
        assert PaymentService.process_again([event.pk], by=StaffFactory()) == 0

    def test_given_more_than_a_batch_when_cleaned_then_in_small_batches(self, monkeypatch):
        monkeypatch.setattr(inbox, "BATCH", 2)
        for _ in range(5):
            WebhookEventFactory(status="ignored")
        with override_settings(WEBHOOK_RETENTION=timedelta(0)):
            assert PaymentService.cleanup_old_webhook_events() == 5
            assert PaymentService.cleanup_old_webhook_events() == 0

    def test_given_a_retention_within_the_gateways_retries_when_checked_then_an_error(self):
        assert payloads_outlive_the_gateways_retries() == []
        with override_settings(WEBHOOK_RETENTION=timedelta(days=7)):
            assert [found.id for found in payloads_outlive_the_gateways_retries()] == [
                "payments.E002"
            ]
