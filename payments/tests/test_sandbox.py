"""The sandbox as a company of its own: its books, its pages, and the events that it delivers."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client, override_settings

from payments.exceptions import GatewayRefused
from payments.gateways.base import NewIntent, NewPayout, NewRefund, Outcome, Statement, Subject
from payments.gateways.sandbox import SandboxGateway
from payments.models import PaymentIntent, SandboxDelivery, SandboxOrder, WebhookEvent
from payments.models.sandbox import ATTEMPTS_MAX
from payments.sandbox import delivery, orders, scenarios
from payments.services import PaymentService
from payments.tests.factories import PaymentIntentFactory, settle
from payments.tests.helpers import INTENTS_URL, balance
from transactions.tests.helpers import breaches, client_of, refused_by
from users.tests.factories import StaffFactory, UserFactory


def sandbox():
    return SandboxGateway.from_settings()


def new_payout(amount="25.00", key="payout:1"):
    return NewPayout(
        id=uuid4(),
        amount=Decimal(amount),
        currency="USD",
        idempotency_key=key,
        iban="DE89370400440532013000",
        name="Alice Archer",
    )


def new_refund(intent, amount="5.00", key="refund:1"):
    return NewRefund(
        id=uuid4(),
        intent_reference=intent.gateway_reference,
        amount=Decimal(amount),
        currency="USD",
        idempotency_key=key,
    )


def order_of(intent):
    return SandboxOrder.objects.get(reference=intent.gateway_reference)


def page_of(order):
    return orders.page_url(order.subject, order.reference).removeprefix("http://testserver")


def pick(order, name, **how):
    return Client(**how).post(page_of(order), {"scenario": name})


def let_time_pass():
    """Whatever is late is due now."""
    waiting = SandboxDelivery.objects.filter(status="waiting").order_by("pk")
    for number, each in enumerate(waiting):
        due = datetime.now(tz=UTC) - timedelta(seconds=60 - number)
        SandboxDelivery.objects.filter(pk=each.pk).update(next_attempt_at=due)


def deliver_all():
    """Everything is delivered, in order, and handled before the next comes."""
    while delivery.deliver_due(seconds_max=0.001):
        PaymentService.sweep_webhook_events()
    PaymentService.sweep_webhook_events()


@pytest.fixture
def web(live_server, settings):
    """Our own web server, at another address than the public one, as in containers."""
    settings.SANDBOX_DELIVERY_BASE_URL = live_server.url
    return live_server


@pytest.mark.django_db
class TestBooks:
    def test_given_the_same_key_when_asked_twice_then_one_order(self):
        payout = new_payout()
        assert sandbox().payout(payout) == sandbox().payout(payout)
        order = SandboxOrder.objects.get()
        assert (order.subject, order.amount, order.status) == ("payout", 25, "open")

    def test_given_the_same_key_when_another_amount_is_asked_then_refused(self):
        sandbox().payout(new_payout("25.00"))
        with pytest.raises(GatewayRefused):
            sandbox().payout(new_payout("26.00"))
        assert SandboxOrder.objects.get().amount == 25

    def test_given_an_open_order_when_fetched_then_nothing_yet(self):
        intent = PaymentIntentFactory()
        assert sandbox().fetch(Subject.INTENT, intent.gateway_reference) is None
        assert sandbox().fetch(Subject.PAYOUT, intent.gateway_reference) is None
        assert sandbox().fetch(Subject.INTENT, "sbx_unknown") is None

    @pytest.mark.parametrize(
        ("name", "outcome", "amount"),
        [
            ("succeeded", Outcome.SUCCEEDED, "100.00"),
            ("silent", Outcome.SUCCEEDED, "100.00"),
            ("late", Outcome.SUCCEEDED, "100.00"),
            ("wrong_amount", Outcome.SUCCEEDED, "99.99"),
            ("failed", Outcome.FAILED, "100.00"),
        ],
    )
    def test_given_a_decision_when_fetched_then_the_same_as_its_events_say(
        self, name, outcome, amount
    ):
        intent = PaymentIntentFactory(amount="100.00")
        scenarios.play(order_of(intent), name)
        said = sandbox().fetch(Subject.INTENT, intent.gateway_reference)
        why = "sandbox_failed" if outcome == Outcome.FAILED else ""
        assert said == Statement(
            Subject.INTENT, outcome, intent.gateway_reference, Decimal(amount), "USD", why
        )

    def test_given_a_simulated_payment_when_fetched_then_it_succeeded(self):
        intent = PaymentIntentFactory()
        PaymentService.simulate_payment_success(user=intent.user, intent_id=intent.pk)
        assert sandbox().fetch(Subject.INTENT, intent.gateway_reference).outcome == "succeeded"

    def test_given_an_event_that_somebody_else_signed_when_handled_then_accepted(self):
        intent = PaymentIntentFactory()
        assert settle(intent).status == "processed"
        assert order_of(intent).status == "open"

    def test_given_a_day_when_reported_then_what_moved_on_it(self):
        paid, failed, _unpaid = PaymentIntentFactory.create_batch(3)
        scenarios.play(order_of(paid), "wrong_amount")
        scenarios.play(order_of(failed), "failed")
        payout = orders.find(Subject.PAYOUT, sandbox().payout(new_payout()))
        scenarios.play(payout, "paid")
        refund = orders.find(Subject.REFUND, sandbox().refund(new_refund(paid)))
        scenarios.play(refund, "succeeded")
        today = datetime.now(tz=UTC).date()
        lines = [
            (line.subject, line.gateway_reference, line.amount) for line in sandbox().report(today)
        ]
        assert lines == [
            (Subject.INTENT, paid.gateway_reference, Decimal("99.99")),
            (Subject.PAYOUT, payout.reference, Decimal("25.00")),
            (Subject.REFUND, refund.reference, Decimal("5.00")),
        ]
        assert list(sandbox().report(today - timedelta(days=1))) == []

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"amount": "1.00"}, "payments_sandboxorder_is_frozen"),
            ({"reference": "sbx_other"}, "payments_sandboxorder_is_frozen"),
            (
                {"status": "open", "settled_at": None, "settled_amount": None},
                "payments_sandboxorder_settled_is_final",
            ),
            ({"settled_amount": "1.00"}, "payments_sandboxorder_settled_is_final"),
            ({"status": "paid"}, "payments_sandboxorder_settled_is_final"),
        ],
    )
    def test_given_money_that_moved_when_rewritten_then_postgresql_refuses(self, change, rule):
        order = order_of(PaymentIntentFactory())
        scenarios.play(order, "succeeded")
        with refused_by(rule):
            SandboxOrder.objects.filter(pk=order.pk).update(**change)

    def test_given_a_payout_when_it_is_said_to_have_succeeded_then_postgresql_refuses(self):
        reference = sandbox().payout(new_payout())
        with refused_by("payments_sandboxorder_status_of_its_subject"):
            SandboxOrder.objects.filter(reference=reference).update(
                status="succeeded", settled_at=Now(), settled_amount=1
            )


@pytest.mark.django_db(transaction=True)
class TestOwnTransaction:
    def test_given_an_open_transaction_of_ours_when_asked_then_it_will_not(self):
        with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
            sandbox().payout(new_payout())

    def test_given_the_same_order_at_once_when_placed_then_one(self):
        intent = NewIntent(id=uuid4(), amount=Decimal(5), currency="USD", idempotency_key="k")

        def ask(_):
            try:
                return sandbox().create(intent)
            finally:
                connection.close()

        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(ask, range(12)))) == 1
        assert SandboxOrder.objects.count() == 1


@pytest.mark.django_db
class TestPages:
    def test_given_an_intent_when_its_checkout_is_opened_then_what_can_be_done(self):
        alice = UserFactory(kyc="approved")
        made = client_of(alice).post(
            INTENTS_URL, {"amount": "12.34"}, headers={"Idempotency-Key": "k"}
        ).json()  # fmt: skip
        response = Client().get(made["checkout_url"].removeprefix("http://testserver"))
        page = response.content.decode()
        assert response.status_code == 200
        assert "12.34 USD" in page
        assert made["gateway_reference"] in page
        assert made["client_secret"] not in page
        for name in scenarios.SCENARIOS["payment_intent"]:
            assert f'value="{name}"' in page
        assert "script" not in page
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "no-store" in response["Cache-Control"]

    def test_given_a_payout_and_a_refund_when_opened_then_their_own_choices(self):
        refund = sandbox().refund(new_refund(PaymentIntentFactory()))
        for subject, reference in [("payout", sandbox().payout(new_payout())), ("refund", refund)]:
            page = Client().get(page_of(orders.find(subject, reference))).content.decode()
            assert "processing" not in page
            assert ('value="paid"' in page) is (subject == "payout")

    def test_given_a_guessed_or_borrowed_address_when_opened_then_404(self):
        intents = PaymentIntentFactory.create_batch(2)
        mine, yours = (page_of(order_of(intent)) for intent in intents)
        payout = page_of(orders.find("payout", sandbox().payout(new_payout())))
        token = yours.split("/")[-2]
        for path in [
            mine.replace(mine.split("/")[-2], token),
            mine.replace(mine.split("/")[-2], "x"),
            mine.replace("checkout", "payouts"),
            payout.replace("payouts", "checkout"),
            payout.replace("payouts", "elsewhere"),
            mine.replace("sbx_", "sbx_0"),
        ]:
            assert Client().get(path).status_code == 404
            assert Client().post(path, {"scenario": "succeeded"}).status_code == 404
        assert not SandboxDelivery.objects.exists()

    def test_given_no_sandbox_when_a_page_is_opened_then_404(self):
        path = page_of(order_of(PaymentIntentFactory()))
        for off in [{"PAYMENTS_SANDBOX": False}, {"SANDBOX_WEBHOOK_SECRETS": []}]:
            with override_settings(**off):
                for response in (
                    Client().get(path),
                    Client().post(path, {"scenario": "succeeded"}),
                    Client().put(path),
                ):
                    assert response.status_code == 404
                    assert response.json()["code"] == "not_found"
        assert not SandboxDelivery.objects.exists()

    def test_given_no_sandbox_when_events_wait_then_none_is_sent(self):
        pick(order_of(PaymentIntentFactory()), "succeeded")
        with override_settings(PAYMENTS_SANDBOX=False):
            assert delivery.deliver_due() == 0

    def test_given_no_csrf_token_when_posted_then_refused(self):
        order = order_of(PaymentIntentFactory())
        strict = Client(enforce_csrf_checks=True)
        assert strict.post(page_of(order), {"scenario": "succeeded"}).status_code == 403
        page = strict.get(page_of(order)).content.decode()
        token = page.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
        body = {"scenario": "succeeded", "csrfmiddlewaretoken": token}
        response = strict.post(page_of(order), body)
        assert (response.status_code, response["Location"]) == (302, page_of(order))

    @pytest.mark.parametrize("body", [{}, {"scenario": "paid"}, {"scenario": "\x00"}])
    def test_given_a_choice_there_is_not_when_posted_then_said_and_nothing_done(self, body):
        order = order_of(PaymentIntentFactory())
        response = Client().post(page_of(order), body)
        assert response.status_code == 400
        assert "Choose one of the buttons." in response.content.decode()
        assert not SandboxDelivery.objects.exists()

    def test_given_another_method_when_called_then_a_405_problem(self):
        response = Client().put(page_of(order_of(PaymentIntentFactory())))
        assert (response.status_code, response["Allow"]) == (405, "GET, HEAD, POST")

    def test_given_many_events_when_more_are_wished_then_refused(self):
        order = order_of(PaymentIntentFactory())
        for _ in range(scenarios.DELIVERIES_MAX):
            pick(order, "failed")
        response = pick(order, "twice")
        assert response.status_code == 409
        assert SandboxDelivery.objects.count() == scenarios.DELIVERIES_MAX
        assert order_of(PaymentIntent.objects.get()).status == "failed"  # not half done

    def test_given_a_hostile_reference_when_shown_then_escaped(self):
        order = orders.place(
            subject="refund", reference="sbx_1", amount=Decimal(1), currency="USD",
            intent_reference="<b>sbx</b>",
        )  # fmt: skip
        assert "<b>" not in Client().get(page_of(order)).content.decode()


@pytest.mark.django_db
class TestAdmin:
    LIST = "/admin/payments/sandboxorder/"

    @pytest.fixture
    def staff(self):
        client = Client()
        client.force_login(StaffFactory(permissions=["payments.view_sandboxorder"]))
        return client

    def test_given_a_payout_when_staff_look_for_it_then_its_page_is_linked(self, staff):
        order = orders.find("payout", sandbox().payout(new_payout()))
        scenarios.play(order, "twice")
        for path in (f"{self.LIST}?q={order.reference}", f"{self.LIST}{order.pk}/change/"):
            page = staff.get(path).content.decode()
            assert orders.page_url("payout", order.reference) in page
        assert staff.post(f"{self.LIST}{order.pk}/change/", {"status": "failed"}).status_code == 403

    def test_given_no_sandbox_when_staff_look_then_403_and_no_entry(self, staff):
        with override_settings(PAYMENTS_SANDBOX=False):
            assert staff.get(self.LIST).status_code == 403
            assert self.LIST not in staff.get("/admin/").content.decode()
        assert self.LIST in staff.get("/admin/").content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("web")
class TestDelivered:
    """Signed, over HTTP, to our own endpoint, and what it does to the money."""

    @pytest.mark.parametrize(
        ("name", "status", "credited", "events"),
        [
            ("succeeded", "succeeded", "100.00", ["processed"]),
            ("failed", "failed", "0", ["processed"]),
            ("late", "succeeded", "100.00", ["processed"]),
            ("twice", "succeeded", "100.00", ["processed"]),
            ("out_of_order", "succeeded", "100.00", ["processed", "processed"]),
            ("wrong_amount", "requires_payment", "0", ["parked"]),
            ("processing", "processing", "0", ["processed"]),
            ("silent", "requires_payment", "0", []),
        ],
    )
    def test_given_a_choice_when_delivered_then_its_effect(self, name, status, credited, events):
        intent = PaymentIntentFactory(amount="100.00")
        assert pick(order_of(intent), name).status_code == 302
        let_time_pass()
        deliver_all()
        intent.refresh_from_db()
        assert (intent.status, balance(intent.user)) == (status, Decimal(credited))
        assert [event.status for event in WebhookEvent.objects.order_by("pk")] == events
        delivered = SandboxDelivery.objects.order_by("pk")
        assert {each.answer_status for each in delivered} <= {200}
        assert len(delivered) == {"twice": 2, "out_of_order": 2, "silent": 0}.get(name, 1)
        assert breaches() == []

    def test_given_it_comes_after_the_expiry_when_delivered_then_still_credited(self):
        intent = PaymentIntentFactory(status="expired")
        with override_settings(PAYMENT_INTENT_LIFETIME=timedelta(0)):
            pick(order_of(intent), "expired")
        due = SandboxDelivery.objects.get().next_attempt_at
        assert due > intent.expires_at + timedelta(seconds=100)
        assert delivery.deliver_due() == 0
        let_time_pass()
        deliver_all()
        intent.refresh_from_db()
        assert (intent.status, balance(intent.user)) == ("succeeded", intent.amount)

    def test_given_what_was_sent_when_the_page_is_opened_then_it_tells(self):
        order = order_of(PaymentIntentFactory())
        pick(order, "wrong_amount")
        deliver_all()
        page = Client().get(page_of(order)).content.decode()
        assert "200 <code>{&quot;received&quot;:true}</code>" in page
        assert "Parked" in page
        assert "payment_intent.succeeded" in page

    def test_given_it_is_late_when_not_due_then_not_sent(self):
        pick(order_of(PaymentIntentFactory()), "late")
        made = SandboxDelivery.objects.get()
        assert made.next_attempt_at - made.created_at > timedelta(seconds=15)
        assert delivery.deliver(made.pk) is None
        assert delivery.deliver_due() == 0

    def test_given_a_task_that_runs_twice_at_once_when_delivered_then_once(self):
        pick(order_of(PaymentIntentFactory()), "succeeded")
        made = SandboxDelivery.objects.get()

        def run(_):
            try:
                return delivery.deliver(made.pk)
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as pool:
            answers = [answer for answer in pool.map(run, range(8)) if answer]
        assert [answer.status for answer in answers] == [200]

    def test_given_a_payout_when_delivered_then_stored_and_nothing_of_ours_breaks(self):
        order = orders.find("payout", sandbox().payout(new_payout()))
        pick(order, "out_of_order")
        let_time_pass()
        deliver_all()
        types = [event.event_type for event in WebhookEvent.objects.order_by("pk")]
        assert types == ["payout.paid", "payout.failed"]


@pytest.mark.django_db(transaction=True)
class TestNotReached:
    def test_given_nobody_listens_when_delivered_then_tried_again_and_given_up(self, settings):
        settings.SANDBOX_DELIVERY_BASE_URL = "http://127.0.0.1:9"
        pick(order_of(PaymentIntentFactory()), "succeeded")
        for number in range(1, ATTEMPTS_MAX + 1):
            assert SandboxDelivery.objects.get().status == "waiting"
            let_time_pass()
            assert delivery.deliver_due() == 1
            assert delivery.deliver_due() == 0  # not at once again
            assert SandboxDelivery.objects.get().attempts == number
        made = SandboxDelivery.objects.get()
        assert (made.status, made.answer_status) == ("given_up", None)
        assert "Not reached" in made.answer

    def test_given_a_refusal_when_delivered_then_its_answer_is_kept(self, live_server, settings):
        settings.SANDBOX_DELIVERY_BASE_URL = f"{live_server.url}/nowhere"
        pick(order_of(PaymentIntentFactory()), "succeeded")
        delivery.deliver_due()
        made = SandboxDelivery.objects.get()
        assert (made.status, made.answer_status) == ("waiting", 404)
        assert "not_found" in made.answer

    def test_given_redis_is_down_when_picked_then_the_sweeper_finds_it(self, monkeypatch):
        from payments.tasks import deliver_sandbox_event

        def refuse(*_, **__):
            raise ConnectionError

        monkeypatch.setattr(deliver_sandbox_event, "apply_async", refuse)
        assert pick(order_of(PaymentIntentFactory()), "succeeded").status_code == 302
        assert SandboxDelivery.objects.filter(status="waiting").count() == 1
