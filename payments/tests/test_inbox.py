"""From a stored event to exactly one effect, in whatever order and however often it comes."""

from decimal import Decimal

import pytest
from django.test import override_settings

from payments import inbox
from payments.models import PaymentIntent, SuspendedDeposit, WebhookAttempt, WebhookEvent
from payments.services import PaymentService
from payments.tests.factories import (
    PaymentIntentFactory,
    WebhookEventFactory,
    deliver,
    event_body,
    settle,
    signed,
)
from payments.tests.helpers import balance, credits_of, make_due, post_webhook
from transactions.services import TransactionService
from transactions.tests.helpers import breaches, close, freeze, fund
from users.tests.factories import StaffFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

PAID = Decimal("100.00")


def outcomes_of(event):
    return list(event.tries.order_by("number").values_list("outcome", flat=True))


@pytest.fixture
def intent():
    return PaymentIntentFactory()


class TestSuccess:
    def test_given_success_when_processed_then_event_intent_and_money_agree(self, intent):
        event = settle(intent)
        assert (event.status, event.attempts, event.last_error) == ("processed", 1, "")
        assert event.processed_at is not None
        assert event.intent_id == intent.pk
        assert outcomes_of(event) == ["processed"]
        assert intent.status == "succeeded"
        assert intent.transaction.effect_key == f"payment_intent:{intent.pk}"
        assert (intent.transaction.type, intent.transaction.amount) == ("deposit", PAID)
        assert balance(intent.user) == PAID
        assert breaches() == []

    def test_given_the_same_event_again_when_delivered_then_200_and_nothing_more(self, intent):
        body = event_body(intent)
        headers = signed(body)
        for _ in range(3):
            assert post_webhook(body, headers).json() == {"received": True}
            PaymentService.sweep_webhook_events()
        assert WebhookEvent.objects.count() == 1
        assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)

    def test_given_the_same_id_with_other_bytes_when_delivered_then_the_first_stands(self, intent):
        first = event_body(intent, "failed")
        deliver(first, event_id="evt_1")
        deliver(event_body(intent, "succeeded"), event_id="evt_1")
        event = WebhookEvent.objects.get()
        assert bytes(event.body) == first

    def test_given_two_success_events_when_processed_then_one_credit(self, intent):
        first, second = settle(intent), settle(intent)
        assert (first.status, second.status) == ("processed", "processed")
        assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)

    def test_given_a_processed_event_when_its_task_runs_again_then_nothing(self, intent):
        event = settle(intent)
        assert PaymentService.process_payment_webhook(event.pk) is None
        assert outcomes_of(event) == ["processed"]

    def test_given_a_frozen_wallet_when_money_arrived_then_it_is_credited(self, intent):
        freeze(intent.user)
        settle(intent)
        assert balance(intent.user) == PAID

    def test_given_the_cap_was_reached_meanwhile_when_money_arrived_then_it_is_credited(self):
        newcomer = UserFactory()
        intent = PaymentIntentFactory(user=newcomer, amount="1000.00")
        fund(newcomer, "900.00")
        settle(intent)
        assert balance(newcomer) == Decimal("1900.00")


class TestOrder:
    @pytest.mark.parametrize("late", ["processing", "failed", "canceled"])
    def test_given_success_when_other_news_come_late_then_it_stays(self, intent, late):
        settle(intent, "succeeded")
        event = settle(intent, late)
        assert (event.status, intent.status) == ("processed", "succeeded")
        assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)

    @pytest.mark.parametrize("before", ["processing", "failed", "canceled", "expired"])
    def test_given_any_other_state_when_success_comes_late_then_it_is_credited(self, before):
        intent = PaymentIntentFactory(status=before)
        assert intent.status == before
        settle(intent)
        assert intent.status == "succeeded"
        assert balance(intent.user) == PAID
        assert breaches() == []

    @pytest.mark.parametrize(
        ("before", "news", "after"),
        [
            ("requires_payment", "processing", "processing"),
            ("requires_payment", "failed", "failed"),
            ("requires_payment", "canceled", "canceled"),
            ("processing", "failed", "failed"),
            ("processing", "canceled", "canceled"),
            ("processing", "processing", "processing"),
            ("failed", "processing", "failed"),
            ("failed", "canceled", "failed"),
            ("canceled", "failed", "canceled"),
            ("canceled", "processing", "canceled"),
            ("expired", "processing", "expired"),
            ("expired", "failed", "expired"),
        ],
    )
    def test_given_a_state_when_news_come_then_it_only_moves_forward(self, before, news, after):
        intent = PaymentIntentFactory(status=before)
        event = settle(intent, news)
        assert (event.status, intent.status) == ("processed", after)
        assert balance(intent.user) == 0


class TestDisagreement:
    @pytest.mark.parametrize(
        "facts", [{"amount": "100.01"}, {"amount": "1.00"}, {"currency": "EUR"}]
    )
    @pytest.mark.parametrize("outcome", ["succeeded", "failed"])
    def test_given_other_facts_when_processed_then_parked_and_nothing_credited(
        self, intent, outcome, facts
    ):
        event = settle(intent, outcome, **facts)
        assert event.status == "parked"
        assert event.intent_id == intent.pk
        assert "The event says" in event.last_error
        assert outcomes_of(event) == ["parked"]
        assert intent.status == "requires_payment"
        assert balance(intent.user) == 0

    def test_given_the_same_amount_written_shorter_when_processed_then_it_agrees(self, intent):
        settle(intent, amount="100")
        assert balance(intent.user) == PAID

    def test_given_another_gateways_reference_when_processed_then_parked(self, intent):
        other = PaymentIntent.objects.create(
            user=intent.user,
            wallet=intent.wallet,
            amount=intent.amount,
            currency=intent.currency,
            gateway="other",
            gateway_reference="pi_of_other",
            expires_at=intent.expires_at,
        )
        event = deliver(event_body(intent, gateway_reference="pi_of_other"))
        PaymentService.process_payment_webhook(event.pk)
        event.refresh_from_db()
        other.refresh_from_db()
        assert (event.status, other.status) == ("parked", "requires_payment")
        assert balance(intent.user) == 0

    def test_given_a_closed_wallet_when_money_arrived_then_it_lies_in_suspense(self, intent):
        close(intent.user)
        event = settle(intent)
        assert (event.status, intent.status) == ("processed", "succeeded")
        assert (balance(intent.user), credits_of(intent.user)) == (0, 0)
        suspended = SuspendedDeposit.objects.get()
        assert (suspended.intent, suspended.status) == (intent, "open")
        assert suspended.transaction == intent.transaction
        entries = suspended.transaction.entries.order_by("pk")
        assert [(e.account, e.entry_type, e.amount) for e in entries] == [
            ("gateway_clearing", "debit", intent.amount),
            ("suspense", "credit", intent.amount),
        ]
        settle(intent)
        assert SuspendedDeposit.objects.count() == 1
        assert breaches() == []

    @pytest.mark.parametrize("kind", ["succeeded", "customer.created", "payout.paid"])
    def test_given_an_unknown_intent_or_type_when_delivered_then_200_and_ignored(self, kind):
        body = event_body(outcome=kind)
        assert post_webhook(body, signed(body)).status_code == 200
        event = WebhookEvent.objects.get()
        PaymentService.process_payment_webhook(event.pk)
        event.refresh_from_db()
        assert (event.status, event.intent_id) == ("ignored", None)
        assert outcomes_of(event) == ["ignored"]

    def test_given_the_event_overtook_its_intent_when_swept_then_it_is_credited(self, owner):
        """The gateway reports before we have stored its answer, or our process died there."""
        intent = PaymentIntentFactory()
        body = event_body(intent)
        owner.execute("SELECT 1")
        blank_reference(owner, intent)
        event = deliver(body)
        PaymentService.process_payment_webhook(event.pk)
        event.refresh_from_db()
        assert event.status == "ignored"
        intent.save(update_fields=["gateway_reference"])  # the answer is stored at last
        assert PaymentService.sweep_webhook_events() == 1
        assert balance(intent.user) == PAID
        assert PaymentService.sweep_webhook_events() == 0


def blank_reference(owner, intent):
    """As if the gateway's answer had not been stored yet."""
    name = owner.connection.info.dbname
    assert "test" in name
    owner.execute("SET session_replication_role = replica")
    owner.execute(
        "UPDATE payments_paymentintent SET gateway_reference = NULL, client_secret = NULL "
        "WHERE id = %s",
        [str(intent.pk)],
    )
    owner.execute("SET session_replication_role = origin")


class TestFailure:
    def test_given_the_ledger_fails_when_tried_then_retried_and_parked_with_its_tries(
        self, intent, monkeypatch
    ):
        monkeypatch.setattr(TransactionService, "add_money", boom)
        event = settle(intent)
        assert (event.status, event.attempts) == ("received", 1)
        assert PaymentService.process_payment_webhook(event.pk) is None  # not due yet
        with override_settings(WEBHOOK_MAX_ATTEMPTS=3):
            for _ in range(2):
                make_due(event)
                PaymentService.process_payment_webhook(event.pk)
        event.refresh_from_db()
        assert (event.status, event.attempts) == ("parked", 3)
        assert event.last_error == "RuntimeError: the ledger is out for lunch"
        assert event.next_attempt_at is None
        assert outcomes_of(event) == ["failed", "failed", "parked"]
        assert balance(intent.user) == 0

    def test_given_it_failed_once_when_tried_again_then_one_credit(self, intent, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(TransactionService, "add_money", boom)
            event = settle(intent)
        make_due(event)
        assert PaymentService.sweep_webhook_events() == 1
        event.refresh_from_db()
        assert (event.status, event.attempts) == ("processed", 2)
        assert outcomes_of(event) == ["failed", "processed"]
        assert credits_of(intent.user) == 1

    def test_given_a_failure_after_the_credit_when_tried_again_then_one_credit(
        self, intent, monkeypatch
    ):
        """The money and the mark are one: if the mark cannot be set, the money has not moved."""
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "_close", boom)
            event = settle(intent)
        assert (balance(intent.user), intent.status) == (0, "requires_payment")
        make_due(event)
        PaymentService.process_payment_webhook(event.pk)
        assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)
        assert breaches() == []

    def test_given_the_process_dies_when_the_next_try_comes_then_the_dead_one_is_counted(
        self, intent, monkeypatch
    ):
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "_settle", die)
            event = deliver(event_body(intent))
            with pytest.raises(SystemExit):
                PaymentService.process_payment_webhook(event.pk)
        event.refresh_from_db()
        assert (event.status, event.attempts) == ("received", 1)
        assert outcomes_of(event) == ["started"]
        make_due(event)
        PaymentService.sweep_webhook_events()
        assert outcomes_of(event) == ["started", "processed"]
        assert credits_of(intent.user) == 1

    def test_given_every_try_kills_its_process_when_used_up_then_parked(self, intent, monkeypatch):
        monkeypatch.setattr(inbox, "_settle", die)
        event = deliver(event_body(intent))
        with override_settings(WEBHOOK_MAX_ATTEMPTS=2):
            for _ in range(2):
                make_due(event)
                with pytest.raises(SystemExit):
                    PaymentService.process_payment_webhook(event.pk)
            make_due(event)
            assert PaymentService.sweep_webhook_events() == 0
        event.refresh_from_db()
        assert (event.status, event.attempts) == ("parked", 2)
        assert "Gave up" in event.last_error

    def test_given_tries_when_they_fail_then_each_waits_longer(self):
        waits = [inbox._backoff(number).total_seconds() for number in range(1, 100)]
        assert 8 <= waits[0] <= 12
        assert 16 <= waits[1] <= 24
        assert max(waits) <= 1.2 * 3600

    def test_given_secrets_in_a_failure_when_recorded_then_they_are_scrubbed(
        self, intent, monkeypatch
    ):
        def leak(**_):
            raise RuntimeError("key whsec_AAAABBBB of alice@example.com " + "x" * 900)

        monkeypatch.setattr(TransactionService, "add_money", leak)
        event = settle(intent)
        assert "whsec_AAAABBBB" not in event.last_error
        assert "alice@example.com" not in event.last_error
        assert len(event.last_error) <= 500

    def test_given_no_such_event_when_its_task_runs_then_nothing(self):
        assert PaymentService.process_payment_webhook(PaymentIntentFactory().pk) is None


def boom(*_, **__):
    raise RuntimeError("the ledger is out for lunch")


def die(*_, **__):
    raise SystemExit


class TestProcessAgain:
    def test_given_a_parked_event_when_staff_ask_then_it_is_tried_in_their_name(self, monkeypatch):
        staff = StaffFactory()
        intent = PaymentIntentFactory()
        with monkeypatch.context() as patch:
            patch.setattr(TransactionService, "add_money", boom)
            with override_settings(WEBHOOK_MAX_ATTEMPTS=1):
                event = settle(intent)
        assert event.status == "parked"
        assert PaymentService.process_again([event.pk], by=staff) == 1
        PaymentService.sweep_webhook_events()
        event.refresh_from_db()
        assert (event.status, event.attempts) == ("processed", 1)
        assert outcomes_of(event) == ["parked", "processed"]
        assert event.tries.get(number=2).requested_by == staff
        assert event.tries.get(number=1).requested_by is None
        assert balance(intent.user) == PAID

    def test_given_every_kind_when_staff_ask_then_only_the_unprocessed_are_tried(self):
        states = ["received", "processed", "ignored", "parked"]
        events = {state: WebhookEventFactory(status=state) for state in states}
        ids = [event.pk for event in events.values()]
        assert PaymentService.process_again(ids, by=StaffFactory()) == 3
        PaymentService.sweep_webhook_events()
        for event in events.values():
            event.refresh_from_db()
        assert [event.status for event in events.values()] == [
            "processed",
            "processed",
            "ignored",
            "parked",
        ]
        assert WebhookAttempt.objects.filter(event=events["processed"]).count() == 1
        assert breaches() == []
