"""Refunds over HTTP and in PostgreSQL: partial, several, never more than the original."""

from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from transactions import refunds
from transactions.models import StaffRefund, Transaction, TransactionLedger
from transactions.posting import post as post_one
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    capture,
    client_of,
    close,
    freeze,
    fund,
    hold_of,
    person,
    refund,
    refused_by,
    reserve,
    send,
    unfreeze,
)
from transactions.tests.test_transfer import refusal
from users.models import User
from users.tests.factories import StaffFactory
from wallet.locking import lock_wallets

URL = "/api/v1/transactions/{}/refund/"


def give_back(user, paid, body=None, key=None):
    return client_of(user).post(
        URL.format(paid),
        {} if body is None else body,
        headers={"Idempotency-Key": key or str(uuid4())},
    )


def refunded(paid):
    return Transaction.objects.get(pk=paid).refunded_amount


@pytest.fixture
def alice():
    return person("100.00", first_name="Alice", last_name="Archer")


@pytest.fixture
def bob():
    return person(first_name="Bob", last_name="Tanner")


@pytest.fixture
def paid(alice, bob):
    """Alice paid Bob 40.00."""
    return send(alice, bob, "40.00").content["id"]


def locked(user):
    return lock_wallets(user.wallet.pk)[user.wallet.pk]


@pytest.mark.django_db(transaction=True)
class TestRefund:
    def test_given_a_payment_when_refunding_it_then_the_money_goes_back(self, alice, bob, paid):
        response = give_back(bob, paid, {"reason": "The bicycle was broken"})

        assert response.status_code == 201
        answer = response.json()
        assert (answer["type"], answer["status"], answer["amount"], answer["currency"]) == (
            "refund",
            "completed",
            "40.00",
            "USD",
        )
        assert answer["parent_id"] == paid
        assert answer["from_user"] == {"id": str(bob.pk), "display_name": "Bob T."}
        assert answer["to_user"] == {"id": str(alice.pk), "display_name": "Alice A."}
        assert answer["description"] == "The bicycle was broken"
        assert answer["balance_after"] == "0.00"
        assert (balance(alice), balance(bob)) == (Decimal("100.00"), Decimal("0.00"))
        assert refunded(paid) == Decimal("40.00")
        entries = TransactionLedger.objects.filter(transaction_id=answer["id"])
        assert {(e.wallet.user_id, e.entry_type, e.balance_after) for e in entries} == {
            (bob.pk, "debit", Decimal("0.00")),
            (alice.pk, "credit", Decimal("100.00")),
        }
        assert breaches() == []

    def test_given_several_parts_when_refunding_then_up_to_the_original_and_no_further(
        self, alice, bob, paid
    ):
        fund(bob, "100.00")
        assert give_back(bob, paid, {"amount": "15.00"}).json()["balance_after"] == "125.00"
        assert give_back(bob, paid, {"amount": "20.00"}).status_code == 201
        more = give_back(bob, paid, {"amount": "5.01"})
        assert refusal(more) == (422, "amount_exceeds_remaining")
        assert more.json()["remaining"] == "5.00"
        rest = give_back(bob, paid)
        assert (rest.status_code, rest.json()["amount"]) == (201, "5.00")
        for body in ({}, {"amount": "0.01"}):
            assert refusal(give_back(bob, paid, body)) == (422, "amount_exceeds_remaining")
        assert (balance(alice), balance(bob)) == (Decimal("100.00"), Decimal("100.00"))
        assert Transaction.objects.filter(parent_id=paid, type="refund").count() == 3
        assert breaches() == []

    def test_given_a_capture_when_refunding_it_then_the_payer_has_it_back(self, alice, bob):
        made = capture(bob, hold_of(reserve(alice, bob, "40.00")), "30.00").content["id"]
        assert refusal(give_back(bob, made, {"amount": "30.01"})) == (
            422,
            "amount_exceeds_remaining",
        )
        assert give_back(bob, made).json()["amount"] == "30.00"
        assert (balance(alice), balance(bob)) == (Decimal("100.00"), Decimal("0.00"))
        assert breaches() == []

    def test_given_staff_when_refunding_then_the_recipients_money_is_taken(self, alice, bob, paid):
        answer = give_back(StaffFactory(), paid, {"amount": "10.00"}).json()
        assert (answer["amount"], answer["balance_after"]) == ("10.00", None)
        assert (balance(alice), balance(bob)) == (Decimal("70.00"), Decimal("30.00"))

    def test_given_the_payer_when_refunding_then_403_even_if_staff(self, alice, bob, paid):
        assert refusal(give_back(alice, paid)) == (403, "permission_denied")
        type(alice).objects.filter(pk=alice.pk).update(is_staff=True)
        alice.refresh_from_db()
        assert refusal(give_back(alice, paid)) == (403, "permission_denied")
        assert balance(bob) == Decimal("40.00")

    def test_given_a_stranger_or_nothing_when_refunding_then_404(self, paid):
        assert refusal(give_back(person(), paid)) == (404, "not_found")
        assert refusal(give_back(StaffFactory(), uuid4())) == (404, "not_found")

    def test_given_nobody_signed_in_or_no_key_when_refunding_then_401_and_400(self, bob, paid):
        assert refusal(APIClient().post(URL.format(paid))) == (401, "not_authenticated")
        response = client_of(bob).post(URL.format(paid))
        assert refusal(response) == (400, "idempotency_key_required")

    @pytest.mark.parametrize(
        "body",
        [
            {"amount": "0"},
            {"amount": "-1"},
            {"amount": "1.001"},
            {"amount": None},
            {"reason": "x" * 256},
            {"reason": 7},
            {"parent_id": str(uuid4())},
            [],
        ],
    )
    def test_given_a_body_that_is_none_when_refunding_then_400(self, bob, paid, body):
        assert refusal(give_back(bob, paid, body)) == (400, "validation_error")
        assert refunded(paid) == 0

    def test_given_another_type_when_refunding_then_409(self, alice, bob, paid):
        deposit = Transaction.objects.get(type="deposit", to_user=alice).pk
        given_back = refund(bob, paid, "1.00").content["id"]
        for caller, made in [
            (alice, deposit),
            (alice, given_back),
            (StaffFactory(), deposit),
            (StaffFactory(), given_back),
        ]:
            assert refusal(give_back(caller, made)) == (409, "invalid_state")
        assert balance(alice) == Decimal("61.00")

    def test_given_too_little_money_when_refunding_then_nothing_is_written(self, alice, bob, paid):
        send(bob, alice, "30.00")
        reserve(bob, alice, "4.00")
        assert refusal(give_back(bob, paid, {"amount": "6.01"})) == (422, "insufficient_funds")
        assert refunded(paid) == 0
        assert give_back(bob, paid, {"amount": "6.00"}).status_code == 201

    def test_given_several_reasons_when_refunding_then_in_the_contracts_order(
        self, alice, bob, paid
    ):
        send(bob, alice, "40.00")
        freeze(bob)
        type(alice).objects.filter(pk=alice.pk).update(is_active=False)
        assert refusal(give_back(bob, paid, {"amount": "40.01"})) == (
            422,
            "amount_exceeds_remaining",
        )
        assert refusal(give_back(bob, paid)) == (422, "recipient_unavailable")
        type(alice).objects.filter(pk=alice.pk).update(is_active=True)
        assert refusal(give_back(bob, paid)) == (422, "wallet_frozen")
        assert refusal(give_back(StaffFactory(), paid)) == (422, "wallet_frozen")
        unfreeze(bob)
        assert refusal(give_back(bob, paid)) == (422, "insufficient_funds")

    def test_given_a_closed_payer_when_refunding_then_recipient_unavailable(self, bob):
        dora = person("5.00")
        paid = send(dora, bob, "5.00").content["id"]
        close(dora)
        assert refusal(give_back(bob, paid)) == (422, "recipient_unavailable")
        assert balance(bob) == Decimal("5.00")

    def test_given_staff_when_refunding_then_it_is_on_record_and_the_recipients_is_not(
        self, bob, paid
    ):
        staff = StaffFactory()
        by_staff = give_back(staff, paid, {"amount": "1.00"}).json()["id"]
        give_back(bob, paid, {"amount": "1.00"})
        record = StaffRefund.objects.get()
        assert (str(record.transaction_id), record.staff) == (by_staff, staff)

    def test_given_a_refund_by_staff_when_looking_in_the_admin_then_it_shows_who(
        self, client, paid
    ):
        staff = StaffFactory(permissions=["transactions.view_transaction"])
        made = give_back(staff, paid).json()["id"]
        client.force_login(staff)
        for shown, who in ((made, str(staff)), (paid, "-")):
            page = client.get(f"/admin/transactions/transaction/{shown}/change/").content.decode()
            label = page.index("Refunded by staff")
            assert who in page[label : label + 600]

    def test_given_staff_who_were_paid_when_refunding_then_it_is_their_own(self, alice):
        staff = StaffFactory()
        paid = send(alice, staff, "1.00").content["id"]
        assert give_back(staff, paid).status_code == 201
        assert not StaffRefund.objects.exists()

    @pytest.mark.parametrize("loss", [{"is_staff": False}, {"is_active": False}])
    def test_given_staff_no_more_since_the_request_when_refunding_then_404(self, bob, paid, loss):
        staff = StaffFactory()
        User.objects.filter(pk=staff.pk).update(**loss)
        assert refusal(give_back(staff, paid)) == (404, "not_found")
        assert balance(bob) == Decimal("40.00")

    def test_given_a_payer_at_their_limit_or_frozen_when_refunding_then_it_arrives(
        self, alice, bob, paid
    ):
        fund(alice, "100000.00")
        freeze(alice)
        assert give_back(bob, paid).status_code == 201
        assert balance(alice) == Decimal("100100.00")

    def test_given_a_recipient_without_kyc_when_refunding_then_it_goes(self, alice):
        newcomer = person(kyc="not_submitted")
        paid = send(alice, newcomer, "5.00").content["id"]
        assert give_back(newcomer, paid).status_code == 201

    def test_given_a_retry_when_refunding_then_the_same_bytes_and_one_refund(self, bob, paid):
        first = give_back(bob, paid, {"amount": "10.00"}, key="k")
        again = give_back(bob, paid, {"amount": 10, "reason": ""}, key="k")
        other = give_back(bob, paid, {"amount": "11.00"}, key="k")
        assert first.content == again.content
        assert again["Idempotent-Replayed"] == "true"
        assert refusal(other) == (422, "idempotency_key_reused")
        assert refunded(paid) == Decimal("10.00")

    def test_given_a_remembered_refusal_when_money_has_arrived_since_then_the_same_refusal(
        self, alice, bob, paid
    ):
        send(bob, alice, "40.00")
        first = give_back(bob, paid, key="k")
        fund(bob, "100.00")
        again = give_back(bob, paid, key="k")
        assert refusal(first) == (422, "insufficient_funds")
        assert (again.content, again["Idempotent-Replayed"]) == (first.content, "true")

    def test_given_one_key_when_refunding_two_payments_then_they_do_not_meet(
        self, alice, bob, paid
    ):
        other = send(alice, bob, "1.00").content["id"]
        assert give_back(bob, paid, key="k").status_code == 201
        second = give_back(bob, other, key="k")
        assert second.status_code == 201
        assert "Idempotent-Replayed" not in second

    def test_given_many_refunds_when_one_customer_hurries_then_429(self, settings, bob, paid):
        settings.RATE_LIMIT_TRANSFER = "2/m"
        answers = [give_back(bob, paid, {"amount": "1.00"}).status_code for _ in range(3)]
        assert answers == [201, 201, 429]

    def test_given_a_refund_when_the_payer_reads_their_history_then_it_is_a_line_of_its_own(
        self, alice, bob, paid
    ):
        refund(bob, paid, "3.00")
        line = client_of(alice).get("/api/v1/transactions/history/").json()["results"][0]
        assert (line["type"], line["amount"], line["balance_after"]) == ("refund", "3.00", "63.00")


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_given_a_payment_when_sixteen_refunds_race_then_never_above_it(self, alice, bob, paid):
        fund(bob, "1000.00")
        outcomes = at_once(*[lambda: refund(bob, paid, "9.00") for _ in range(16)])
        assert sum(x.status == 201 for x in outcomes) == 4
        refused = {x.content["code"] for x in outcomes if x.status != 201}
        assert refused == {"amount_exceeds_remaining"}
        assert refunded(paid) == Decimal("36.00")
        assert (balance(alice), balance(bob)) == (Decimal("96.00"), Decimal("1004.00"))
        assert breaches() == []

    def test_given_recipient_and_staff_when_each_refunds_the_rest_then_one_wins(
        self, alice, bob, paid
    ):
        fund(bob, "1000.00")
        staff = StaffFactory()
        outcomes = at_once(*[lambda: refund(bob, paid), lambda: refund(staff, paid)] * 8)
        assert sum(x.status == 201 for x in outcomes) == 1
        assert balance(alice) == Decimal("100.00")

    def test_given_refunds_and_payments_both_ways_when_they_race_then_none_deadlocks(self):
        alice, bob = person("100.00"), person("100.00")
        there = [send(alice, bob, "5.00").content["id"] for _ in range(4)]
        back = [send(bob, alice, "5.00").content["id"] for _ in range(4)]
        jobs = [lambda paid=paid: refund(bob, paid, "2.00") for paid in there * 2]
        jobs += [lambda paid=paid: refund(alice, paid, "2.00") for paid in back * 2]
        jobs += [lambda: send(alice, bob, "1.00"), lambda: send(bob, alice, "1.00")]
        outcomes = at_once(*jobs)
        assert [x.status for x in outcomes] == [201] * len(jobs)
        assert (balance(alice), balance(bob)) == (Decimal("100.00"), Decimal("100.00"))
        assert breaches() == []

    def test_given_sixteen_duplicates_when_refunding_then_one_effect(self, alice, bob, paid):
        responses = at_once(*[lambda: give_back(bob, paid, {"amount": "1.00"}, "k")] * 16)
        assert {r.status_code for r in responses} <= {201, 409}
        assert len({r.content for r in responses if r.status_code == 201}) == 1
        assert balance(alice) == Decimal("61.00")


def run(statement, **parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


@pytest.mark.django_db(transaction=True)
class TestRules:
    """The same in raw SQL, as the serving role."""

    @pytest.fixture
    def forge(self, bob, paid, monkeypatch):
        """A refund of 10.00 by the service, with what it posts changed on the way."""

        def refund_with(counted="10.00", **changes):
            def altered(posting):
                made = post_one(replace(posting, **changes))
                # So that the service counts what the test wants counted.
                posting.parent.refunded_amount += Decimal(counted) - posting.amount
                return made

            monkeypatch.setattr(refunds, "post", altered)
            return refund(bob, paid, "10.00")

        return refund_with

    def test_given_nothing_changed_when_refunding_then_it_stands(self, forge, paid):
        assert forge().status == 201
        assert refunded(paid) == Decimal("10.00")

    @pytest.mark.parametrize("counted", ["0.00", "9.99", "10.01"])
    def test_given_another_sum_on_the_original_when_committing_then_refused(
        self, forge, alice, paid, counted
    ):
        with refused_by("transactions_transaction_refunds_are_its_children"):
            forge(counted=counted)
        assert (refunded(paid), balance(alice)) == (0, Decimal("60.00"))

    def test_given_no_parent_when_posting_a_refund_then_refused(self, forge):
        with refused_by("transactions_transaction_refund_fits"):
            forge(parent=None)

    def test_given_a_parent_that_it_does_not_undo_when_posting_then_refused(
        self, forge, alice, bob
    ):
        other_way = Transaction.objects.get(pk=send(bob, alice, "1.00").content["id"])
        deposit = Transaction.objects.get(type="deposit", to_user=alice)
        for parent in (other_way, deposit):
            with refused_by("transactions_transaction_refund_fits"):
                forge(parent=parent)

    def test_given_the_payer_as_its_payer_when_posting_then_refused(self, forge, alice, bob):
        with refused_by("transactions_transaction_refund_fits"):
            forge(debit=locked(alice), credit=locked(bob))

    def test_given_no_refund_when_raising_the_sum_by_hand_then_refused(self, paid):
        with refused_by("transactions_transaction_refunds_are_its_children"):
            run("UPDATE transactions_transaction SET refunded_amount = 1 WHERE type = 'transfer'")

    def test_given_the_owner_when_raising_the_sum_by_hand_then_refused(self, owner, paid):
        with pytest.raises(Exception, match="its refunds are") as refused:
            owner.execute(
                "UPDATE transactions_transaction SET refunded_amount = 1 WHERE type = 'transfer'"
            )
        rule = "transactions_transaction_refunds_are_its_children"
        assert refused.value.diag.constraint_name == rule

    def test_given_a_refund_when_claiming_it_for_staff_by_hand_then_refused(self, alice, bob, paid):
        """Later; for another kind; or for one of the parties."""
        made = refund(bob, paid, "1.00").content["id"]
        staff = StaffFactory()
        with refused_by("transactions_staffrefund_fits"):
            StaffRefund.objects.create(transaction_id=made, staff=staff)
        with refused_by("transactions_staffrefund_fits"), transaction.atomic():
            sent = send(alice, bob, "1.00").content["id"]
            StaffRefund.objects.create(transaction_id=sent, staff=staff)
        for party in (alice, bob):
            with refused_by("transactions_staffrefund_fits"), transaction.atomic():
                made = refund(bob, paid, "1.00").content["id"]
                StaffRefund.objects.create(transaction_id=made, staff=party)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE transactions_staffrefund SET staff_id = staff_id",
            "DELETE FROM transactions_staffrefund",
            "TRUNCATE transactions_staffrefund",
        ],
    )
    def test_given_the_record_when_the_owner_rewrites_it_then_refused(self, owner, paid, statement):
        refund(StaffFactory(), paid, "1.00")
        with pytest.raises(Exception, match="is history"):
            owner.execute(statement)
