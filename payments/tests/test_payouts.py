"""Paying out: the calls under `/payments/payouts/`, their refusals, what becomes of the money."""

import logging
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from fintech_core import idempotency
from fintech_core.exceptions import InvalidState
from fintech_core.models import IdempotencyRecord
from payments import effects, payouts
from payments.effects import disagreement
from payments.exceptions import GatewayRefused, GatewayUnavailable
from payments.gateways.base import NewPayout, Outcome, Subject
from payments.gateways.sandbox import SandboxGateway
from payments.models import Payout, WebhookEvent
from payments.payouts import Destination, NewOrder
from payments.services import PaymentService
from payments.tests.bank import bank_open, statement
from payments.tests.factories import IBAN, PayoutFactory, event_body, pay_out, settle, signed
from payments.tests.helpers import balance, code_of, post_webhook
from transactions.models import Transaction
from transactions.tests.helpers import (
    at_once,
    breaches,
    client_of,
    close,
    freeze,
    fund,
    guardian,
    person,
    reserve,
    set_limits,
)
from users.tests.factories import StaffFactory, UserFactory
from wallet import services as wallets

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/v1/payments/payouts/"
SPACED = "de89 3704 0044 0532 0130 00"
FIELDS = {
    "id",
    "status",
    "amount",
    "currency",
    "gateway",
    "gateway_reference",
    "destination",
    "failure_code",
    "transaction_id",
    "reversal_id",
    "created_at",
    "completed_at",
}


@pytest.fixture
def alice():
    return person("100.00")


def order(**changes):
    destination = {"type": "bank_account", "iban": SPACED, "name": "Ada Lovelace"}
    return {"amount": "40.00", "destination": destination, **changes}


def to(**changes):
    return order(destination={**order()["destination"], **changes})


def create(user, body=None, *, key=None):
    headers = {"Idempotency-Key": key or uuid4().hex}
    return client_of(user).post(URL, body or order(), headers=headers, format="json")


def types_of(user):
    rows = Transaction.objects.filter(from_user=user) | Transaction.objects.filter(to_user=user)
    return [(made.type, made.status) for made in rows.exclude(type="deposit").order_by("pk")]


def clearing():
    """What `payout_clearing` holds: what left wallets and has not come back."""
    return sum(
        entry.signed_amount
        for made in Transaction.objects.all()
        for entry in made.entries.filter(account="payout_clearing")
    )


class TestCreate:
    def test_given_money_when_paid_out_then_it_leaves_the_wallet_at_once(self, alice):
        response = create(alice)
        assert response.status_code == 201
        made = response.json()
        assert set(made) == FIELDS
        assert (made["status"], made["amount"], made["currency"]) == ("pending", "40.00", "USD")
        assert made["gateway_reference"].startswith("sbx_")
        assert made["destination"] == {
            "type": "bank_account",
            "iban": "DE••••3000",
            "name": "Ada Lovelace",
        }
        assert (made["failure_code"], made["reversal_id"], made["completed_at"]) == (None,) * 3
        assert (balance(alice), clearing()) == (Decimal("60.00"), Decimal("40.00"))
        withdrawal = Transaction.objects.get(type="withdrawal")
        assert (withdrawal.status, withdrawal.completed_at) == ("pending", None)
        assert str(withdrawal.pk) == made["transaction_id"]
        assert withdrawal.metadata == {"payout_id": made["id"]}
        assert breaches() == []

    def test_given_an_account_number_when_stored_then_in_the_clear_nowhere(self, alice, caplog):
        with caplog.at_level(logging.DEBUG):
            response = create(alice)
        assert IBAN not in response.content.decode()
        assert Payout.objects.get().iban == IBAN
        with connection.cursor() as cursor:
            cursor.execute("SELECT iban, holder FROM payments_payout")
            assert not {IBAN, "Ada Lovelace"} & set(cursor.fetchone())
        record = IdempotencyRecord.objects.get(resource_id=response.json()["id"])
        assert IBAN not in record.response_body
        assert IBAN not in caplog.text

    def test_given_the_record_of_a_request_then_nobody_can_try_accounts_against_it(self, alice):
        create(alice, key="one")
        asked = {
            "amount": Decimal("40.00"),
            "destination": {"type": "bank_account", "iban": IBAN, "name": "Ada Lovelace"},
            "currency": "USD",
            "gateway": "sandbox",
        }
        guess = idempotency.fingerprint_of(asked)
        assert IdempotencyRecord.objects.get(key="one").fingerprint != guess

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "amount"),
            (order(amount="0.00"), "amount"),
            (order(currency="XX"), "currency"),
            (order(gateway="nobody"), "gateway"),
            (order(destination=None), "destination"),
            (order(extra=1), "extra"),
            (to(type="card"), "destination"),
            (to(name=""), "destination"),
            (to(name="A\u202eB"), "destination"),
            (to(name="x" * 141), "destination"),
            (to(bic="X"), "destination"),
            (to(iban="DE89370400440532013001"), "destination"),
            (to(iban="DE8937040044053201300"), "destination"),
            (to(iban="XX89370400440532013000"), "destination"),
            (to(iban="DE89\u00a0370400440532013000"), "destination"),
            (to(iban="DE\uff189370400440532013000"), "destination"),
            (to(iban=""), "destination"),
            (to(iban=17), "destination"),
        ],
    )
    def test_given_a_bad_field_when_ordered_then_400_names_it_and_no_number(
        self, alice, body, field
    ):
        headers = {"Idempotency-Key": uuid4().hex}
        response = client_of(alice).post(URL, body, headers=headers, format="json")
        assert code_of(response) == (400, "validation_error")
        assert any(error["field"].startswith(field) for error in response.json()["errors"])
        assert "37040044" not in response.content.decode()
        assert balance(alice) == Decimal("100.00")

    def test_given_nobody_when_ordered_then_401(self):
        assert code_of(APIClient().post(URL, order(), format="json"))[0] == 401

    def test_given_no_key_when_ordered_then_400(self, alice):
        response = client_of(alice).post(URL, order(), format="json")
        assert code_of(response) == (400, "idempotency_key_required")

    def test_given_no_kyc_when_ordered_then_403_before_anything_else(self):
        bob = UserFactory()
        assert code_of(create(bob, order(currency="EUR"))) == (403, "kyc_required")
        assert not IdempotencyRecord.objects.filter(user_id=bob.pk).exists()

    def test_given_several_refusals_when_ordered_then_in_the_order_of_the_contract(self, alice):
        reserve(alice, person(), "30.00")
        freeze(alice)
        set_limits(alice, transfer_max="10.00")
        assert code_of(create(alice, order(currency="EUR"))) == (422, "currency_mismatch")
        assert code_of(create(alice, order(amount="80.00"))) == (422, "wallet_frozen")
        wallets.unfreeze(wallet_id=alice.wallet.pk, actor=guardian(), reason="Reviewed.")
        assert code_of(create(alice, order(amount="80.00"))) == (422, "insufficient_funds")
        assert code_of(create(alice, order(amount="10.01"))) == (422, "limit_exceeded")
        assert create(alice, order(amount="10.00")).status_code == 201

    def test_given_a_payout_when_the_day_is_used_up_then_transfers_and_payouts_count(self, alice):
        set_limits(alice, daily_total="50.00")
        assert create(alice).status_code == 201
        assert code_of(create(alice, order(amount="10.01"))) == (422, "limit_exceeded")
        used = client_of(alice).get("/api/v1/wallets/me/limits/").json()
        assert used["daily_total"]["used"] == "40.00"

    def test_given_a_refusal_when_asked_again_then_it_is_remembered(self, alice):
        first = create(alice, order(amount="100.01"), key="k")
        fund(alice, "100.00")
        again = create(alice, order(amount="100.01"), key="k")
        assert (again.status_code, again.content) == (422, first.content)
        assert again["Idempotent-Replayed"] == "true"

    def test_given_the_sandbox_is_off_when_anything_is_called_then_404(self, alice):
        with override_settings(PAYMENTS_SANDBOX=False):
            assert code_of(create(alice)) == (404, "not_found")
            assert code_of(client_of(alice).get(URL)) == (404, "not_found")


class TestRetry:
    def test_given_an_answer_when_asked_again_in_other_words_then_the_same(self, alice):
        first = create(alice, key="k")
        again = create(alice, {**to(iban=IBAN), "currency": "USD", "gateway": "sandbox"}, key="k")
        assert (again.status_code, again.content) == (201, first.content)
        assert again["Idempotent-Replayed"] == "true"
        assert balance(alice) == Decimal("60.00")

    def test_given_another_account_when_the_key_is_used_again_then_422(self, alice):
        create(alice, key="k")
        response = create(alice, to(iban="GB29NWBK60161331926819"), key="k")
        assert code_of(response) == (422, "idempotency_key_reused")
        assert Payout.objects.count() == 1

    def test_given_the_gateway_is_away_when_asked_then_503_and_the_retry_goes_on(self, alice):
        with bank_open() as bank:
            bank.is_away = True
            body = order(gateway="bank")
            assert code_of(create(alice, body, key="k")) == (503, "service_unavailable")
            assert (balance(alice), clearing()) == (Decimal("60.00"), Decimal("40.00"))
            bank.is_away = False
            response = create(alice, body, key="k")
            assert response.status_code == 201
            payout = Payout.objects.get()
            assert response.json()["gateway_reference"] == f"bank_{payout.pk.hex}"
            assert bank.asked == [f"payout:{payout.pk}"] * 2
            assert len(bank.orders) == 1
        assert (balance(alice), clearing()) == (Decimal("60.00"), Decimal("40.00"))
        assert breaches() == []

    def test_given_a_crash_after_the_gateway_answered_when_retried_then_one_payout(
        self, alice, monkeypatch
    ):
        with bank_open() as bank:
            body = order(gateway="bank")
            with monkeypatch.context() as broken:
                broken.setattr(payouts, "attach", lambda *_: 1 / 0)
                assert code_of(create(alice, body, key="k")) == (500, "internal_error")
            assert code_of(create(alice, body, key="k")) == (409, "idempotency_in_progress")
            IdempotencyRecord.objects.update(busy_until=timezone.now())
            assert create(alice, body, key="k").status_code == 201
            assert len(bank.orders) == 1
        assert balance(alice) == Decimal("60.00")

    def test_given_the_gateway_forgets_keys_when_retried_late_then_it_is_not_asked(
        self, alice, monkeypatch
    ):
        with bank_open() as bank:
            bank.is_away = True
            create(alice, order(gateway="bank"), key="k")
            bank.is_away = False
            monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
            response = create(alice, order(gateway="bank"), key="k")
            assert code_of(response) == (503, "service_unavailable")
            assert bank.orders == {}

    def test_given_a_lost_answer_when_refused_at_the_retry_then_503_and_no_money_back(self, alice):
        with bank_open() as bank:
            bank.loses_answers = True
            create(alice, order(gateway="bank"), key="k")
            bank.refuses_with = "blocked"
            for _ in range(2):
                response = create(alice, order(gateway="bank"), key="k")
                assert code_of(response) == (503, "service_unavailable")
            assert (Payout.objects.get().status, len(bank.orders)) == ("pending", 1)
            bank.refuses_with, bank.loses_answers = "", False
            assert create(alice, order(gateway="bank"), key="k").status_code == 201
        assert balance(alice) == Decimal("60.00")
        assert breaches() == []

    def test_given_a_refusal_when_it_was_asked_again_meanwhile_then_no_money_back(
        self, alice, monkeypatch
    ):
        with bank_open() as bank:
            take = bank.payout

            def refuse_the_slower(adapter, asked):
                monkeypatch.setattr(bank, "payout", take)
                payouts.ask(Payout.objects.get())  # its lease ran out; the answer is not stored yet
                raise GatewayRefused("blocked")

            monkeypatch.setattr(bank, "payout", refuse_the_slower)
            response = create(alice, order(gateway="bank"), key="k")
            assert code_of(response) == (503, "service_unavailable")
            assert (Payout.objects.get().status, len(bank.orders)) == ("pending", 1)
            response = create(alice, order(gateway="bank"), key="k")
            assert response.json()["gateway_reference"] == f"bank_{Payout.objects.get().pk.hex}"
            assert len(bank.orders) == 1
        assert balance(alice) == Decimal("60.00")
        assert breaches() == []

    def test_given_a_refusal_when_it_is_asked_again_afterwards_then_it_is_not_sent(
        self, alice, monkeypatch
    ):
        with bank_open() as bank:
            stale = []

            def refuse(adapter, asked):
                stale.append(Payout.objects.get())  # as somebody else has read it
                raise GatewayRefused("blocked")

            with monkeypatch.context() as unwilling:
                unwilling.setattr(bank, "payout", refuse)
                assert create(alice, order(gateway="bank")).json()["status"] == "failed"
            with pytest.raises(payouts.Undecided):
                payouts.ask(stale[0])
            assert bank.orders == {}
        assert balance(alice) == Decimal("100.00")

    def test_given_it_was_given_up_meanwhile_when_the_gateway_took_it_then_staff_are_told(
        self, alice, monkeypatch, caplog
    ):
        with bank_open() as bank:
            take = bank.payout

            def take_slowly(adapter, asked):
                with monkeypatch.context() as late:
                    late.setattr(payouts, "ASKED_WITHIN", timedelta(0))
                    staff = StaffFactory(permissions=["payments.settle_payout"])
                    PaymentService.give_up_payout(payout_id=asked.id, by=staff)
                monkeypatch.setattr(bank, "payout", take)
                IdempotencyRecord.objects.filter(key="k").update(busy_until=timezone.now())
                assert create(alice, order(gateway="bank"), key="k").json()["status"] == "failed"
                return take(adapter, asked)

            monkeypatch.setattr(bank, "payout", take_slowly)
            assert create(alice, order(gateway="bank"), key="k").json()["status"] == "failed"
            payout = Payout.objects.get()
            assert payout.gateway_reference == f"bank_{payout.pk.hex}"
            told = [record for record in caplog.records if record.levelname == "ERROR"]
            assert [(one.payout, one.reference) for one in told] == [
                (str(payout.pk), payout.gateway_reference)
            ]
            with transaction.atomic(), pytest.raises(effects.Disagreement):
                effects.apply(statement(payout, Outcome.PAID), "bank")
        assert (payout.status, balance(alice)) == ("failed", Decimal("100.00"))
        assert breaches() == []

    def test_given_a_wallet_frozen_since_when_retried_then_503_and_it_is_not_sent(self, alice):
        with bank_open() as bank:
            bank.is_away = True
            create(alice, order(gateway="bank"), key="k")
            bank.is_away = False
            freeze(alice)
            response = create(alice, order(gateway="bank"), key="k")
            assert code_of(response) == (503, "service_unavailable")
            assert bank.orders == {}

    def test_given_an_order_when_printed_then_without_the_account_and_its_owner(self):
        to = Destination(iban=IBAN, name="Ada Lovelace")
        asked = NewOrder(amount=Decimal("1"), currency="USD", gateway="bank", destination=to)
        sent = NewPayout(
            id=uuid4(),
            amount=Decimal("1"),
            currency="USD",
            idempotency_key="k",
            iban=IBAN,
            name="Ada Lovelace",
        )
        assert not [text for text in (IBAN, "Ada") if text in f"{to!r}{asked!r}{sent!r}"]

    def test_given_a_gateway_that_refuses_when_ordered_then_the_money_is_back_at_once(self, alice):
        with bank_open() as bank:
            bank.refuses_with = "account_closed"
            response = create(alice, order(gateway="bank"), key="k")
            assert response.status_code == 201
            made = response.json()
            assert (made["status"], made["failure_code"]) == ("failed", "account_closed")
            assert None not in (made["reversal_id"], made["completed_at"])
            bank.refuses_with = ""
            assert create(alice, order(gateway="bank"), key="k").json() == made
            assert bank.orders == {}
        assert (balance(alice), clearing()) == (Decimal("100.00"), 0)
        assert types_of(alice) == [("withdrawal", "failed"), ("reversal", "completed")]
        assert breaches() == []


class TestRead:
    def test_given_payouts_when_listed_then_ones_own_newest_first_and_by_status(self, alice):
        first, second = pay_out(alice, "1.00"), pay_out(alice, "2.00")
        PayoutFactory()
        settle(first, "payout.paid")
        client = client_of(alice)
        assert ids(client.get(URL)) == [str(second.pk), str(first.pk)]
        assert ids(client.get(URL, {"status": "paid"})) == [str(first.pk)]
        assert code_of(client.get(URL, {"status": "lost"})) == (400, "validation_error")

    def test_given_another_persons_when_read_then_it_does_not_exist(self, alice):
        payout = PayoutFactory()
        assert code_of(client_of(alice).get(f"{URL}{payout.pk}/")) == (404, "not_found")
        assert client_of(payout.user).get(f"{URL}{payout.pk}/").status_code == 200

    @pytest.mark.parametrize("method", ["put", "patch", "delete"])
    def test_given_a_payout_when_changed_then_405(self, alice, method):
        response = getattr(client_of(alice), method)(f"{URL}{pay_out(alice).pk}/")
        assert code_of(response) == (405, "method_not_allowed")


class TestWhatStaffPutRight:
    @pytest.fixture
    def bank(self):
        with bank_open() as opened:
            yield opened

    @pytest.fixture
    def lost(self, alice, bank, monkeypatch):
        """Ordered so long ago that nobody asks again."""
        bank.is_away = True
        with pytest.raises(GatewayUnavailable):
            pay_out(alice, gateway="bank")
        bank.is_away = False
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
        return Payout.objects.get()

    def name(self, payout, reference):
        staff = StaffFactory(permissions=[payouts.SETTLE_PERMISSION])
        PaymentService.name_payout_reference(payout_id=payout.pk, by=staff, reference=reference)
        payout.refresh_from_db()

    def give_up(self, payout):
        staff = StaffFactory(permissions=[payouts.SETTLE_PERMISSION])
        PaymentService.give_up_payout(payout_id=payout.pk, by=staff)
        payout.refresh_from_db()

    @pytest.mark.parametrize(
        "otherwise",
        [
            {"amount": Decimal("39.99")},
            {"currency": "EUR"},
            {"subject": Subject.INTENT},
            {"gateway_reference": "po_other"},
        ],
    )
    def test_given_another_order_when_its_reference_is_named_then_refused(
        self, lost, bank, otherwise
    ):
        facts = {"gateway_reference": "po_1", **otherwise}
        bank.says["po_1"] = statement(lost, Outcome.PAID, **facts)
        with pytest.raises(InvalidState):
            self.name(lost, "po_1")
        lost.refresh_from_db()
        assert lost.gateway_reference is None

    def test_given_a_mistyped_reference_when_never_confirmed_then_it_is_named_anew(
        self, lost, bank
    ):
        self.name(lost, "po_tpyo")
        PaymentService.poll_gateways()
        lost.refresh_from_db()
        assert (lost.needs_staff, lost.named_by_staff) == (True, True)
        bank.says["po_typo"] = statement(lost, Outcome.PAID, gateway_reference="po_typo")
        self.name(lost, "po_typo")
        assert (lost.gateway_reference, lost.named_by_staff) == ("po_typo", False)
        for undo in (lambda: self.name(lost, "po_other"), lambda: self.give_up(lost)):
            with pytest.raises(InvalidState, match="The gateway knows this payout"):
                undo()
        PaymentService.poll_gateways()
        lost.refresh_from_db()
        assert (lost.status, balance(lost.user)) == ("paid", Decimal("60.00"))
        assert breaches() == []

    def test_given_a_mistyped_reference_when_given_up_then_the_money_is_back(self, lost):
        self.name(lost, "po_tpyo")
        self.give_up(lost)
        assert (lost.status, lost.gateway_reference) == ("failed", None)
        assert balance(lost.user) == Decimal("100.00")
        assert breaches() == []

    def test_given_a_named_reference_when_the_gateway_speaks_of_it_then_it_is_final(self, lost):
        self.name(lost, "po_1")
        said = statement(lost, Outcome.PROCESSING)
        with transaction.atomic():
            effects.apply(said, "bank")
        with pytest.raises(InvalidState, match="The gateway knows this payout"):
            self.give_up(lost)

    def test_given_a_gateway_that_is_away_when_named_then_nothing_is_stored(self, lost, bank):
        bank.is_away = True
        with pytest.raises(GatewayUnavailable):
            self.name(lost, "po_1")
        assert Payout.objects.get().gateway_reference is None

    @pytest.mark.parametrize(
        ("kind", "data", "status"),
        [
            ("payout.paid", {}, "parked"),
            ("payout.failed", {}, "ignored"),
            ("payout.paid", {"amount": "39.99"}, "ignored"),
            ("payment_intent.succeeded", {}, "ignored"),
        ],
    )
    def test_given_one_was_given_up_when_one_like_it_is_paid_then_staff_are_told(
        self, alice, monkeypatch, kind, data, status
    ):
        with monkeypatch.context() as away:
            away.setattr(payouts, "ask", no_answer)
            with pytest.raises(GatewayUnavailable):
                pay_out(alice)
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
        monkeypatch.setattr(disagreement, "DOUBTED_FOR", timedelta(0))  # of refusals alone
        payout = Payout.objects.get()
        self.give_up(payout)
        event = settle(payout, kind, **{"gateway_reference": "sbx_po_1", **data})
        assert event.status == status
        assert (status == "parked") == ("was refused or given up" in event.last_error)
        assert (payout.status, balance(alice)) == ("failed", Decimal("100.00"))

    @pytest.mark.parametrize(
        ("doubted_for", "status"), [(timedelta(days=30), "parked"), (timedelta(0), "ignored")]
    )
    def test_given_one_was_refused_of_late_when_one_like_it_is_paid_then_staff_are_told(
        self, alice, monkeypatch, doubted_for, status
    ):
        monkeypatch.setattr(disagreement, "DOUBTED_FOR", doubted_for)
        with monkeypatch.context() as unwilling:
            unwilling.setattr(SandboxGateway, "payout", refuse)
            payout = pay_out(alice)
        assert (payout.status, payout.failure_code) == ("failed", "blocked")
        event = settle(payout, "payout.paid", gateway_reference="sbx_po_1")
        assert (event.status, balance(alice)) == (status, Decimal("100.00"))

    def test_given_it_looked_like_one_given_up_when_its_own_order_turns_up_then_that_is_paid(
        self, alice, monkeypatch
    ):
        """The event overtook the reference of another payout, of as much money."""
        with monkeypatch.context() as away:
            away.setattr(payouts, "ask", no_answer)
            for _ in range(2):
                with pytest.raises(GatewayUnavailable):
                    pay_out(alice)
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
        lost, late = Payout.objects.order_by("pk")
        self.give_up(lost)
        event = settle(late, "payout.paid", gateway_reference="sbx_po_1")
        assert event.status == "parked"
        Payout.objects.filter(pk=late.pk).update(gateway_reference="sbx_po_1")
        PaymentService.sweep_webhook_events()
        late.refresh_from_db()
        event.refresh_from_db()
        assert (late.status, event.status, lost.status) == ("paid", "processed", "failed")
        assert breaches() == []


def no_answer(*_):
    raise GatewayUnavailable


def refuse(*_):
    raise GatewayRefused("blocked")


def ids(response):
    return [row["id"] for row in response.json()["results"]]


class TestWhatTheGatewaySays:
    def test_given_paid_when_processed_then_the_withdrawal_is_completed(self, alice):
        payout = pay_out(alice)
        event = settle(payout, "payout.paid")
        assert (event.status, event.payout, event.intent) == ("processed", payout, None)
        payout.refresh_from_db()
        assert (payout.status, payout.reversal, payout.next_poll_at) == ("paid", None, None)
        assert payout.completed_at == payout.transaction.completed_at
        assert types_of(alice) == [("withdrawal", "completed")]
        assert (balance(alice), clearing()) == (Decimal("60.00"), Decimal("40.00"))
        assert breaches() == []

    def test_given_failed_when_processed_then_the_money_comes_back_once(self, alice):
        payout = pay_out(alice)
        for _ in range(3):
            assert settle(payout, "payout.failed").status == "processed"
        assert (payout.status, payout.failure_code) == ("failed", "unspecified")
        assert payout.reversal.parent == payout.transaction
        assert types_of(alice) == [("withdrawal", "failed"), ("reversal", "completed")]
        assert (balance(alice), clearing()) == (Decimal("100.00"), 0)
        assert breaches() == []

    @pytest.mark.parametrize(
        ("first", "second", "left"), [("paid", "failed", "60.00"), ("failed", "paid", "100.00")]
    )
    def test_given_both_when_processed_then_the_first_wins_and_the_other_is_parked(
        self, alice, first, second, left
    ):
        payout = pay_out(alice)
        settle(payout, f"payout.{first}")
        late = settle(payout, f"payout.{second}")
        assert (late.status, late.payout) == ("parked", payout)
        assert f"the payout is {first} for good" in late.last_error
        assert (payout.status, balance(alice)) == (first, Decimal(left))
        assert breaches() == []

    @pytest.mark.parametrize("data", [{"amount": "39.99"}, {"currency": "EUR"}])
    def test_given_other_facts_when_processed_then_parked_and_nothing_moves(self, alice, data):
        payout = pay_out(alice)
        assert settle(payout, "payout.failed", **data).status == "parked"
        assert (payout.status, balance(alice)) == ("pending", Decimal("60.00"))

    @pytest.mark.parametrize("kind", ["payment_intent.succeeded", "payment_intent.failed"])
    def test_given_an_event_of_an_intent_when_it_names_a_payout_then_parked(self, alice, kind):
        payout = pay_out(alice)
        assert settle(payout, kind).status == "parked"
        assert (payout.status, balance(alice)) == ("pending", Decimal("60.00"))

    def test_given_a_frozen_wallet_when_it_failed_then_the_money_comes_back_all_the_same(
        self, alice
    ):
        payout = pay_out(alice)
        freeze(alice)
        settle(payout, "payout.failed")
        assert balance(alice) == Decimal("100.00")

    def test_given_a_failed_payout_when_counted_then_its_limits_stay_used(self, alice):
        set_limits(alice, daily_total="50.00")
        settle(pay_out(alice), "payout.failed")
        assert code_of(create(alice, order(amount="10.01"))) == (422, "limit_exceeded")

    def test_given_money_on_its_way_when_the_wallet_is_closed_then_409_until_it_arrived(self):
        bob = person("40.00")
        payout = pay_out(bob)
        client = client_of(guardian())
        path = f"/api/v1/wallets/{bob.wallet.pk}/close/"
        assert code_of(client.post(path, {"reason": "Left."})) == (409, "invalid_state")
        settle(payout, "payout.paid")
        assert client.post(path, {"reason": "Left."}).status_code == 200

    def test_given_the_event_overtook_the_answer_when_swept_then_it_settles(
        self, alice, monkeypatch
    ):
        with monkeypatch.context() as away:
            away.setattr(payouts, "attach", lambda *_: 1 / 0)
            assert code_of(create(alice, key="k")) == (500, "internal_error")
        payout = Payout.objects.get()
        early = settle(payout, "payout.failed", gateway_reference=payouts.ask(payout))
        assert (early.status, payout.status) == ("ignored", "pending")
        IdempotencyRecord.objects.update(busy_until=timezone.now())
        assert create(alice, key="k").json()["gateway_reference"] == early.gateway_reference
        PaymentService.sweep_webhook_events()
        payout.refresh_from_db()
        assert (payout.status, balance(alice)) == ("failed", Decimal("100.00"))

    def test_given_the_sandbox_says_it_when_delivered_over_http_then_it_is_settled(self, alice):
        payout = pay_out(alice)
        body = event_body(payout, "payout.failed")
        assert post_webhook(body, signed(body)).status_code == 200
        PaymentService.sweep_webhook_events()
        assert balance(alice) == Decimal("100.00")


class TestAtOnce:
    def test_given_one_key_when_ordered_eight_times_at_once_then_one_payout(self):
        alice = person("100.00")
        answers = at_once(*[lambda: create(alice, key="k")] * 8)
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert (Payout.objects.count(), balance(alice)) == (1, Decimal("60.00"))
        assert breaches() == []

    def test_given_many_keys_when_ordered_at_once_then_no_more_than_there_is(self):
        alice = person("100.00")
        answers = at_once(*[lambda: create(alice)] * 6)
        assert sorted(answer.status_code for answer in answers) == [201] * 2 + [422] * 4
        assert balance(alice) == Decimal("20.00")
        assert breaches() == []

    @pytest.mark.parametrize("_", range(3))
    def test_given_paid_and_failed_when_processed_at_once_then_one_wins(self, _):
        alice = person("100.00")
        payout = pay_out(alice)
        kinds = ["payout.paid", "payout.failed"] * 3
        at_once(*[lambda kind=kind: settle(payout, kind) for kind in kinds])
        PaymentService.sweep_webhook_events()
        payout.refresh_from_db()
        won = {"paid": Decimal("60.00"), "failed": Decimal("100.00")}
        assert balance(alice) == won[payout.status]
        outcomes = WebhookEvent.objects.values_list("event_type", "status")
        assert {status for kind, status in outcomes if kind.endswith(payout.status)} == {
            "processed"
        }
        assert {status for kind, status in outcomes if not kind.endswith(payout.status)} == {
            "parked"
        }
        assert breaches() == []

    @pytest.mark.parametrize("_", range(3))
    def test_given_closing_and_a_payout_when_at_once_then_the_money_has_a_wallet(self, _):
        alice = person("40.00")
        closed, made = at_once(lambda: close(alice), lambda: pay_out(alice))
        payout = Payout.objects.get()
        assert isinstance(closed, Exception)
        assert made == payout
        settle(payout, "payout.failed")
        assert balance(alice) == Decimal("40.00")
        assert breaches() == []
