"""The Stripe adapter, against a server on a real socket that speaks Stripe's shape."""

import json
import logging
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import stripe as sdk
from django.db.models.functions import Now
from django.test import Client, override_settings

from payments.exceptions import (
    GatewayRefused,
    GatewayUnavailable,
    InvalidSignature,
    MalformedEvent,
)
from payments.gateways import stripe as adapter
from payments.gateways.base import NewIntent, NewPayout, NewRefund, Outcome, Statement, Subject
from payments.gateways.stripe import StripeGateway
from payments.gateways.stripe_amounts import NotRepresentable, to_major, to_minor
from payments.models import DepositRefund, PaymentIntent, WebhookEvent
from payments.refunds import RefundOrder
from payments.services import PaymentService
from payments.tests.helpers import INTENTS_URL, balance, code_of
from payments.tests.stripe_server import ACCOUNT, KEY, Refusal, StripeServer
from transactions.tests.helpers import client_of
from users.tests.factories import StaffFactory, UserFactory

SECRET, OLD_SECRET = "whsec_of_the_new_endpoint", "whsec_of_the_old_endpoint"
WEBHOOK_URL = "/api/v1/payments/webhooks/stripe/"
IBAN = "DE89370400440532013000"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(sdk.HTTPClient, "INITIAL_DELAY", 0.01)
    with (
        StripeServer() as running,
        override_settings(
            STRIPE_API_KEY=KEY,
            STRIPE_API_BASE=running.url,
            STRIPE_PAYOUT_ACCOUNT=ACCOUNT,
            STRIPE_WEBHOOK_SECRETS=[SECRET, OLD_SECRET],
        ),
    ):
        yield running


@pytest.fixture
def gateway(server):
    return StripeGateway.from_settings()


def new_intent(amount="12.34", currency="USD", key="payment_intent:1"):
    return NewIntent(id=uuid4(), amount=Decimal(amount), currency=currency, idempotency_key=key)


def new_payout(amount="12.34", currency="EUR", key="payout:1", iban=IBAN):
    return NewPayout(
        id=uuid4(), amount=Decimal(amount), currency=currency, idempotency_key=key,
        iban=iban, name="Alice Archer",
    )  # fmt: skip


def event(kind, found, event_id="evt_1"):
    """In Stripe's documented form."""
    return json.dumps(
        {
            "id": event_id, "object": "event", "api_version": adapter.API_VERSION,
            "created": 1795353600, "data": {"object": found}, "livemode": False,
            "pending_webhooks": 1, "request": {"id": None, "idempotency_key": None}, "type": kind,
        }
    ).encode()  # fmt: skip


def signed(body, secret=SECRET, at=None):
    return {
        "stripe-signature": sdk.WebhookSignature.generate_signature_header(
            body.decode(), secret, int(time.time() if at is None else at)
        )
    }


def read(kind, found):
    body = event(kind, found)
    return StripeGateway.from_settings().parse(headers=signed(body), body=body).statement


WRONG_ACCOUNT = Refusal(404, type="invalid_request_error", code="resource_missing")


class TestAmounts:
    @pytest.mark.parametrize(
        ("amount", "currency", "minor"),
        [
            ("12.34", "USD", 1234),
            ("0.01", "EUR", 1),
            ("9999999.99", "USD", 999999999),
            ("500", "JPY", 500),
            ("3.00", "MGA", 3),
            ("5.120", "KWD", 5120),
            ("0.010", "BHD", 10),
            ("5.00", "ISK", 500),
            ("7.00", "UGX", 700),
            ("10.45", "HUF", 1045),
        ],
    )
    def test_given_an_amount_when_converted_then_exactly_and_back(self, amount, currency, minor):
        assert to_minor(Decimal(amount), currency) == minor
        assert to_major(minor, currency) == Decimal(amount)

    @pytest.mark.parametrize(
        ("amount", "currency"),
        [
            ("12.345", "USD"),
            ("0.50", "JPY"),
            ("1.20", "MGA"),
            ("5.124", "KWD"),
            ("5.50", "ISK"),
            ("0", "USD"),
            ("-1", "USD"),
            ("NaN", "USD"),
            ("1E+20", "USD"),
        ],
    )
    def test_given_what_stripe_cannot_write_when_converted_then_refused(self, amount, currency):
        with pytest.raises(NotRepresentable):
            to_minor(Decimal(amount), currency)

    @pytest.mark.parametrize(("amount", "currency"), [("10.45", "HUF"), ("10.50", "TWD")])
    def test_given_a_payout_without_decimals_when_it_has_some_then_refused(self, amount, currency):
        with pytest.raises(NotRepresentable):
            to_minor(Decimal(amount), currency, paid_out=True)


class TestAsking:
    def test_given_an_intent_when_created_then_stripe_got_exactly_that(self, server, gateway):
        intent = new_intent("12.34")
        created = gateway.create(intent)
        (method, path, members, headers) = server.asked[0]
        assert (method, path) == ("POST", "/v1/payment_intents")
        assert members == {
            "amount": "1234",
            "currency": "usd",
            "automatic_payment_methods": {"enabled": "true"},
            "metadata": {"payment_intent_id": str(intent.id)},
        }
        assert headers["Idempotency-Key"] == "payment_intent:1"
        assert headers["Stripe-Version"] == adapter.API_VERSION
        assert created.gateway_reference.startswith("pi_")
        assert created.client_secret == f"{created.gateway_reference}_secret_abc"

    def test_given_the_same_key_when_created_twice_then_one_intent(self, server, gateway):
        intent = new_intent()
        assert gateway.create(intent) == gateway.create(intent)
        assert len(server.of_kind("payment_intent")) == 1

    @pytest.mark.parametrize("fault", ["reset", "reset after", Refusal(500, type="api_error")])
    def test_given_it_stumbles_once_when_created_then_retried_and_one(self, server, gateway, fault):
        server.misbehave = [fault]
        assert gateway.create(new_intent()).gateway_reference
        assert len(server.of_kind("payment_intent")) == 1

    @pytest.mark.parametrize(
        "fault",
        [
            "reset",
            Refusal(500, type="api_error", message="Down."),
            Refusal(503, type="api_error", message="Down."),
            Refusal(429, type="invalid_request_error", code="rate_limit", message="Slow down."),
            Refusal(400, type="invalid_request_error", code="lock_timeout", message="Locked."),
            Refusal(429, type="invalid_request_error", code="lock_timeout", message="Locked."),
            Refusal(409, type="idempotency_error", code="idempotency_key_in_use", message="Busy."),
            Refusal(401, type="invalid_request_error", message=f"Invalid API Key: {KEY}"),
            Refusal(403, type="invalid_request_error", message="No permission."),
        ],
    )
    def test_given_what_may_pass_when_asked_then_unavailable(self, server, gateway, fault, caplog):
        server.misbehave = [fault] * 2
        with pytest.raises(GatewayUnavailable), caplog.at_level(logging.DEBUG):
            gateway.create(new_intent())
        assert KEY not in str([vars(r) for r in caplog.records if r.name.startswith("payments")])

    def test_given_it_hangs_when_asked_then_unavailable_in_time(self, server, gateway, monkeypatch):
        monkeypatch.setattr(adapter, "READ_SECONDS", 0.3)
        server.misbehave = ["slow"] * 2
        begun = time.monotonic()
        with pytest.raises(GatewayUnavailable):
            gateway.create(new_intent())
        assert time.monotonic() - begun < 2

    def test_given_nobody_listens_when_asked_then_unavailable(self, server):
        with (
            override_settings(STRIPE_API_BASE="http://127.0.0.1:9"),
            pytest.raises(GatewayUnavailable),
        ):
            StripeGateway.from_settings().create(new_intent())

    def test_given_no_api_key_when_asked_then_unavailable_and_the_webhook_is_there(self, server):
        with override_settings(STRIPE_API_KEY=""):
            unconnected = StripeGateway.from_settings()
            with pytest.raises(GatewayUnavailable):
                unconnected.create(new_intent())
            body = event("payment_intent.created", {})
            unconnected.verify(headers=signed(body), body=body)

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (
                Refusal(400, type="invalid_request_error", code="amount_too_large"),
                "amount_too_large",
            ),
            (
                Refusal(402, type="card_error", code="card_declined", decline_code="lost_card"),
                "lost_card",
            ),
            (Refusal(400, type="invalid_request_error"), "invalid_request_error"),
        ],
    )
    def test_given_a_refusal_when_asked_then_its_word(self, server, gateway, fault, code):
        server.misbehave = [fault]
        with pytest.raises(GatewayRefused) as refusal:
            gateway.create(new_intent())
        assert refusal.value.failure_code == code
        assert len(server.asked) == 1

    def test_given_an_amount_it_cannot_write_when_asked_then_refused_unasked(self, server, gateway):
        with pytest.raises(GatewayRefused) as refusal:
            gateway.create(new_intent("1.20", "MGA"))
        assert refusal.value.failure_code == "amount_not_representable"
        assert server.asked == []


class TestPayouts:
    def test_given_an_iban_when_paid_out_then_to_it(self, server, gateway):
        payout = new_payout("50.00")
        reference = gateway.payout(payout)
        (made,) = server.of_kind("payout")
        (account,) = server.bank_accounts.values()
        assert made["id"] == reference
        assert (made["amount"], made["currency"]) == (5000, "eur")
        assert (made["destination"], account["last4"]) == (account["id"], "3000")
        assert server.posts("/v1/tokens")[0]["bank_account"]["country"] == "DE"

    def test_given_the_same_payout_when_tried_again_then_one(self, server, gateway):
        payout = new_payout()
        server.misbehave = [None, None, None, "reset after"]
        assert gateway.payout(payout) == gateway.payout(payout)
        assert len(server.of_kind("payout")) == 1

    def test_given_a_retry_after_the_keys_were_forgotten_then_still_one(self, server, gateway):
        payout = new_payout()
        first = gateway.payout(payout)
        for number in range(3):  # newer ones, over several pages
            gateway.payout(new_payout(key=f"other:{number}"))
        server.forget_keys()
        assert gateway.payout(payout) == first
        assert len(server.of_kind("payout")) == 4

    def test_given_the_iban_was_paid_before_when_paid_again_then_the_same_account(
        self, server, gateway
    ):
        gateway.payout(new_payout(key="1", iban="GB33BUKB20201555555555"))
        gateway.payout(new_payout(key="2", iban="FR1420041010050500013M02606"))
        gateway.payout(new_payout(key="3"))
        gateway.payout(new_payout(key="4"))
        destinations = [made["destination"] for made in server.of_kind("payout")]
        assert destinations[2] == destinations[3]
        assert len(set(destinations)) == 3

    def test_given_no_account_to_pay_from_when_paid_out_then_refused(self, server):
        with (
            override_settings(STRIPE_PAYOUT_ACCOUNT=""),
            pytest.raises(GatewayRefused) as refusal,
        ):
            StripeGateway.from_settings().payout(new_payout())
        assert refusal.value.failure_code == "payouts_not_configured"
        assert server.asked == []

    def test_given_an_error_that_quotes_the_iban_when_raised_then_it_is_not_told(
        self, server, gateway, caplog
    ):
        server.misbehave = [
            Refusal(400, type="invalid_request_error", code="account_number_invalid", message=IBAN)
        ]
        with pytest.raises(GatewayRefused) as refusal, caplog.at_level(logging.INFO):
            gateway.payout(new_payout())
        assert refusal.value.__cause__ is None
        assert IBAN not in str([vars(r) for r in caplog.records if r.name.startswith("payments")])


class TestRefunds:
    def test_given_a_paid_intent_when_refunded_then_in_part_and_once(self, server, gateway):
        paid = gateway.create(new_intent("20.00")).gateway_reference
        server.objects[paid] |= {"status": "succeeded", "amount_received": 2000}
        refund = NewRefund(
            id=uuid4(), intent_reference=paid, amount=Decimal("5.00"), currency="USD",
            idempotency_key="refund:1",
        )  # fmt: skip
        reference = gateway.refund(refund)
        server.forget_keys()
        assert gateway.refund(refund) == reference
        (made,) = server.of_kind("refund")
        assert (made["amount"], made["payment_intent"]) == (500, paid)

    def test_given_nothing_left_when_refunded_then_its_word(self, server, gateway):
        unpaid = gateway.create(new_intent("20.00")).gateway_reference
        refund = NewRefund(
            id=uuid4(), intent_reference=unpaid, amount=Decimal("5.00"), currency="USD",
            idempotency_key="refund:1",
        )  # fmt: skip
        with pytest.raises(GatewayRefused) as refusal:
            gateway.refund(refund)
        assert refusal.value.failure_code == "charge_already_refunded"


class TestFetching:
    @pytest.mark.parametrize(
        ("state", "outcome", "amount", "why"),
        [
            ({"status": "succeeded", "amount_received": 1200}, Outcome.SUCCEEDED, "12.00", ""),
            (
                {"status": "canceled", "cancellation_reason": "abandoned"},
                Outcome.CANCELED,
                "12.34",
                "abandoned",
            ),
            ({"status": "processing"}, None, "", ""),
            ({"status": "requires_action"}, None, "", ""),
            ({}, None, "", ""),
        ],
    )
    def test_given_an_intent_when_asked_then_what_became_of_it(
        self, server, gateway, state, outcome, amount, why
    ):
        reference = gateway.create(new_intent("12.34")).gateway_reference
        server.objects[reference] |= state
        expected = outcome and Statement(
            Subject.INTENT, outcome, reference, Decimal(amount), "USD", why
        )
        assert gateway.fetch(Subject.INTENT, reference) == expected

    @pytest.mark.parametrize(
        ("state", "outcome", "why"),
        [
            ({"status": "paid"}, Outcome.PAID, ""),
            (
                {"status": "failed", "failure_code": "account_closed"},
                Outcome.FAILED,
                "account_closed",
            ),
            ({"status": "canceled"}, Outcome.FAILED, "canceled"),
            ({"status": "in_transit"}, None, ""),
        ],
    )
    def test_given_a_payout_when_asked_then_what_became_of_it(
        self, server, gateway, state, outcome, why
    ):
        reference = gateway.payout(new_payout("12.34"))
        server.objects[reference] |= state
        expected = outcome and Statement(
            Subject.PAYOUT, outcome, reference, Decimal("12.34"), "EUR", why
        )
        assert gateway.fetch(Subject.PAYOUT, reference) == expected

    def test_given_what_it_does_not_know_when_asked_then_nothing(self, gateway):
        assert gateway.fetch(Subject.REFUND, "re_of_nobody") is None

    def test_given_it_is_down_when_asked_then_unavailable(self, server, gateway):
        server.misbehave = ["reset"] * 2
        with pytest.raises(GatewayUnavailable):
            gateway.fetch(Subject.INTENT, "pi_1")


class TestReport:
    def test_given_a_day_when_reported_then_its_orders_and_no_others(self, server, gateway):
        noon = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())
        midnight = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp())

        def charge(number, **more):
            return {
                "id": f"ch_{number}", "object": "charge", "amount": 1000 + number,
                "currency": "usd", "payment_intent": f"pi_{number}", "status": "succeeded",
            } | more  # fmt: skip

        for number in range(5):
            server.book("charge", charge(number), noon + number)
        server.book("charge", charge(8, payment_intent=None), noon)
        server.book("charge", charge(9), midnight)
        refund = {"id": "re_1", "object": "refund", "amount": 300, "currency": "usd"}
        server.book("refund", refund | {"status": "succeeded"}, noon)
        server.book("refund", refund | {"id": "re_2", "status": "failed"}, noon)
        payout = {"id": "po_1", "object": "payout", "amount": 700, "currency": "jpy"}
        server.book("payout", payout | {"status": "paid"}, noon)
        lines = list(gateway.report(date(2026, 11, 20)))
        assert [(line.gateway_reference, line.amount, line.currency) for line in lines] == [
            *((f"pi_{number}", Decimal(1000 + number) / 100, "USD") for number in range(5)),
            ("re_1", Decimal("3.00"), "USD"),
            ("po_1", Decimal("700"), "JPY"),
        ]
        assert lines[0].at == datetime(2026, 11, 20, 12, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("kind", "open_until", "settled"),
        [("payout", "in_transit", "paid"), ("refund", "pending", "succeeded")],
    )
    def test_given_an_order_under_way_when_it_settles_then_its_line_is_on_the_day_of_the_order(
        self, server, gateway, kind, open_until, settled
    ):
        day = date(2026, 11, 20)
        noon = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())
        order = {"id": "or_1", "object": kind, "amount": 700, "currency": "eur"}
        order["status"] = open_until
        server.book(kind, order, noon)
        assert list(gateway.report(day)) == []
        order["status"] = settled
        assert [line.gateway_reference for line in gateway.report(day)] == ["or_1"]
        assert list(gateway.report(day + timedelta(days=3))) == []
        order["status"] = "failed"
        assert list(gateway.report(day)) == []
        assert gateway.settles_within_days == 7

    def test_given_it_breaks_off_when_reported_then_unavailable(self, server, gateway):
        for number in range(3):
            charge = {"object": "charge", "amount": 100, "currency": "usd", "id": "ch",
                      "payment_intent": f"pi_{number}", "status": "succeeded"}  # fmt: skip
            server.book("charge", charge, int(time.time()))
        server.misbehave = [None, "reset", "reset"]
        with pytest.raises(GatewayUnavailable):
            list(gateway.report(datetime.now(tz=UTC).date()))


@pytest.mark.usefixtures("server")
class TestSignature:
    body = event("payment_intent.succeeded", {})

    @pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
    def test_given_either_secret_when_verified_then_accepted(self, secret):
        StripeGateway.from_settings().verify(headers=signed(self.body, secret), body=self.body)

    def test_given_signatures_with_both_secrets_when_one_is_known_then_accepted(self):
        now = int(time.time())
        old, new = (signed(self.body, s, now)["stripe-signature"] for s in ("whsec_x", SECRET))
        both = {"stripe-signature": f"{old},{new.partition(',')[2]},v0=abc"}
        StripeGateway.from_settings().verify(headers=both, body=self.body)

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "t=1,v1=a",
            "v1=abc",
            "t=nan,v1=abc",
            "t=1e9,v1=abc",
            "t={now}",
            "t={now},v1=",
            "t={now},v1=é",
            "=,=,=",
            "t=" + "9" * 5000 + ",v1=a",
        ],
    )
    def test_given_a_hostile_header_when_verified_then_refused(self, header):
        header = header.format(now=int(time.time()))
        with pytest.raises(InvalidSignature):
            StripeGateway.from_settings().verify(
                headers={"stripe-signature": header}, body=self.body
            )

    @pytest.mark.parametrize("age", [301, -302])
    def test_given_another_time_when_verified_then_refused(self, age):
        with pytest.raises(InvalidSignature):
            StripeGateway.from_settings().verify(
                headers=signed(self.body, at=time.time() - age), body=self.body
            )

    @pytest.mark.parametrize("age", [290, -290])
    def test_given_almost_another_time_when_verified_then_accepted(self, age):
        headers = signed(self.body, at=time.time() - age)
        StripeGateway.from_settings().verify(headers=headers, body=self.body)

    def test_given_one_byte_more_or_another_secret_when_verified_then_refused(self):
        for body, headers in [
            (self.body + b" ", signed(self.body)),
            (self.body, signed(self.body, "whsec_of_somebody_else")),
        ]:
            with pytest.raises(InvalidSignature):
                StripeGateway.from_settings().verify(headers=headers, body=body)


@pytest.mark.usefixtures("server")
class TestReading:
    intent = {
        "id": "pi_1", "object": "payment_intent", "amount": 1234, "amount_received": 1200,
        "currency": "usd", "status": "requires_payment_method",
        "last_payment_error": {"code": "card_declined", "decline_code": "lost_card"},
    }  # fmt: skip

    @pytest.mark.parametrize(
        ("kind", "outcome", "amount", "why"),
        [
            ("processing", Outcome.PROCESSING, "12.34", ""),
            ("succeeded", Outcome.SUCCEEDED, "12.00", ""),
            ("payment_failed", Outcome.FAILED, "12.34", "lost_card"),
            ("canceled", Outcome.CANCELED, "12.34", "lost_card"),
        ],
    )
    def test_given_an_event_of_an_intent_when_read_then_what_it_says(
        self, kind, outcome, amount, why
    ):
        assert read(f"payment_intent.{kind}", self.intent) == Statement(
            Subject.INTENT, outcome, "pi_1", Decimal(amount), "USD", why
        )

    @pytest.mark.parametrize(
        ("kind", "more", "outcome", "why"),
        [
            ("payout.paid", {"status": "paid"}, Outcome.PAID, ""),
            ("payout.failed", {"failure_code": "no_account"}, Outcome.FAILED, "no_account"),
            ("payout.canceled", {"status": "canceled"}, Outcome.FAILED, "canceled"),
        ],
    )
    def test_given_an_event_of_a_payout_when_read_then_what_it_says(self, kind, more, outcome, why):
        found = {"id": "po_1", "object": "payout", "amount": 5000, "currency": "eur"} | more
        assert read(kind, found) == Statement(
            Subject.PAYOUT, outcome, "po_1", Decimal("50.00"), "EUR", why
        )

    @pytest.mark.parametrize(
        ("kind", "status", "outcome"),
        [
            ("refund.created", "succeeded", Outcome.SUCCEEDED),
            ("refund.updated", "succeeded", Outcome.SUCCEEDED),
            ("charge.refund.updated", "succeeded", Outcome.SUCCEEDED),
            ("refund.updated", "failed", Outcome.FAILED),
            ("refund.failed", "failed", Outcome.FAILED),
            ("refund.updated", "canceled", Outcome.FAILED),
            ("refund.updated", "pending", None),
            ("refund.created", "requires_action", None),
        ],
    )
    def test_given_an_event_of_a_refund_when_read_then_what_its_status_says(
        self, kind, status, outcome
    ):
        found = {
            "id": "re_1",
            "object": "refund",
            "amount": 500,
            "currency": "usd",
            "status": status,
        }
        said = read(kind, found)
        assert (said and (said.subject, said.outcome, said.amount)) == (
            outcome and (Subject.REFUND, outcome, Decimal("5.00"))
        )

    def test_given_a_type_without_meaning_when_read_then_an_event_that_says_nothing(self):
        assert read("customer.created", {"id": "cus_1"}) is None

    @pytest.mark.parametrize(
        "body",
        [
            b"\xff\xfe",
            b"[]",
            b"{}",
            b'{"id": "evt_1", "id": "evt_2", "type": "payment_intent.succeeded"}',
            b'{"a":' * 5000 + b"1" + b"}" * 5000,
            event("payment_intent.succeeded", []),
            event("payment_intent.succeeded", {}),
            event("payment_intent.succeeded", {**intent, "amount_received": 0}),
            event("payment_intent.succeeded", {**intent, "amount_received": -5}),
            event("payment_intent.succeeded", {**intent, "amount_received": True}),
            event("payment_intent.succeeded", {**intent, "amount_received": "1200"}),
            event("payment_intent.succeeded", {**intent, "amount_received": 12.5}),
            event("payment_intent.succeeded", {**intent, "amount_received": 10**40}),
            event("payment_intent.succeeded", {**intent, "currency": "USD"}),
            event("payment_intent.succeeded", {**intent, "id": ""}),
            event("payment_intent.succeeded", {**intent, "id": None}),
            event("payment_intent.succeeded", intent, event_id="a\nb"),
            event("payment_intent.succeeded", intent, event_id="e" * 256),
            event("e" * 101, intent),
        ],
    )
    def test_given_signed_garbage_when_read_then_malformed(self, body):
        with pytest.raises(MalformedEvent):
            StripeGateway.from_settings().parse(headers={}, body=body)


@pytest.mark.django_db
class TestWholePath:
    """Over our own HTTP: an intent, Stripe's events about it, the money."""

    def begin(self, payer, amount="12.34"):
        return client_of(payer).post(
            INTENTS_URL, {"amount": amount, "gateway": "stripe"}, headers={"Idempotency-Key": "k"}
        )

    def deliver(self, body, headers=None):
        return Client().post(
            WEBHOOK_URL, body, content_type="application/json", headers=headers or signed(body)
        )

    def test_given_events_in_any_order_when_handled_then_credited_once(self, server):
        alice = UserFactory(kyc="approved")
        made = self.begin(alice).json()
        found = server.objects[made["gateway_reference"]]
        assert made["client_secret"] == found["client_secret"]
        assert found["metadata"] == {"payment_intent_id": made["id"]}
        found["amount_received"] = 1234
        for number, kind in enumerate(["payment_failed", "succeeded", "processing", "succeeded"]):
            body = event(f"payment_intent.{kind}", found, event_id=f"evt_{number}")
            assert self.deliver(body).json() == {"received": True}
            PaymentService.sweep_webhook_events()
        assert PaymentIntent.objects.get().status == "succeeded"
        assert balance(alice) == Decimal("12.34")

    def test_given_less_arrived_than_ordered_when_handled_then_parked(self, server):
        alice = UserFactory(kyc="approved")
        found = server.objects[self.begin(alice).json()["gateway_reference"]]
        self.deliver(event("payment_intent.succeeded", found | {"amount_received": 1233}))
        PaymentService.sweep_webhook_events()
        assert (WebhookEvent.objects.get().status, balance(alice)) == ("parked", 0)

    def test_given_signed_bytes_that_are_no_text_when_delivered_then_malformed(self, server):
        import hashlib
        import hmac

        body, now = b"\xff\xfe", int(time.time())
        mark = hmac.new(SECRET.encode(), b"%d." % now + body, hashlib.sha256).hexdigest()
        response = self.deliver(body, {"Stripe-Signature": f"t={now},v1={mark}"})
        assert code_of(response) == (400, "malformed_event")
        assert not WebhookEvent.objects.exists()

    def test_given_no_secret_when_delivered_then_404(self, server):
        with override_settings(STRIPE_WEBHOOK_SECRETS=[]):
            response = self.deliver(event("payment_intent.succeeded", {}))
        assert code_of(response) == (404, "not_found")

    def test_given_it_is_down_when_ordered_then_503_and_a_retry_goes_on_with_it(self, server):
        alice = UserFactory(kyc="approved")
        server.misbehave = ["reset after", "reset"]
        assert code_of(self.begin(alice)) == (503, "service_unavailable")
        response = self.begin(alice)
        assert response.status_code == 201
        assert PaymentIntent.objects.count() == 1
        assert len(server.of_kind("payment_intent")) == 1

    def test_given_it_refuses_when_ordered_then_422_for_ever_and_the_intent_failed(self, server):
        alice = UserFactory(kyc="approved")
        first = self.begin(alice, "0.10")
        assert code_of(first) == (422, "limit_exceeded")
        assert "amount_too_small" in first.json()["detail"]
        second = self.begin(alice, "0.10")
        assert second.headers["Idempotent-Replayed"] == "true"
        assert second.json() == first.json()
        assert PaymentIntent.objects.get().status == "failed"
        assert len(server.asked) == 1

    def order_refund(self, server, alice):
        found = server.objects[self.begin(alice).json()["gateway_reference"]]
        found |= {"status": "succeeded", "amount_received": 1234}
        self.deliver(event("payment_intent.succeeded", found))
        PaymentService.sweep_webhook_events()
        asked = RefundOrder(
            intent_id=PaymentIntent.objects.get().pk, amount=None, reason="Paid twice."
        )
        return PaymentService.order_refund(
            staff=StaffFactory(permissions=["payments.refund_deposit"]), asked=asked
        )

    def test_given_a_list_that_is_refused_when_refunding_then_that_says_nothing_of_the_order(
        self, server
    ):
        alice = UserFactory(kyc="approved")
        refund = self.order_refund(server, alice)
        server.misbehave = [WRONG_ACCOUNT]
        PaymentService.send_refund(refund.pk)
        refund.refresh_from_db()
        assert (refund.status, balance(alice)) == ("pending", 0)
        DepositRefund.objects.update(next_attempt_at=Now())
        PaymentService.sweep_refunds()
        refund.refresh_from_db()
        assert refund.gateway_reference == server.of_kind("refund")[0]["id"]

    def test_given_a_refund_it_took_unheard_when_it_refuses_later_then_no_money_back(self, server):
        alice = UserFactory(kyc="approved")
        refund = self.order_refund(server, alice)
        server.misbehave = [None, "reset after", "reset after"]  # looked for, taken, unheard
        PaymentService.send_refund(refund.pk)
        assert len(server.of_kind("refund")) == 1
        DepositRefund.objects.update(next_attempt_at=Now())
        server.misbehave = [WRONG_ACCOUNT]
        PaymentService.sweep_refunds()
        refund.refresh_from_db()
        assert (refund.status, balance(alice)) == ("pending", 0)
        DepositRefund.objects.update(next_attempt_at=Now())
        PaymentService.sweep_refunds()
        refund.refresh_from_db()
        assert refund.gateway_reference == server.of_kind("refund")[0]["id"]
