"""Deposits on their way back: once, within what is there, and back in the wallet if they must."""

import json
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.test import Client, override_settings

from fintech_core.exceptions import InvalidState
from fintech_core.idempotency import IdempotentCall
from payments import payouts
from payments.exceptions import GatewayRefused, GatewayUnavailable, NotFound
from payments.gateways.base import Outcome, Statement, Subject
from payments.models import DepositRefund, PaymentIntent, WebhookEvent
from payments.refunds import RefundOrder
from payments.services import PaymentService
from payments.tests.helpers import balance, code_of
from payments.tests.other_gateway import OtherGateway, signature
from transactions.models import Transaction, TransactionLedger
from transactions.services import SourceRefund, TransactionService
from transactions.tests.helpers import (
    at_once,
    breaches,
    client_of,
    close,
    freeze,
    fund,
    person,
    refused_by,
    reserve,
    send,
)
from users.exceptions import NotPermitted
from users.models import User
from users.tests.factories import StaffFactory
from wallet.models import Wallet

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "payments.tests.other_gateway.OtherGateway"
BOTH = {**settings.PAYMENT_GATEWAYS, "other": PATH}
URL = "/api/v1/payments/intents/{}/refund/"


@pytest.fixture(autouse=True)
def both():
    with override_settings(PAYMENT_GATEWAYS=BOTH):
        yield


@pytest.fixture
def staff() -> User:
    return StaffFactory(permissions=["payments.refund_deposit"])


@pytest.fixture
def gateway(monkeypatch):
    """What the other gateway answers, and how often it was asked to send."""
    state = SimpleNamespace(asked=[], error=None, said=None)

    def refund(_, asked):
        assert not connection.in_atomic_block, "asked under a lock"
        state.asked.append(asked)
        if state.error:
            raise state.error
        return f"rt_{asked.id.hex}"

    monkeypatch.setattr(OtherGateway, "refund", refund)
    monkeypatch.setattr(OtherGateway, "fetch", lambda *_: state.said)
    return state


def deliver(**facts):
    body = json.dumps({"id": uuid4().hex, "currency": "usd"} | facts).encode()
    response = Client().post(
        "/api/v1/payments/webhooks/other/", body, content_type="application/json",
        headers={"Other-Signature": signature(body)},
    )  # fmt: skip
    assert response.status_code == 200
    PaymentService.sweep_webhook_events()
    return WebhookEvent.objects.latest("pk")


def paid(amount: str = "100.00", user: User | None = None) -> PaymentIntent:
    user = user or person()
    call = IdempotentCall.internal(user_id=user.pk, operation="paid", key=uuid4().hex, asked={})
    answer = PaymentService.create_payment_intent(
        user=user, amount=Decimal(amount), currency="USD", gateway="other", idempotency=call
    )
    intent = PaymentIntent.objects.get(pk=answer.content["id"])
    deliver(kind="charge.ok", order=intent.gateway_reference, cents=int(intent.amount * 100))
    intent.refresh_from_db()
    assert intent.status == "succeeded"
    return intent


def give_back(staff, intent, amount=None, key=None, **more):
    body = {"reason": "Paid twice.", **({"amount": amount} if amount else {}), **more}
    return client_of(staff).post(
        URL.format(intent.pk), body, headers={"Idempotency-Key": key or uuid4().hex}
    )


def order(staff, intent, amount=None, form_id=None) -> DepositRefund:
    asked = RefundOrder(
        intent_id=intent.pk,
        amount=Decimal(amount) if amount else None,
        reason="Paid twice.",
        form_id=form_id,
    )
    return PaymentService.order_refund(staff=staff, asked=asked)


def told(refund, kind, **facts):
    refund.refresh_from_db()
    news = {"order": refund.gateway_reference, "cents": int(refund.amount * 100)}
    event = deliver(kind=kind, **(news | facts))
    refund.refresh_from_db()
    return event


def make_due(refund):
    DepositRefund.objects.filter(pk=refund.pk, status="pending").update(next_attempt_at=Now())


def said(outcome: Outcome, **changes) -> Statement:
    facts = {"gateway_reference": "rt_found", "amount": Decimal("40.00"), "currency": "USD"}
    return Statement(**({"subject": Subject.REFUND, "outcome": outcome} | facts | changes))


@contextmanager
def still_asked():
    """As in production."""
    with pytest.MonkeyPatch.context() as timely:
        timely.setattr(payouts, "ASKED_WITHIN", timedelta(hours=23))
        yield


def clearing() -> Decimal:
    """The balance of the gateway_clearing account, as a customer would see it."""
    entries = TransactionLedger.objects.filter(account="gateway_clearing")
    return sum((entry.signed_amount for entry in entries), Decimal(0))


class TestOrdering:
    def test_given_a_deposit_when_sent_back_then_the_money_left_and_the_gateway_knows(
        self, staff, gateway
    ):
        intent = paid("100.00")
        response = give_back(staff, intent, "40.00")
        assert response.status_code == 201, response.content
        answer = response.json()
        assert (answer["status"], answer["amount"], answer["currency"]) == (
            "pending", "40.00", "USD",
        )  # fmt: skip
        refund = DepositRefund.objects.get()
        assert answer["gateway_reference"] == refund.gateway_reference == f"rt_{refund.pk.hex}"
        assert answer["transaction_id"] == str(refund.transaction_id)
        assert balance(intent.user) == Decimal("60.00")
        made = refund.transaction
        assert (made.type, made.status, made.amount) == ("refund", "completed", Decimal("40.00"))
        assert (made.parent, made.from_user, made.to_user) == (
            intent.transaction, intent.user, None,
        )  # fmt: skip
        [asked] = gateway.asked
        assert (asked.intent_reference, asked.amount) == (intent.gateway_reference, made.amount)
        assert asked.idempotency_key == f"deposit_refund:{refund.pk}"
        assert clearing() == Decimal("-60.00")
        assert breaches() == []

    def test_given_no_amount_when_sent_back_then_all_that_is_left(self, staff, gateway):
        intent = paid("100.00")
        give_back(staff, intent, "30.00")
        assert give_back(staff, intent).json()["amount"] == "70.00"
        assert balance(intent.user) == 0
        assert code_of(give_back(staff, intent)) == (422, "amount_exceeds_remaining")
        assert breaches() == []

    def test_given_more_than_the_deposit_when_sent_back_then_refused_with_what_remains(
        self, staff, gateway
    ):
        intent = paid("100.00")
        fund(intent.user, "500.00")
        give_back(staff, intent, "60.00")
        response = give_back(staff, intent, "40.01")
        assert code_of(response) == (422, "amount_exceeds_remaining")
        assert response.json()["remaining"] == "40.00"
        assert balance(intent.user) == Decimal("540.00")

    def test_given_money_that_is_spent_or_held_when_sent_back_then_insufficient(
        self, staff, gateway
    ):
        intent = paid("100.00")
        send(intent.user, person(), "30.00")
        reserve(intent.user, person(), "30.00")
        assert code_of(give_back(staff, intent, "40.01")) == (422, "insufficient_funds")
        assert give_back(staff, intent, "40.00").status_code == 201
        assert breaches() == []

    def test_given_a_frozen_wallet_when_sent_back_then_refused(self, staff, gateway):
        intent = paid()
        freeze(intent.user)
        assert code_of(give_back(staff, intent)) == (422, "wallet_frozen")
        assert DepositRefund.objects.count() == 0
        assert balance(intent.user) == Decimal("100.00")

    def test_given_a_closed_wallet_when_sent_back_then_refused(self, staff, gateway):
        intent = paid()
        send(intent.user, person(), "100.00")
        close(intent.user)
        assert code_of(give_back(staff, intent)) == (422, "wallet_frozen")

    def test_given_nobody_special_when_sending_back_then_403_whether_it_exists_or_not(self):
        intent = paid()
        for caller in (intent.user, person(), StaffFactory()):
            assert code_of(give_back(caller, intent)) == (403, "permission_denied")
            nothing = SimpleNamespace(pk=uuid4())
            assert code_of(give_back(caller, nothing)) == (403, "permission_denied")
        assert balance(intent.user) == Decimal("100.00")

    def test_given_staff_when_it_is_their_own_money_then_403(self, gateway):
        staff = StaffFactory(kyc="approved", permissions=["payments.refund_deposit"])
        intent = paid(user=staff)
        assert code_of(give_back(staff, intent)) == (403, "permission_denied")
        assert gateway.asked == []

    def test_given_rights_taken_away_since_sign_in_when_ordering_then_403(self, staff):
        intent = paid()
        client = client_of(staff)
        User.objects.filter(pk=staff.pk).update(is_staff=False)
        response = client.post(
            URL.format(intent.pk), {"reason": "x"}, headers={"Idempotency-Key": "k"}
        )
        assert code_of(response) == (403, "permission_denied")

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"reason": ""},
            {"reason": "  "},
            {"reason": "x" * 256},
            {"reason": "x", "amount": "0"},
            {"reason": "x", "amount": "-1.00"},
            {"reason": "x", "amount": "NaN"},
            {"reason": "x", "amount": "1.001"},
            {"reason": "x", "extra": 1},
        ],
    )
    def test_given_bad_input_when_sending_back_then_400(self, staff, body):
        intent = paid()
        response = client_of(staff).post(
            URL.format(intent.pk), body, headers={"Idempotency-Key": "k"}
        )
        assert code_of(response) == (400, "validation_error")

    def test_given_an_intent_that_is_unpaid_or_unknown_when_sending_back_then_refused(self, staff):
        user = person()
        call = IdempotentCall.internal(user_id=user.pk, operation="x", key="k", asked={})
        made = PaymentService.create_payment_intent(
            user=user, amount=Decimal(1), currency="USD", gateway="other", idempotency=call
        )
        unpaid = PaymentIntent.objects.get(pk=made.content["id"])
        assert code_of(give_back(staff, unpaid)) == (409, "invalid_state")
        unknown = SimpleNamespace(pk=uuid4())
        assert code_of(give_back(staff, unknown)) == (404, "not_found")

    def test_given_the_same_key_when_called_again_then_the_same_answer_and_one_refund(
        self, staff, gateway
    ):
        intent = paid()
        first = give_back(staff, intent, "10.00", key="k")
        again = give_back(staff, intent, "10.00", key="k")
        assert (again.status_code, again.content) == (201, first.content)
        assert again["Idempotent-Replayed"] == "true"
        assert balance(intent.user) == Decimal("90.00")
        assert len(gateway.asked) == 1
        response = give_back(staff, intent, "11.00", key="k")
        assert code_of(response) == (422, "idempotency_key_reused")

    def test_given_no_key_when_called_then_400(self, staff):
        response = client_of(staff).post(URL.format(paid().pk), {"reason": "x"})
        assert code_of(response) == (400, "idempotency_key_required")

    def test_given_a_deposit_when_refunded_as_a_payment_then_still_refused(self, staff):
        intent = paid()
        response = client_of(staff).post(
            f"/api/v1/transactions/{intent.transaction_id}/refund/",
            {},
            headers={"Idempotency-Key": "k"},
        )
        assert code_of(response) == (409, "invalid_state")


class TestTheGatewaysWord:
    def test_given_success_when_told_twice_then_final_once(self, staff, gateway):
        intent = paid()
        give_back(staff, intent, "40.00")
        refund = DepositRefund.objects.get()
        event = told(refund, "return.ok")
        assert (refund.status, event.status, event.refund) == ("succeeded", "processed", refund)
        told(refund, "return.ok")
        assert balance(intent.user) == Decimal("60.00")
        assert refund.completed_at
        assert breaches() == []

    def test_given_a_refunds_event_when_staff_read_it_then_it_names_the_refund(
        self, staff, gateway
    ):
        give_back(staff, paid(), "40.00")
        refund = DepositRefund.objects.get()
        event = told(refund, "return.ok")
        reader = client_of(StaffFactory(permissions=["payments.view_webhookevent"]))
        found = reader.get(f"/api/v1/payments/webhook-events/{event.pk}/").json()
        assert (found["refund_id"], found["payout_id"]) == (str(refund.pk), None)

    def test_given_failure_when_told_twice_then_the_money_is_back_once(self, staff, gateway):
        intent = paid()
        give_back(staff, intent, "40.00")
        refund = DepositRefund.objects.get()
        told(refund, "return.failed")
        told(refund, "return.failed")
        assert refund.status == "failed"
        back = refund.reversal
        assert (back.type, back.parent, back.to_user) == (
            "reversal", refund.transaction, intent.user,
        )  # fmt: skip
        assert balance(intent.user) == Decimal("100.00")
        assert clearing() == Decimal("-100.00")
        assert Transaction.objects.filter(type="reversal").count() == 1
        assert breaches() == []

    def test_given_a_failed_refund_when_ordered_again_then_its_room_is_there_again(
        self, staff, gateway
    ):
        intent = paid("100.00")
        for _ in range(3):
            give_back(staff, intent, "100.00")
            told(DepositRefund.objects.latest("pk"), "return.failed")
        give_back(staff, intent, "80.00")
        assert code_of(give_back(staff, intent, "20.01")) == (422, "amount_exceeds_remaining")
        deposit = Transaction.objects.get(pk=intent.transaction_id)
        assert deposit.refunded_amount == Decimal("100.00")
        assert balance(intent.user) == Decimal("20.00")
        assert breaches() == []

    @pytest.mark.parametrize(
        ("first", "then", "left"),
        [("return.ok", "return.failed", "60.00"), ("return.failed", "return.ok", "100.00")],
    )
    def test_given_both_words_when_told_then_the_first_wins_and_the_other_is_parked(
        self, staff, gateway, first, then, left
    ):
        intent = paid()
        give_back(staff, intent, "40.00")
        refund = DepositRefund.objects.get()
        told(refund, first)
        status = refund.status
        event = told(refund, then)
        assert (refund.status, event.status) == (status, "parked")
        assert balance(intent.user) == Decimal(left)
        assert breaches() == []

    def test_given_another_amount_when_told_then_parked(self, staff, gateway):
        give_back(staff, paid(), "40.00")
        refund = DepositRefund.objects.get()
        event = told(refund, "return.failed", cents=4001)
        assert (event.status, refund.status) == ("parked", "pending")

    def test_given_a_refund_on_its_way_when_the_wallet_is_closed_then_refused_until_it_ends(
        self, staff, gateway
    ):
        intent = paid()
        give_back(staff, intent)
        with pytest.raises(InvalidState):
            close(intent.user)
        with refused_by("wallet_wallet_closes_when_settled"), transaction.atomic():
            Wallet.objects.filter(user=intent.user).update(status="closed")
        told(DepositRefund.objects.get(), "return.ok")
        close(intent.user)
        assert Wallet.objects.get(user=intent.user).status == "closed"
        assert breaches() == []

    def test_given_an_order_and_a_closing_when_at_once_then_never_both(self, staff, gateway):
        for _ in range(3):
            intent = paid()
            at_once(lambda i=intent: give_back(staff, i), lambda i=intent: close(i.user))
            refund = DepositRefund.objects.get(intent=intent)
            assert Wallet.objects.get(user=intent.user).status == "active"
            told(refund, "return.failed")
            assert balance(intent.user) == Decimal("100.00")

    def test_given_it_is_frozen_meanwhile_when_it_fails_then_the_wallet_gets_it(
        self, staff, gateway
    ):
        intent = paid()
        give_back(staff, intent)
        freeze(intent.user)
        told(DepositRefund.objects.get(), "return.failed")
        assert balance(intent.user) == Decimal("100.00")

    def test_given_it_refuses_at_once_when_ordered_then_failed_and_the_money_is_back(
        self, staff, gateway
    ):
        gateway.error = GatewayRefused("charge_disputed")
        intent = paid()
        answer = give_back(staff, intent, "40.00").json()
        assert (answer["status"], answer["failure_code"]) == ("failed", "charge_disputed")
        assert answer["reversal_id"]
        assert balance(intent.user) == Decimal("100.00")
        assert breaches() == []


class TestCutShort:
    def test_given_the_gateway_is_down_when_ordered_then_pending_and_asked_again(
        self, staff, gateway
    ):
        gateway.error = GatewayUnavailable()
        intent = paid()
        answer = give_back(staff, intent, "40.00")
        assert (answer.status_code, answer.json()["gateway_reference"]) == (201, None)
        assert PaymentService.sweep_refunds() == 0  # not due yet
        refund = DepositRefund.objects.get()
        make_due(refund)
        gateway.error = None
        assert PaymentService.sweep_refunds() == 1
        refund.refresh_from_db()
        assert refund.gateway_reference == f"rt_{refund.pk.hex}"
        assert len({asked.idempotency_key for asked in gateway.asked}) == 1
        assert balance(intent.user) == Decimal("60.00")

    def test_given_a_crash_after_the_order_when_swept_then_the_gateway_is_asked(
        self, staff, gateway
    ):
        refund = order(staff, paid(), "40.00")
        assert PaymentService.sweep_refunds() == 1
        refund.refresh_from_db()
        assert refund.gateway_reference

    @pytest.mark.parametrize(
        ("outcome", "status", "left"),
        [("succeeded", "succeeded", "60.00"), ("failed", "failed", "100.00")],
    )
    def test_given_no_event_ever_when_swept_then_the_gateway_is_asked_what_became_of_it(
        self, staff, gateway, outcome, status, left
    ):
        intent = paid()
        give_back(staff, intent, "40.00")
        refund = DepositRefund.objects.get()
        gateway.said = Statement(
            subject=Subject.REFUND,
            outcome=Outcome(outcome),
            gateway_reference=refund.gateway_reference,
            amount=Decimal("40.00"),
            currency="USD",
            failure_code="expired" if outcome == "failed" else "",
        )
        make_due(refund)
        PaymentService.sweep_refunds()
        refund.refresh_from_db()
        assert (refund.status, balance(intent.user)) == (status, Decimal(left))
        assert breaches() == []

    def test_given_one_that_breaks_when_swept_then_the_others_are_asked_all_the_same(
        self, staff, gateway, monkeypatch
    ):
        refunds = [order(staff, paid(), "1.00") for _ in range(3)]
        bad, answer = refunds[0].pk, OtherGateway.refund

        def refund(adapter, asked):
            if asked.id == bad:
                raise RuntimeError("unheard of")
            return answer(adapter, asked)

        monkeypatch.setattr(OtherGateway, "refund", refund)
        assert PaymentService.sweep_refunds() == 3
        assert DepositRefund.objects.filter(gateway_reference=None).get().pk == bad

    def test_given_a_refused_refund_when_one_like_it_succeeds_then_staff_are_told(
        self, staff, gateway
    ):
        gateway.error = GatewayRefused("blocked")
        give_back(staff, paid(), "40.00")
        assert DepositRefund.objects.get().status == "failed"
        event = deliver(kind="return.ok", order="rt_unheard_of", cents=4000)
        assert event.status == "parked"

    def test_given_a_lost_answer_when_refused_later_then_no_money_back(self, staff, gateway):
        gateway.error = GatewayUnavailable()  # it took the order, and nobody heard of it
        intent = paid()
        give_back(staff, intent, "40.00")
        gateway.error = GatewayRefused("blocked")
        refund = DepositRefund.objects.get()
        make_due(refund)
        PaymentService.sweep_refunds()
        refund.refresh_from_db()
        assert (refund.status, balance(intent.user)) == ("pending", Decimal("60.00"))

    def test_given_a_refusal_when_another_asker_got_the_reference_then_no_money_back(
        self, staff, gateway, monkeypatch
    ):
        intent = paid()
        refund = order(staff, intent, "40.00")
        answer, asked = OtherGateway.refund, []

        def refuse_the_slower(adapter, question):
            asked.append(question)
            if len(asked) > 1:
                return answer(adapter, question)
            make_due(refund)  # its lease ran out meanwhile
            PaymentService.sweep_refunds()
            raise GatewayRefused("blocked")

        monkeypatch.setattr(OtherGateway, "refund", refuse_the_slower)
        PaymentService.send_refund(refund.pk)
        refund.refresh_from_db()
        assert refund.gateway_reference
        assert (refund.status, balance(intent.user)) == ("pending", Decimal("60.00"))

    def test_given_the_event_before_our_answer_is_stored_when_swept_then_it_counts(
        self, staff, gateway
    ):
        intent = paid()
        refund = order(staff, intent, "40.00")
        early = deliver(kind="return.ok", order=f"rt_{refund.pk.hex}", cents=4000)
        assert early.status == "ignored"
        PaymentService.send_refund(refund.pk)
        PaymentService.sweep_webhook_events()
        refund.refresh_from_db()
        assert refund.status == "succeeded"


class TestStaff:
    """What staff put right when a gateway never says what became of a refund."""

    @pytest.fixture
    def settler(self) -> User:
        return StaffFactory(permissions=["payments.settle_refund"])

    @pytest.fixture
    def lost(self, staff, gateway, monkeypatch) -> DepositRefund:
        """Of a whole deposit, ordered a day ago; the gateway never gave a reference."""
        gateway.error = GatewayUnavailable()
        give_back(staff, paid("40.00"))
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
        return DepositRefund.objects.get()

    def name(self, refund, by, reference=" rt_found "):
        PaymentService.name_refund_reference(refund_id=refund.pk, by=by, reference=reference)
        refund.refresh_from_db()

    def give_up(self, refund, by):
        PaymentService.give_up_refund(refund_id=refund.pk, by=by)
        refund.refresh_from_db()

    def doors(self, refund, by):
        return (lambda: self.name(refund, by), lambda: self.give_up(refund, by))

    @pytest.mark.parametrize(
        ("outcome", "status", "left"),
        [
            ("succeeded", "succeeded", "0"),
            ("failed", "failed", "40"),
            ("processing", "pending", "0"),
        ],
    )
    def test_given_its_reference_when_named_then_what_the_gateway_says_counts(
        self, settler, gateway, lost, outcome, status, left
    ):
        gateway.said = said(Outcome(outcome))
        self.name(lost, settler)
        assert (lost.gateway_reference, lost.status) == ("rt_found", status)
        assert balance(lost.intent.user) == Decimal(left)
        for door in self.doors(lost, settler):
            with pytest.raises(InvalidState, match="The gateway knows this refund"):
                door()
        assert breaches() == []

    @pytest.mark.parametrize(
        "answer",
        [
            None,
            {"amount": Decimal("39.99")},
            {"currency": "EUR"},
            {"subject": Subject.PAYOUT},
            {"gateway_reference": "rt_other"},
        ],
    )
    def test_given_a_reference_that_is_not_confirmed_when_named_then_refused(
        self, settler, gateway, lost, answer
    ):
        gateway.said = answer and said(Outcome.SUCCEEDED, **answer)
        with pytest.raises(InvalidState):
            self.name(lost, settler)
        lost.refresh_from_db()
        assert (lost.gateway_reference, lost.status) == (None, "pending")

    @pytest.mark.parametrize("reference", ["", " ", "rt_\n1", "rt_\u00e9", "x" * 256])
    def test_given_no_reference_when_named_then_refused(self, settler, lost, reference):
        with pytest.raises(InvalidState, match="That is no reference"):
            self.name(lost, settler, reference)

    def test_given_a_reference_of_another_refund_when_named_then_refused(
        self, staff, settler, gateway, lost
    ):
        gateway.error = None
        with still_asked():
            give_back(staff, paid("40.00"))
        other = DepositRefund.objects.latest("pk")
        gateway.said = said(Outcome.SUCCEEDED, gateway_reference=other.gateway_reference)
        with pytest.raises(InvalidState, match="Another refund has this reference"):
            self.name(lost, settler, other.gateway_reference)

    def test_given_one_given_up_then_the_money_is_back_and_the_wallet_can_be_closed(
        self, settler, lost
    ):
        customer = lost.intent.user
        with pytest.raises(InvalidState):
            close(customer)
        self.give_up(lost, settler)
        assert (lost.status, lost.failure_code) == ("failed", "never_sent")
        assert balance(customer) == Decimal("40.00")
        send(customer, person(), "40.00")
        close(customer)
        assert breaches() == []

    def test_given_one_given_up_when_one_like_it_succeeds_then_staff_are_told(self, settler, lost):
        self.give_up(lost, settler)
        event = deliver(kind="return.ok", order="rt_found", cents=4000)
        assert (event.status, "was refused or given up" in event.last_error) == ("parked", True)
        assert balance(lost.intent.user) == Decimal("40.00")

    def test_given_one_given_up_when_its_reference_arrives_late_then_staff_are_told(
        self, staff, settler, gateway, monkeypatch, caplog
    ):
        refund = order(staff, paid("40.00"))

        def answer_late(_, asked):
            monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
            self.give_up(refund, settler)
            return "rt_found"

        monkeypatch.setattr(OtherGateway, "refund", answer_late)
        PaymentService.send_refund(refund.pk)
        refund.refresh_from_db()
        assert (refund.status, refund.gateway_reference) == ("failed", "rt_found")
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        assert [(one.deposit_refund, one.reference) for one in errors] == [
            (str(refund.pk), "rt_found")
        ]
        assert told(refund, "return.ok").status == "parked"
        assert balance(refund.intent.user) == Decimal("40.00")
        assert breaches() == []

    def test_given_a_lost_refund_when_swept_then_it_is_not_ordered_again(self, gateway, lost):
        gateway.error = None
        make_due(lost)
        before = len(gateway.asked)
        assert PaymentService.sweep_refunds() == 1
        lost.refresh_from_db()
        assert (len(gateway.asked), lost.gateway_reference) == (before, None)

    def test_given_somebody_who_may_not_when_they_decide_then_refused(self, staff, gateway, lost):
        gateway.said = said(Outcome.SUCCEEDED)
        for door in self.doors(lost, staff):  # they order refunds, and settle none
            with pytest.raises(NotPermitted):
                door()
        owner = User.objects.get(pk=lost.intent.user_id)
        User.objects.filter(pk=owner.pk).update(is_staff=True, is_superuser=True)
        for door in self.doors(lost, owner):
            with pytest.raises(InvalidState, match="their own refund"):
                door()
        lost.refresh_from_db()
        assert (lost.gateway_reference, lost.status) == (None, "pending")

    def test_given_no_such_refund_when_decided_then_not_found(self, settler):
        for door in self.doors(DepositRefund(pk=uuid4()), settler):
            with pytest.raises(NotFound):
                door()

    def test_given_it_is_still_asked_or_was_not_yet_when_decided_then_refused(
        self, staff, settler, gateway, lost
    ):
        new = order(staff, paid("40.00"))
        for door in self.doors(new, settler):
            with pytest.raises(InvalidState, match="still being asked"):
                door()
        with still_asked():
            for door in self.doors(lost, settler):
                with pytest.raises(InvalidState, match="still being asked"):
                    door()

    @pytest.mark.parametrize("_", range(3))
    def test_given_both_doors_when_used_at_once_then_one_decides(self, settler, gateway, lost, _):
        gateway.said = said(Outcome.SUCCEEDED)
        answers = at_once(*self.doors(lost, settler) * 3)
        assert len([answer for answer in answers if isinstance(answer, InvalidState)]) == 5
        lost.refresh_from_db()
        left = {"succeeded": Decimal(0), "failed": Decimal("40.00")}
        assert balance(lost.intent.user) == left[lost.status]
        assert breaches() == []


class TestAtOnce:
    def test_given_one_deposit_when_sent_back_sixteen_times_at_once_then_never_more_than_it(
        self, staff, gateway
    ):
        intent = paid("100.00")
        fund(intent.user, "1000.00")
        responses = at_once(*[lambda: give_back(staff, intent, "30.00")] * 16)
        assert sorted(r.status_code for r in responses) == [201] * 3 + [422] * 13
        assert balance(intent.user) == Decimal("1010.00")
        assert breaches() == []

    def test_given_one_key_when_called_at_once_then_one_refund(self, staff, gateway):
        intent = paid("100.00")
        responses = at_once(*[lambda: give_back(staff, intent, "30.00", key="k")] * 8)
        assert {r.status_code for r in responses} <= {201, 409}
        assert DepositRefund.objects.count() == len(gateway.asked) == 1
        assert balance(intent.user) == Decimal("70.00")

    def test_given_success_and_failure_when_told_at_once_then_one_of_them(self, staff, gateway):
        intent = paid("100.00")
        give_back(staff, intent, "30.00")
        refund = DepositRefund.objects.get()
        news = {"order": refund.gateway_reference, "cents": 3000}
        kinds = ["return.ok", "return.failed"] * 4
        at_once(*[lambda kind=kind: deliver(kind=kind, **news) for kind in kinds])
        refund.refresh_from_db()
        expected = {"succeeded": Decimal("70.00"), "failed": Decimal("100.00")}
        assert balance(intent.user) == expected[refund.status]
        assert breaches() == []

    def test_given_sweepers_when_they_run_at_once_then_each_refund_is_asked_about_once(
        self, staff, gateway
    ):
        for _ in range(4):
            order(staff, paid(), "1.00")
        at_once(*[PaymentService.sweep_refunds] * 4)
        assert len(gateway.asked) == 4

    def test_given_a_refund_and_a_payment_at_once_then_no_money_twice(self, staff, gateway):
        intent, other = paid("100.00"), person()
        at_once(
            lambda: give_back(staff, intent, "100.00"),
            lambda: send(intent.user, other, "100.00"),
        )
        refunded = DepositRefund.objects.count()
        assert (refunded, balance(other)) in [(1, Decimal(0)), (0, Decimal("100.00"))]
        assert breaches() == []


class TestRules:
    """PostgreSQL refuses what the code forgot."""

    @pytest.fixture
    def refund(self, staff, gateway) -> DepositRefund:
        give_back(staff, paid(), "40.00")
        return DepositRefund.objects.get()

    def update(self, refund, **changes):
        with transaction.atomic():
            DepositRefund.objects.filter(pk=refund.pk).update(**changes)

    def test_given_one_form_when_sent_twice_then_one_refund(self, staff, gateway):
        intent, form_id = paid(), uuid4()
        order(staff, intent, "10.00", form_id)
        with pytest.raises(InvalidState):
            order(staff, intent, "10.00", form_id)
        assert balance(intent.user) == Decimal("90.00")

    @pytest.mark.parametrize("column", ["amount", "currency", "gateway", "reason", "created_at"])
    def test_given_a_refund_when_its_terms_change_then_refused(self, refund, column):
        values = {
            "amount": Decimal("1.00"), "currency": "EUR", "gateway": "sandbox",
            "reason": "Another.", "created_at": Now(),
        }  # fmt: skip
        with refused_by("payments_depositrefund_is_frozen"):
            self.update(refund, **{column: values[column]})

    def test_given_a_reference_when_it_changes_then_refused(self, refund):
        with refused_by("payments_depositrefund_reference_set_once"):
            self.update(refund, gateway_reference="re_other")

    def test_given_success_when_it_would_fail_then_refused(self, refund):
        told(refund, "return.ok")
        with refused_by("payments_depositrefund_first_word_wins"):
            self.update(refund, status="failed", reversal=fund(person(), "40.00"))

    def test_given_no_reversal_when_it_claims_failure_then_refused(self, refund):
        with refused_by("payments_depositrefund_failed_iff_returned"):
            self.update(refund, status="failed", next_attempt_at=None, completed_at=Now())

    def test_given_somebody_elses_money_when_claimed_as_reversal_then_refused(self, refund):
        with refused_by("payments_depositrefund_reversal_is_its_own"):
            self.update(
                refund, status="failed", next_attempt_at=None, completed_at=Now(),
                reversal=fund(person(), "40.00"),
            )  # fmt: skip

    def test_given_a_reversal_when_nothing_failed_then_refused(self, refund):
        with refused_by("transactions_transaction_refund_has_failed"), transaction.atomic():
            TransactionService.return_refund(
                refund_id=refund.transaction_id, effect_key="deposit_refund_failed:x",
                description="",
            )  # fmt: skip

    def test_given_a_second_reversal_when_posted_then_refused(self, refund):
        told(refund, "return.failed")
        with refused_by("transactions_transaction_undone_once"), transaction.atomic():
            TransactionService.return_refund(
                refund_id=refund.transaction_id, effect_key="again", description=""
            )

    def test_given_money_sent_back_when_nobody_ordered_it_then_refused(self):
        intent = paid()
        with refused_by("transactions_transaction_refund_is_ordered"), transaction.atomic():
            TransactionService.refund_deposit(
                SourceRefund(
                    deposit_id=intent.transaction_id, amount=None, effect_key="x", description=""
                )
            )

    @pytest.mark.parametrize("verb", ["DELETE FROM", "TRUNCATE"])
    def test_given_even_the_serving_role_when_rows_are_removed_then_refused(self, refund, verb):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"{verb} payments_depositrefund")
        assert DepositRefund.objects.count() == 1
