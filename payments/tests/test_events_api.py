"""The staff's view of the inbox."""

import pytest

from payments.tests.factories import WebhookEventFactory
from payments.tests.helpers import code_of
from transactions.tests.helpers import client_of
from users.tests.factories import StaffFactory, UserFactory

pytestmark = pytest.mark.django_db

URL = "/api/v1/payments/webhook-events/"


def test_given_staff_when_listed_then_events_without_their_payload():
    first, parked = WebhookEventFactory(), WebhookEventFactory(status="parked")
    client = client_of(StaffFactory(permissions=["payments.view_webhookevent"]))
    found = client.get(URL).json()["results"]
    assert [item["id"] for item in found] == [str(parked.pk), str(first.pk)]
    assert set(found[0]) == {
        "id", "gateway", "event_id", "event_type", "gateway_reference", "status", "attempts",
        "next_attempt_at", "last_error", "intent_id", "payout_id", "refund_id", "received_at",
        "processed_at",
    }  # fmt: skip
    assert client.get(URL, {"status": "parked"}).json()["results"] == [found[0]]
    assert client.get(f"{URL}{parked.pk}/").json() == found[0]


def test_given_anyone_else_when_listed_then_403_whether_it_exists_or_not(client):
    event = WebhookEventFactory()
    for user in (UserFactory(kyc="approved"), StaffFactory()):
        for path in ("", f"{event.pk}/", f"{event.intent_id or user.pk}/"):
            assert code_of(client_of(user).get(URL + path)) == (403, "permission_denied")
    assert code_of(client.get(URL)) == (401, "not_authenticated")
