"""Ordering money: the calls under `/payments/intents/`, and each of their refusals."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.test import override_settings
from rest_framework.test import APIClient

from fintech_core import idempotency
from fintech_core.models import IdempotencyRecord
from payments.exceptions import GatewayUnavailable
from payments.gateways.sandbox import SandboxGateway
from payments.models import PaymentIntent, WebhookEvent
from payments.services import PaymentService
from payments.tests.factories import PaymentIntentFactory, event_body, settle, signed
from payments.tests.helpers import INTENTS_URL, balance, code_of, credits_of, post_webhook
from transactions.tests.helpers import at_once, breaches, client_of, close, freeze, fund
from users.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

FIELDS = {
    "id",
    "status",
    "amount",
    "currency",
    "gateway",
    "gateway_reference",
    "client_secret",
    "checkout_url",
    "transaction_id",
    "expires_at",
    "created_at",
}


@pytest.fixture
def alice():
    return UserFactory(kyc="approved")


def create(user, body=None, *, key=None, **headers):
    given = {"amount": "100.00"} if body is None else body
    return client_of(user).post(INTENTS_URL, given, headers={"Idempotency-Key": key or uuid4().hex})


def intent_url(intent, step=""):
    return f"{INTENTS_URL}{intent.pk}/{step}"


class TestCreate:
    def test_given_an_amount_when_created_then_the_defaults_are_filled_in(self, alice):
        response = create(alice)
        assert response.status_code == 201
        assert response["Content-Type"] == "application/json"
        made = response.json()
        assert set(made) == FIELDS
        assert made["status"] == "requires_payment"
        assert (made["amount"], made["currency"], made["gateway"]) == ("100.00", "USD", "sandbox")
        assert made["gateway_reference"].startswith("sbx_")
        assert made["client_secret"]
        assert made["transaction_id"] is None
        page = f"http://testserver/sandbox/checkout/{made['gateway_reference']}/"
        assert made["checkout_url"].startswith(page)
        assert made["expires_at"].endswith("Z")
        intent = PaymentIntent.objects.get()
        assert intent.expires_at - intent.created_at == timedelta(hours=24)
        assert (intent.user, intent.wallet) == (alice, alice.wallet)
        assert balance(alice) == 0

    def test_given_nobody_when_created_then_401_comes_before_400(self):
        response = APIClient().post(INTENTS_URL, {"amount": "x"})
        assert code_of(response) == (401, "not_authenticated")
        assert "WWW-Authenticate" in response

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "amount"),
            ({"amount": "0.00"}, "amount"),
            ({"amount": "NaN"}, "amount"),
            ({"amount": "1e3"}, "amount"),
            ({"amount": "1.001"}, "amount"),
            ({"amount": None}, "amount"),
            ({"amount": "1.00", "currency": "JPY"}, "currency"),
            ({"amount": "1.00", "currency": None}, "currency"),
            ({"amount": "1.00", "gateway": "stripe"}, "gateway"),
            ({"amount": "1.00", "gateway": ""}, "gateway"),
            ({"amount": "1.00", "gateway": None}, "gateway"),
            ({"amount": "1.00", "gateway": ["sandbox"]}, "gateway"),
            ({"amount": "1.00", "gateway": "x\u0000"}, "gateway"),
        ],
    )
    def test_given_a_bad_field_when_created_then_it_is_named(self, alice, body, field):
        response = create(alice, body)
        assert code_of(response) == (400, "validation_error")
        assert [error["field"] for error in response.json()["errors"]] == [field]
        assert not PaymentIntent.objects.exists()

    @pytest.mark.parametrize(
        "field", ["status", "user", "wallet", "transaction", "gateway_reference", "client_secret",
                  "expires_at", "id"],
    )  # fmt: skip
    def test_given_a_field_of_ours_when_created_then_mass_assignment_is_refused(self, alice, field):
        response = create(alice, {"amount": "1.00", field: "succeeded"})
        assert code_of(response) == (400, "validation_error")
        assert response.json()["errors"][0]["field"] == field

    @pytest.mark.parametrize("body", [[], "x", 1])
    def test_given_no_object_when_created_then_400(self, alice, body):
        assert code_of(create(alice, body)) == (400, "validation_error")

    def test_given_a_key_that_is_none_when_created_then_400(self, alice):
        client = client_of(alice)
        body = {"amount": "1.00"}
        assert code_of(client.post(INTENTS_URL, body)) == (400, "idempotency_key_required")
        response = client.post(INTENTS_URL, body, headers={"Idempotency-Key": "x" * 256})
        assert code_of(response) == (400, "idempotency_key_invalid")

    def test_given_another_currency_when_created_then_422_and_remembered(self, alice):
        body = {"amount": "1.00", "currency": "EUR"}
        first = create(alice, body, key="k")
        assert code_of(first) == (422, "currency_mismatch")
        again = create(alice, body, key="k")
        assert again.content == first.content
        assert again["Idempotent-Replayed"] == "true"
        assert not PaymentIntent.objects.exists()

    def test_given_currency_and_limit_both_apply_when_created_then_the_currency_is_named(
        self, alice
    ):
        response = create(alice, {"amount": "999999999.00", "currency": "EUR"})
        assert code_of(response) == (422, "currency_mismatch")

    def test_given_an_approved_user_when_the_cap_would_be_passed_then_422(self, alice):
        fund(alice, "99900.00")
        assert create(alice, {"amount": "100.00"}).status_code == 201
        assert code_of(create(alice, {"amount": "100.01"})) == (422, "limit_exceeded")

    def test_given_an_unverified_user_when_the_cap_would_be_passed_then_422(self):
        newcomer = UserFactory()
        assert create(newcomer, {"amount": "1000.00"}).status_code == 201
        assert code_of(create(newcomer, {"amount": "1000.01"})) == (422, "limit_exceeded")

    def test_given_a_frozen_wallet_when_created_then_it_may_still_be_filled(self, alice):
        freeze(alice)
        assert create(alice).status_code == 201

    def test_given_a_closed_wallet_when_created_then_422(self, alice):
        close(alice)
        assert code_of(create(alice)) == (422, "wallet_frozen")

    @override_settings(RATE_LIMIT_PAYMENT="2/m")
    def test_given_too_many_calls_when_created_then_429(self, alice):
        assert [create(alice).status_code for _ in range(2)] == [201, 201]
        response = create(alice)
        assert code_of(response) == (429, "rate_limited")
        assert int(response["Retry-After"]) > 0


class TestIdempotency:
    def test_given_an_answer_when_asked_again_then_it_is_the_same_to_the_byte(self, alice):
        first = create(alice, key="k")
        settle(PaymentIntent.objects.get())  # the intent has moved on; the answer has not
        again = create(alice, key="k")
        assert (again.status_code, again.content) == (201, first.content)
        assert "Idempotent-Replayed" not in first
        assert again["Idempotent-Replayed"] == "true"
        assert PaymentIntent.objects.count() == 1

    @pytest.mark.parametrize(
        "body",
        [
            {"amount": "100"},
            {"amount": 100},
            {"amount": "100.0", "currency": "USD"},
            {"amount": "100.00", "gateway": "sandbox", "currency": "USD"},
        ],
    )
    def test_given_the_same_request_in_other_words_when_asked_then_it_is_replayed(
        self, alice, body
    ):
        first = create(alice, key="k")
        again = create(alice, body, key='"k"')
        assert again.content == first.content

    def test_given_another_body_when_the_key_is_used_again_then_422(self, alice):
        create(alice, key="k")
        response = create(alice, {"amount": "100.01"}, key="k")
        assert code_of(response) == (422, "idempotency_key_reused")
        assert PaymentIntent.objects.count() == 1

    def test_given_another_user_when_the_key_is_used_then_it_is_theirs(self, alice):
        assert create(alice, key="k").json()["id"] != create(UserFactory(), key="k").json()["id"]

    def test_given_the_gateway_is_away_when_asked_then_503_and_the_retry_goes_on(
        self, alice, monkeypatch
    ):
        keys = []

        def away(gateway, intent):
            keys.append(intent.idempotency_key)
            raise GatewayUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(SandboxGateway, "create", away)
            response = create(alice, key="k")
        assert code_of(response) == (503, "service_unavailable")
        intent = PaymentIntent.objects.get()
        assert intent.gateway_reference is None
        resumed = create(alice, key="k")  # as the 503 said: nobody is busy with it
        assert resumed.status_code == 201
        assert resumed.json()["id"] == str(intent.pk)
        assert keys == [f"payment_intent:{intent.pk}"]
        assert PaymentIntent.objects.count() == 1

    def test_given_a_crash_while_the_gateway_was_asked_when_retried_soon_then_409(
        self, alice, monkeypatch
    ):
        with monkeypatch.context() as patch:
            patch.setattr(idempotency.IdempotentCall, "finish", lambda *_: 1 / 0)
            create_quietly(alice)
        assert code_of(create(alice, key="k")) == (409, "idempotency_in_progress")

    def test_given_a_crash_after_the_gateway_answered_when_retried_then_one_reference(
        self, alice, monkeypatch
    ):
        monkeypatch.setattr(idempotency, "LEASE", timedelta(0))
        with monkeypatch.context() as patch:
            patch.setattr(idempotency.IdempotentCall, "finish", lambda *_: 1 / 0)
            create_quietly(alice)
        assert IdempotencyRecord.objects.get().response_status is None
        first, again = create(alice, key="k"), create(alice, key="k")
        assert first.content == again.content
        assert PaymentIntent.objects.count() == 1

    @pytest.mark.django_db(transaction=True)
    def test_given_simultaneous_duplicates_when_created_then_one_intent(self, alice):
        answers = at_once(*[lambda: create(alice, key="k")] * 8)
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert any(answer.status_code == 201 for answer in answers)
        assert len({a.content for a in answers if a.status_code == 201}) == 1
        for answer in answers:
            if answer.status_code == 409:
                assert code_of(answer) == (409, "idempotency_in_progress")
                assert answer["Retry-After"] == "1"
        assert PaymentIntent.objects.count() == 1


def create_quietly(user):
    client = client_of(user)
    client.raise_request_exception = False
    client.post(INTENTS_URL, {"amount": "100.00"}, headers={"Idempotency-Key": "k"})


class TestRead:
    def test_given_intents_when_listed_then_ones_own_newest_first(self, alice):
        PaymentIntentFactory()
        mine = [PaymentIntentFactory(user=alice) for _ in range(3)]
        page = client_of(alice).get(INTENTS_URL, {"page_size": 2}).json()
        assert [item["id"] for item in page["results"]] == [str(i.pk) for i in mine[:0:-1]]
        rest = client_of(alice).get(page["next"]).json()
        assert [item["id"] for item in rest["results"]] == [str(mine[0].pk)]
        assert (rest["next"], page["previous"]) == (None, None)

    def test_given_a_status_when_listed_then_only_those(self, alice):
        PaymentIntentFactory(user=alice)
        canceled = PaymentIntentFactory(user=alice, status="canceled")
        client = client_of(alice)
        found = client.get(INTENTS_URL, {"status": "canceled"}).json()["results"]
        assert [item["id"] for item in found] == [str(canceled.pk)]
        assert code_of(client.get(INTENTS_URL, {"status": "x"})) == (400, "validation_error")

    def test_given_ones_own_when_read_then_200_and_its_credit(self, alice):
        intent = PaymentIntentFactory(user=alice, status="succeeded")
        response = client_of(alice).get(intent_url(intent))
        assert response.status_code == 200
        assert set(response.json()) == FIELDS
        assert response.json()["status"] == "succeeded"
        assert response.json()["transaction_id"] == str(intent.transaction_id)

    def test_given_another_persons_when_touched_then_it_does_not_exist(self, alice):
        intent = PaymentIntentFactory()
        client = client_of(alice)
        body = {"outcome": "succeeded"}
        for response in (
            client.get(intent_url(intent)),
            client.post(intent_url(intent, "cancel/")),
            client.post(intent_url(intent, "simulate/"), body),
        ):
            assert code_of(response) == (404, "not_found")
        intent.refresh_from_db()
        assert intent.status == "requires_payment"
        assert not WebhookEvent.objects.exists()

    def test_given_no_uuid_when_read_then_404(self, alice):
        assert code_of(client_of(alice).get(f"{INTENTS_URL}1/")) == (404, "not_found")

    @pytest.mark.parametrize("method", ["put", "patch", "delete"])
    def test_given_an_intent_when_changed_otherwise_then_405(self, alice, method):
        intent = PaymentIntentFactory(user=alice)
        response = getattr(client_of(alice), method)(intent_url(intent), {"status": "succeeded"})
        assert code_of(response) == (405, "method_not_allowed")


class TestCancel:
    def test_given_an_unpaid_intent_when_cancelled_then_once(self, alice):
        intent = PaymentIntentFactory(user=alice)
        client = client_of(alice)
        response = client.post(intent_url(intent, "cancel/"))
        assert (response.status_code, response.json()["status"]) == (200, "canceled")
        assert code_of(client.post(intent_url(intent, "cancel/"))) == (409, "invalid_state")

    @pytest.mark.parametrize("status", ["processing", "succeeded", "failed", "expired"])
    def test_given_it_moved_on_when_cancelled_then_409(self, alice, status):
        intent = PaymentIntentFactory(user=alice, status=status)
        response = client_of(alice).post(intent_url(intent, "cancel/"))
        assert code_of(response) == (409, "invalid_state")
        intent.refresh_from_db()
        assert intent.status == status

    def test_given_a_body_when_cancelled_then_unknown_fields_are_refused(self, alice):
        intent = PaymentIntentFactory(user=alice)
        response = client_of(alice).post(intent_url(intent, "cancel/"), {"status": "succeeded"})
        assert code_of(response) == (400, "validation_error")


class TestSimulate:
    @pytest.mark.parametrize("outcome", ["succeeded", "failed"])
    def test_given_an_outcome_when_simulated_then_a_signed_event_arrives(self, alice, outcome):
        intent = PaymentIntentFactory(user=alice)
        response = client_of(alice).post(intent_url(intent, "simulate/"), {"outcome": outcome})
        assert (response.status_code, response.json()["status"]) == (202, "requires_payment")
        event = WebhookEvent.objects.get()
        assert event.event_type == f"payment_intent.{outcome}"
        # It would pass as a delivery over HTTP: the same bytes, the same signature.
        again = post_webhook(bytes(event.body), event.headers)
        assert (again.status_code, WebhookEvent.objects.count()) == (200, 1)
        PaymentService.process_payment_webhook(event.pk)
        intent.refresh_from_db()
        assert intent.status == outcome
        assert balance(alice) == (Decimal("100.00") if outcome == "succeeded" else 0)

    @pytest.mark.django_db(transaction=True)
    def test_given_success_twice_when_simulated_then_one_credit(self, alice):
        intent = PaymentIntentFactory(user=alice)
        for _ in range(2):
            PaymentService.simulate_payment_success(user=alice, intent_id=intent.pk)
        assert PaymentService.sweep_webhook_events() == 2
        assert (balance(alice), credits_of(alice)) == (Decimal("100.00"), 1)
        assert breaches() == []

    @pytest.mark.parametrize(
        "body", [{}, {"outcome": "canceled"}, {"outcome": None}, {"outcome": "succeeded", "x": 1}]
    )
    def test_given_a_bad_body_when_simulated_then_400(self, alice, body):
        intent = PaymentIntentFactory(user=alice)
        response = client_of(alice).post(intent_url(intent, "simulate/"), body)
        assert code_of(response) == (400, "validation_error")


class TestSandboxOff:
    """It mints money: where it is off, nothing of it exists."""

    @pytest.mark.parametrize(
        "off", [{"PAYMENTS_SANDBOX": False}, {"SANDBOX_WEBHOOK_SECRETS": []}], ids=str
    )
    def test_given_the_sandbox_is_off_when_anything_is_called_then_404(self, alice, off):
        intent = PaymentIntentFactory(user=alice)
        body = event_body(intent)
        headers = signed(body)
        client = client_of(alice)
        with override_settings(**off):
            for response in (
                create(alice),
                client.get(INTENTS_URL),
                client.get(intent_url(intent)),
                client.post(intent_url(intent, "cancel/")),
                client.post(intent_url(intent, "simulate/"), {"outcome": "succeeded"}),
                post_webhook(body, headers),
            ):
                assert code_of(response) == (404, "not_found")
            assert code_of(APIClient().get(INTENTS_URL)) == (401, "not_authenticated")
        assert not WebhookEvent.objects.exists()
        assert PaymentIntent.objects.count() == 1

    def test_given_it_was_switched_off_when_a_stored_event_is_handled_then_it_is_parked(
        self, alice
    ):
        intent = PaymentIntentFactory(user=alice)
        with override_settings(PAYMENTS_SANDBOX=True):
            PaymentService.simulate_payment_success(user=alice, intent_id=intent.pk)
        event = WebhookEvent.objects.get()
        with override_settings(PAYMENTS_SANDBOX=False):
            PaymentService.process_payment_webhook(event.pk)
        event.refresh_from_db()
        assert event.status == "parked"
        assert balance(alice) == 0
