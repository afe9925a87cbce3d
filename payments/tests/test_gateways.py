"""Which gateways there are, and that a new one is one module and one settings line."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client, override_settings

from payments import gateways
from payments.checks import sandbox_has_a_secret, stripe_is_the_real_one, stripe_is_whole
from payments.exceptions import NotFound
from payments.gateways.base import Gateway, NewIntent, NewPayout, Subject
from payments.gateways.sandbox import SandboxGateway
from payments.models import PaymentIntent, WebhookEvent
from payments.services import PaymentService
from payments.tests import other_gateway
from payments.tests.factories import PaymentIntentFactory, event_body, signed
from payments.tests.helpers import INTENTS_URL, balance, code_of
from payments.tests.other_gateway import REMOTE, OtherGateway, signature
from transactions.tests.helpers import client_of
from users.tests.factories import UserFactory

BOTH = {**settings.PAYMENT_GATEWAYS, "other": "payments.tests.other_gateway.OtherGateway"}
OTHER_URL = "/api/v1/payments/webhooks/other/"


def deliver_other(**facts):
    body = json.dumps({"id": "1", "kind": "charge.ok", "currency": "usd"} | facts).encode()
    return Client().post(
        OTHER_URL, body, content_type="application/json",
        headers={"Other-Signature": signature(body)},
    )  # fmt: skip


@pytest.fixture
def both():
    with override_settings(PAYMENT_GATEWAYS=BOTH):
        yield


@pytest.mark.django_db
@pytest.mark.usefixtures("both")
class TestSecondGateway:
    def test_given_it_is_configured_when_money_comes_through_it_then_it_is_credited(self):
        alice = UserFactory(kyc="approved")
        made = client_of(alice).post(
            INTENTS_URL, {"amount": "12.34", "gateway": "other"}, headers={"Idempotency-Key": "k"}
        ).json()  # fmt: skip
        assert (made["gateway"], made["checkout_url"]) == ("other", "https://pay.example.com/ch")
        response = deliver_other(order=made["gateway_reference"], cents=1234)
        assert response.json() == {"received": True}
        PaymentService.sweep_webhook_events()
        assert PaymentIntent.objects.get().status == "succeeded"
        assert balance(alice) == Decimal("12.34")

    def test_given_the_same_event_id_when_from_two_gateways_then_they_are_two_events(self):
        body = event_body()
        PaymentService.receive_webhook(
            gateway="sandbox", headers=signed(body, event_id="1"), body=body
        )
        deliver_other(order="ch_x", cents=1)
        assert WebhookEvent.objects.count() == 2

    def test_given_a_reference_of_the_sandbox_when_it_reports_then_parked(self):
        intent = PaymentIntentFactory()
        deliver_other(order=intent.gateway_reference, cents=10000)
        PaymentService.sweep_webhook_events()
        event = WebhookEvent.objects.get()
        assert (event.status, balance(intent.user)) == ("parked", 0)
        assert "sandbox" in event.last_error

    def test_given_its_intent_when_simulated_then_409(self):
        alice = UserFactory()
        made = client_of(alice).post(
            INTENTS_URL, {"amount": "1.00", "gateway": "other"}, headers={"Idempotency-Key": "k"}
        ).json()  # fmt: skip
        response = client_of(alice).post(
            f"{INTENTS_URL}{made['id']}/simulate/", {"outcome": "succeeded"}
        )
        assert code_of(response) == (409, "invalid_state")

    def test_given_the_sandbox_is_off_when_called_then_the_other_works_alone(self):
        with override_settings(PAYMENTS_SANDBOX=False):
            assert list(gateways.available()) == ["other"]
            alice = UserFactory()
            client = client_of(alice)
            key = {"Idempotency-Key": "k"}
            response = client.post(INTENTS_URL, {"amount": "1.00"}, headers=key)
            assert code_of(response) == (400, "validation_error")  # the default is not there
            body = {"amount": "1.00", "gateway": "sandbox"}
            response = client.post(INTENTS_URL, body, headers=key)
            assert code_of(response) == (400, "validation_error")
            body = {"amount": "1.00", "gateway": "other"}
            assert client.post(INTENTS_URL, body, headers=key).status_code == 201
            intent = PaymentIntent.objects.get()
            response = client.post(f"{INTENTS_URL}{intent.pk}/simulate/", {"outcome": "failed"})
            assert code_of(response) == (404, "not_found")


class TestThirdGateway:
    """The whole protocol, without anything but its module."""

    def test_given_orders_when_settled_then_fetched_and_reported(self):
        gateway: Gateway = OtherGateway()
        payout = NewPayout(
            id=uuid4(), amount=Decimal("5.00"), currency="USD", idempotency_key="k",
            iban="DE89370400440532013000", name="Alice Archer",
        )  # fmt: skip
        reference = gateway.payout(payout)
        assert gateway.payout(payout) == reference
        assert gateway.fetch(Subject.PAYOUT, reference) is None
        REMOTE[reference].word, REMOTE[reference].at = "transfer.ok", datetime.now(tz=UTC)
        said = gateway.fetch(Subject.PAYOUT, reference)
        assert (said.outcome, said.amount, said.currency) == ("paid", Decimal("5.00"), "USD")
        lines = list(gateway.report(datetime.now(tz=UTC).date()))
        assert (Subject.PAYOUT, reference) in [(x.subject, x.gateway_reference) for x in lines]

    def test_given_the_document_when_read_then_it_shows_this_module(self):
        shown = (Path(settings.BASE_DIR) / "ARCHITECTURE.md").read_text()
        module = Path(other_gateway.__file__).read_text()
        assert f"```python\n{module}```" in shown


@pytest.mark.django_db
def test_given_the_same_key_when_the_sandbox_is_asked_then_the_same_answer():
    gateway = SandboxGateway.from_settings()
    asked = NewIntent(id=uuid4(), amount=Decimal("1.00"), currency="USD", idempotency_key="k")
    assert gateway.create(asked) == gateway.create(asked)


@pytest.mark.parametrize("sandbox", [True, False])
def test_given_a_name_nobody_has_when_asked_then_not_found(sandbox):
    with override_settings(PAYMENTS_SANDBOX=sandbox):
        assert gateways.default_gateway() == ("sandbox" if sandbox else "stripe")
        with pytest.raises(NotFound):
            gateways.gateway_named("stripe")


def test_given_half_of_stripe_when_checked_then_a_warning():
    assert stripe_is_whole() == []
    with override_settings(STRIPE_API_KEY="sk_test_x"):
        assert [message.id for message in stripe_is_whole()] == ["payments.W002"]
    with override_settings(STRIPE_WEBHOOK_SECRETS=["whsec_of_an_endpoint"]):
        assert [message.id for message in stripe_is_whole()] == ["payments.W003"]
    with override_settings(
        STRIPE_API_KEY="sk_test_x", STRIPE_WEBHOOK_SECRETS=["whsec_of_an_endpoint"]
    ):
        assert stripe_is_whole() == []


def test_given_another_server_for_stripe_when_deploying_then_an_error():
    assert stripe_is_the_real_one() == []
    with override_settings(STRIPE_API_BASE="http://127.0.0.1:9"):
        assert [message.id for message in stripe_is_the_real_one()] == ["payments.E001"]


def test_given_a_sandbox_without_a_secret_when_checked_then_a_warning():
    assert sandbox_has_a_secret() == []
    with override_settings(SANDBOX_WEBHOOK_SECRETS=[]):
        assert [message.id for message in sandbox_has_a_secret()] == ["payments.W001"]
    with override_settings(SANDBOX_WEBHOOK_SECRETS=[], PAYMENTS_SANDBOX=False):
        assert sandbox_has_a_secret() == []
