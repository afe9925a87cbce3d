"""The inbox as staff see it: what was sent, what became of it, and once more."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from payments.models import WebhookEvent
from payments.services import PaymentService
from payments.tests.factories import (
    PaymentIntentFactory,
    WebhookEventFactory,
    deliver,
    event_body,
)
from payments.tests.helpers import balance, credits_of
from users.models import User
from users.tests.factories import StaffFactory, UserFactory

pytestmark = pytest.mark.django_db

EVENTS = "/admin/payments/webhookevent/"
OPERATOR = ["payments.view_webhookevent", "payments.view_webhookattempt", "payments.process_again"]


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page_of(event: WebhookEvent, word: str = "change") -> str:
    return f"{EVENTS}{event.pk}/{word}/"


def text_of(response: Any) -> str:
    return response.content.decode()


@pytest.fixture
def operator() -> User:
    return StaffFactory(permissions=OPERATOR)


@pytest.fixture
def orphan() -> tuple[Any, WebhookEvent]:
    """An intent, and its event that was tried before the intent had its reference: ignored."""
    intent = PaymentIntentFactory()
    event = deliver(event_body(intent))
    WebhookEvent.objects.filter(pk=event.pk).update(status="parked", next_attempt_at=None)
    event.refresh_from_db()
    return intent, event


def select(*events: WebhookEvent) -> dict[str, Any]:
    return {
        "action": "process_selected_again",
        "_selected_action": [str(event.pk) for event in events],
    }


class TestAnEvent:
    def test_given_a_parked_event_when_shown_then_payload_attempts_and_reason_are_readable(
        self, operator
    ):
        event = WebhookEventFactory(status="parked")
        page = text_of(client_of(operator).get(page_of(event)))
        assert "&quot;amount&quot;: &quot;1.23&quot;" in page
        assert "The event says 1.23 USD, the intent 100.00 USD." in page
        assert "webhook-signature" in page

    def test_given_a_processed_event_when_shown_then_its_effect_is_a_link(self, operator):
        event = WebhookEventFactory(status="processed")
        page = text_of(client_of(operator).get(page_of(event)))
        assert f"/admin/transactions/transaction/{event.intent.transaction_id}/change/" in page
        assert page_of(event, "process-again") not in page

    def test_given_markup_in_a_payload_when_shown_then_it_is_text(self, operator):
        event = deliver(event_body(None, note="</pre><script>alert(1)</script>"))
        page = text_of(client_of(operator).get(page_of(event)))
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page

    def test_given_many_payloads_when_listing_then_none_is_read(
        self, operator, django_assert_max_num_queries
    ):
        for _ in range(3):
            deliver(event_body())
        client = client_of(operator)
        with django_assert_max_num_queries(15) as queries:
            client.get(EVENTS)
        assert not any('"body"' in query["sql"] for query in queries.captured_queries)


class TestProcessAgain:
    def test_given_a_get_then_only_asked(self, operator, orphan):
        _intent, event = orphan
        assert client_of(operator).get(page_of(event, "process-again")).status_code == 200
        event.refresh_from_db()
        assert event.status == "parked"

    def test_given_a_parked_event_when_processed_again_twice_then_credited_once(
        self, operator, orphan
    ):
        intent, event = orphan
        client = client_of(operator)
        for _ in range(2):
            response = client.post(page_of(event, "process-again"), follow=True)
            assert "It will be processed again." in text_of(response)
        PaymentService.process_payment_webhook(event.pk)
        PaymentService.process_payment_webhook(event.pk)
        response = client.post(page_of(event, "process-again"), follow=True)
        assert "It is processed already, or its payload is gone." in text_of(response)
        assert credits_of(intent.user) == 1
        assert balance(intent.user) == intent.amount
        event.refresh_from_db()
        assert (event.status, event.requested_by) == ("processed", operator)
        assert event.tries.get().requested_by == operator
        assert LogEntry.objects.filter(user=operator, object_id=str(event.pk)).count() == 2

    def test_given_many_when_chosen_in_the_list_then_the_open_ones_are_processed_again(
        self, operator, orphan
    ):
        _intent, event = orphan
        done = WebhookEventFactory(status="processed")
        response = client_of(operator).post(EVENTS, select(event, done), follow=True)
        assert "1 of 2 will be processed again." in text_of(response)
        event.refresh_from_db()
        done.refresh_from_db()
        assert (event.status, done.status) == ("received", "processed")

    def test_given_select_across_when_forged_then_at_most_a_page_is_taken(self, operator, orphan):
        form = select(orphan[1]) | {"select_across": "1"}
        assert client_of(operator).post(EVENTS, form).status_code == 302

    def test_given_no_permission_then_refused_in_both_places(self, orphan):
        _intent, event = orphan
        client = client_of(StaffFactory(permissions=OPERATOR[:2]))
        assert client.post(page_of(event, "process-again")).status_code == 403
        assert page_of(event, "process-again") not in text_of(client.get(page_of(event)))
        client.post(EVENTS, select(event))
        event.refresh_from_db()
        assert event.status == "parked"


class TestIntents:
    def test_given_an_intent_when_shown_then_without_the_clients_secret(self):
        intent = PaymentIntentFactory(status="succeeded")
        root = UserFactory(is_staff=True, is_superuser=True)
        page = text_of(client_of(root).get(f"/admin/payments/paymentintent/{intent.pk}/change/"))
        assert intent.gateway_reference in page
        assert intent.client_secret not in page
        assert intent.transaction.reference_id in page
