"""When events never come: the gateway is asked, and what it says has the effect of an event."""

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from threading import Barrier

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import override_settings
from django.utils import timezone

from payments import effects, intents, payouts, polling, services
from payments.exceptions import GatewayRefused, GatewayUnavailable
from payments.gateways.base import Outcome
from payments.gateways.sandbox import SandboxGateway
from payments.models import PaymentIntent, Payout, SuspendedDeposit
from payments.services import PaymentService
from payments.tasks import poll_gateways
from payments.tests.bank import bank_open, statement
from payments.tests.factories import pay_out, settle
from payments.tests.helpers import balance, credits_of
from transactions.tests.helpers import (
    at_once,
    breaches,
    call_by,
    close,
    freeze,
    guardian,
    person,
)
from wallet import services as wallets

pytestmark = pytest.mark.django_db(transaction=True)

PAID = Decimal("100.00")


@pytest.fixture
def bank():
    with bank_open() as opened:
        yield opened


def top_up(user, lifetime=timedelta(hours=24)):
    with override_settings(PAYMENT_INTENT_LIFETIME=lifetime):
        answer = PaymentService.create_payment_intent(
            user=user, amount=PAID, currency="USD", gateway="bank", idempotency=call_by(user)
        )
    return PaymentIntent.objects.get(pk=answer.content["id"])


def let_time_pass(*orders):
    for order in orders:
        rows = type(order).objects.filter(pk=order.pk, next_poll_at__isnull=False)
        rows.update(next_poll_at=Now())


def poll(*orders):
    let_time_pass(*orders)
    asked = PaymentService.poll_gateways()
    for order in orders:
        order.refresh_from_db()
    return asked


class TestIntents:
    def test_given_a_young_intent_when_polled_then_nobody_is_asked(self, bank):
        top_up(person())
        poll_gateways()
        assert not any(question.startswith("fetch") for question in bank.asked)

    def test_given_the_event_never_came_when_polled_then_the_money_is_credited_once(self, bank):
        intent = top_up(person())
        bank.says[intent.gateway_reference] = statement(intent, Outcome.SUCCEEDED)
        assert poll(intent) == 1
        assert (intent.status, intent.late_after) == ("succeeded", "")
        assert (intent.last_answer, intent.polls) == ("It says: succeeded.", 1)
        assert (intent.next_poll_at, intent.last_polled_at is None) == (None, False)
        assert poll(intent) == 0
        assert (balance(intent.user), credits_of(intent.user)) == (PAID, 1)
        assert breaches() == []

    def test_given_nothing_yet_when_polled_then_later_and_later(self, bank):
        intent = top_up(person())
        waits = []
        for _ in range(9):
            assert poll(intent) == 1
            waits.append(intent.next_poll_at - intent.last_polled_at)
        assert intent.last_answer == "Nothing yet."
        assert waits[0] < timedelta(minutes=25)
        assert all(later > earlier for earlier, later in pairwise(waits[:6]))
        assert max(waits) <= polling.POLL_LONGEST * 1.2

    def test_given_an_expired_intent_when_it_was_paid_all_the_same_then_credited_and_shown(
        self, bank
    ):
        intent = top_up(person(), timedelta(0))
        PaymentService.expire_payment_intents()
        bank.says[intent.gateway_reference] = statement(intent, Outcome.SUCCEEDED)
        poll(intent)
        assert (intent.status, intent.late_after) == ("succeeded", "expired")
        assert balance(intent.user) == PAID
        assert breaches() == []

    def test_given_a_closed_wallet_when_it_was_paid_then_the_money_is_in_suspense(self, bank):
        intent = top_up(person())
        close(intent.user)
        bank.says[intent.gateway_reference] = statement(intent, Outcome.SUCCEEDED)
        poll(intent)
        assert SuspendedDeposit.objects.get().intent == intent
        assert breaches() == []

    def test_given_an_intent_that_ended_when_long_ago_then_it_is_asked_about_no_more(
        self, bank, monkeypatch
    ):
        intent = top_up(person(), timedelta(0))
        PaymentService.expire_payment_intents()
        poll(intent)
        assert intent.next_poll_at is not None
        monkeypatch.setattr(polling, "LATE_WITHIN", timedelta(0))
        poll(intent)
        assert intent.next_poll_at is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"amount": Decimal("99.99")},
            {"currency": "EUR"},
            {"gateway_reference": "bank_other"},
        ],
    )
    def test_given_other_facts_when_polled_then_nothing_is_credited_and_staff_see_it(
        self, bank, changes
    ):
        intent = top_up(person())
        said = statement(intent, Outcome.SUCCEEDED, **changes)
        bank.says[intent.gateway_reference] = said
        poll(intent)
        assert (intent.status, balance(intent.user)) == ("requires_payment", 0)
        assert intent.needs_staff
        assert intent.last_answer
        bank.says[intent.gateway_reference] = statement(intent, Outcome.SUCCEEDED)
        poll(intent)
        assert (intent.status, intent.needs_staff) == ("succeeded", False)

    def test_given_a_gateway_that_is_away_when_polled_then_asked_again_later(self, bank):
        intent = top_up(person())
        bank.is_away = True
        poll(intent)
        assert (intent.last_answer, intent.needs_staff) == ("The gateway did not answer.", False)
        assert intent.next_poll_at > timezone.now()

    def test_given_a_gateway_that_is_gone_when_polled_then_staff_see_it(self, bank):
        intent = top_up(person())
        let_time_pass(intent)
        with override_settings(PAYMENT_GATEWAYS={}):
            PaymentService.poll_gateways()
        intent.refresh_from_db()
        assert intent.needs_staff

    def test_given_a_crash_before_the_reference_was_stored_when_polled_then_it_is_ordered_again(
        self, bank, monkeypatch
    ):
        with monkeypatch.context() as broken:
            broken.setattr(intents, "attach", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                top_up(person())
        intent = PaymentIntent.objects.get()
        poll(intent)
        assert intent.gateway_reference == f"bank_{intent.pk.hex}"
        assert (len(bank.orders), intent.last_answer) == (1, "Ordered again, after a crash.")

    def test_given_an_intent_nobody_ordered_when_it_has_ended_then_it_is_let_go(self, bank):
        bank.is_away = True
        with pytest.raises(GatewayUnavailable):
            top_up(person(), timedelta(0))
        bank.is_away = False
        PaymentService.expire_payment_intents()
        intent = PaymentIntent.objects.get()
        poll(intent)
        assert (intent.next_poll_at, bank.orders) == (None, {})


class TestPayouts:
    @pytest.mark.parametrize(
        ("outcome", "status", "left"),
        [
            (Outcome.PAID, "paid", "60.00"),
            (Outcome.FAILED, "failed", "100.00"),
            (Outcome.CANCELED, "failed", "100.00"),
        ],
    )
    def test_given_the_event_never_came_when_polled_then_the_payout_is_settled(
        self, bank, outcome, status, left
    ):
        payout = pay_out(person("100.00"), gateway="bank")
        bank.says[payout.gateway_reference] = statement(payout, outcome, failure_code="no_account")
        assert poll(payout) == 1
        assert (payout.status, payout.next_poll_at) == (status, None)
        assert payout.failure_code == (None if status == "paid" else "no_account")
        assert balance(payout.user) == Decimal(left)
        assert poll(payout) == 0
        assert breaches() == []

    def test_given_a_crash_after_the_debit_when_polled_then_it_is_paid_out_once(
        self, bank, monkeypatch
    ):
        alice = person("100.00")
        for asked in ("attach", "ask"):
            with monkeypatch.context() as broken:
                broken.setattr(payouts, asked, lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    pay_out(alice, "10.00", gateway="bank")
        orders = Payout.objects.order_by("pk")
        assert balance(alice) == Decimal("80.00")
        poll(*orders)
        assert [one.gateway_reference for one in orders.all()] == [
            f"bank_{one.pk.hex}" for one in orders
        ]
        assert len(bank.orders) == 2
        assert balance(alice) == Decimal("80.00")

    def test_given_a_refusal_when_first_asked_then_the_money_comes_back(self, bank, monkeypatch):
        with monkeypatch.context() as broken:
            broken.setattr(payouts, "ask", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pay_out(person("100.00"), gateway="bank")
        bank.refuses_with = "blocked"
        payout = Payout.objects.get()
        poll(payout)
        assert (payout.status, payout.failure_code) == ("failed", "blocked")
        assert balance(payout.user) == Decimal("100.00")
        assert breaches() == []

    def test_given_a_refusal_when_ordered_again_then_staff_decide(self, bank):
        """A gateway that did not answer may have taken the order: a later refusal is no proof that
        it did not, and giving the money back on its word would pay twice."""
        payout = answer_lost(bank)
        bank.refuses_with = "blocked"
        poll(payout)
        assert (payout.status, payout.needs_staff) == ("pending", True)
        assert "refuses (blocked)" in payout.last_answer
        assert (balance(payout.user), len(bank.orders)) == (Decimal("60.00"), 1)
        bank.refuses_with = ""
        poll(payout)
        assert (payout.gateway_reference, payout.needs_staff) == (f"bank_{payout.pk.hex}", False)
        assert (balance(payout.user), len(bank.orders)) == (Decimal("60.00"), 1)
        assert breaches() == []

    @pytest.mark.parametrize("was_asked", [True, False])
    def test_given_a_frozen_wallet_when_not_sent_yet_then_it_is_not_sent(
        self, bank, monkeypatch, was_asked
    ):
        with monkeypatch.context() as broken:
            if not was_asked:
                broken.setattr(payouts, "ask", no_answer)
            bank.is_away = True
            with pytest.raises(GatewayUnavailable):
                pay_out(person("100.00"), gateway="bank")
        bank.is_away = False
        payout = Payout.objects.get()
        freeze(payout.user)
        poll(payout)
        assert (payout.last_answer, payout.needs_staff) == (
            "It is settled, or its wallet is frozen; it is not ordered again.",
            True,
        )
        assert bank.orders == {}
        wallets.unfreeze(wallet_id=payout.wallet_id, actor=guardian(), reason="Reviewed.")
        poll(payout)
        assert (len(bank.orders), payout.needs_staff) == (1, False)

    def test_given_a_payout_when_asked_about_at_once_then_a_refusal_gives_nothing_back(
        self, bank, monkeypatch
    ):
        with monkeypatch.context() as broken:
            broken.setattr(payouts, "ask", no_answer)
            with pytest.raises(GatewayUnavailable):
                pay_out(person("100.00"), gateway="bank")
        payout = Payout.objects.get()
        all_ask = Barrier(6)

        def refuse(_):
            all_ask.wait(timeout=30)
            raise GatewayRefused("blocked")

        monkeypatch.setattr(payouts, "_ask", refuse)
        answers = at_once(*[lambda: polling._order_again(payout)] * 6)
        assert {type(answer) for answer in answers} == {polling._Trouble}
        payout.refresh_from_db()
        assert (payout.status, payout.asked_again) == ("pending", True)
        assert balance(payout.user) == Decimal("60.00")

    def test_given_no_reference_for_a_day_when_polled_then_staff_decide(self, bank, monkeypatch):
        bank.is_away = True
        with pytest.raises(GatewayUnavailable):
            pay_out(person("100.00"), gateway="bank")
        bank.is_away = False
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
        payout = Payout.objects.get()
        poll(payout)
        assert (payout.status, payout.needs_staff, bank.orders) == ("pending", True, {})
        assert balance(payout.user) == Decimal("60.00")

    def test_given_a_payout_of_a_week_when_polled_then_staff_see_it(self, bank, monkeypatch):
        payout = pay_out(person("100.00"), gateway="bank")
        poll(payout)
        assert not payout.needs_staff
        monkeypatch.setattr(polling, "PAYOUT_OVERDUE", timedelta(0))
        poll(payout)
        assert payout.needs_staff
        settle_by_event(payout)
        assert not payout.needs_staff


def answer_lost(bank):
    """A payout that the bank has, though nobody was told."""
    bank.loses_answers = True
    with pytest.raises(GatewayUnavailable):
        pay_out(person("100.00"), gateway="bank")
    bank.loses_answers = False
    return Payout.objects.get()


def no_answer(*_):
    raise GatewayUnavailable


def settle_by_event(payout):
    """Its gateway has no webhook of its own: the effect is what counts."""
    polling._committed(lambda: effects.apply(statement(payout, Outcome.PAID), "bank"))
    payout.refresh_from_db()


class TestAtOnce:
    def test_given_pollers_when_at_once_then_each_order_is_asked_about_once(self, bank):
        orders = [top_up(person()) for _ in range(6)]
        for order in orders:
            bank.says[order.gateway_reference] = statement(order, Outcome.SUCCEEDED)
        let_time_pass(*orders)
        assert sum(at_once(*[PaymentService.poll_gateways] * 4)) == 6
        assert len([question for question in bank.asked if question.startswith("fetch")]) == 6
        assert [credits_of(order.user) for order in orders] == [1] * 6
        assert breaches() == []

    def test_given_an_answer_and_an_event_when_at_once_then_one_effect(self, monkeypatch):
        payout = pay_out(person("100.00"))
        said = statement(payout, Outcome.FAILED)
        monkeypatch.setattr(SandboxGateway, "fetch", lambda *_: said)
        let_time_pass(payout)
        at_once(lambda: settle(payout, "payout.failed"), PaymentService.poll_gateways)
        payout.refresh_from_db()
        assert (payout.status, balance(payout.user)) == ("failed", Decimal("100.00"))
        assert breaches() == []

    def test_given_the_asker_dies_when_its_lease_is_over_then_another_asks(self, bank, monkeypatch):
        intent = top_up(person())
        bank.says[intent.gateway_reference] = statement(intent, Outcome.SUCCEEDED)

        def die(_order):
            raise SystemExit

        with monkeypatch.context() as dying:
            dying.setattr(polling, "_fetch", die)
            with pytest.raises(SystemExit):
                poll(intent)
        intent.refresh_from_db()
        assert (intent.last_answer, intent.polls) == (polling.ASKING, 1)
        assert PaymentService.poll_gateways() == 0
        poll(intent)
        assert intent.status == "succeeded"

    def test_given_a_question_when_it_is_put_then_nothing_is_locked(self, bank, monkeypatch):
        intent = top_up(person())
        seen = []

        def look(*_):
            seen.append(connection.in_atomic_block)

        monkeypatch.setattr(bank, "fetch", look)
        poll(intent)
        assert seen == [False]

    def test_given_no_time_when_polled_then_it_stops(self, bank, monkeypatch):
        monkeypatch.setattr(services, "POLL_SECONDS_MAX", 0.0)
        assert poll(top_up(person())) == 0
