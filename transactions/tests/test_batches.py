"""Many transfers in one call: what happens, every refusal, rivals, crashes, and what it costs."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import time_machine
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from fintech_core.idempotency import Answer
from transactions import batches, posting
from transactions.models import (
    Transaction,
    TransactionLedger,
    TransferBatch,
    TransferBatchLeg,
)
from transactions.serializers import present_batch
from transactions.services import Batch, TransactionService, Transfer
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    call_by,
    client_of,
    close,
    freeze,
    fund,
    guardian,
    person,
    refused_by,
    reserve,
    send,
    set_limits,
)
from transactions.tests.proofs import tamper
from users.models import User
from users.tests.factories import UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/v1/transactions/batch/"
ATOMIC, INDEPENDENT = "atomic", "independent"


def leg(recipient, amount="10.00", **more):
    to = recipient if isinstance(recipient, str) else str(recipient.pk)
    return {"recipient": to, "amount": amount, **more}


def post(sender, mode, *legs, key=None):
    body = {"mode": mode, "transfers": list(legs)}
    return post_body(sender, body, key)


def post_body(sender, body, key=None):
    return client_of(sender).post(URL, body, headers={"Idempotency-Key": key or str(uuid4())})


def problem_of(response):
    assert response["Content-Type"] == "application/problem+json"
    problem = json.loads(response.content)
    assert problem["status"] == response.status_code
    return problem


def answer_of(response):
    assert response.status_code == 201, response.content
    return json.loads(response.content)


def codes_of(answer):
    """For each leg None, or the code of its refusal."""
    return [result["error"] and result["error"]["code"] for result in answer["results"]]


def direct(sender, mode, *legs, key=None):
    """A batch as the view makes it, without HTTP."""
    asked = [
        Transfer(recipient=str(to.pk), amount=Decimal(amount), currency="USD")
        for to, amount in legs
    ]
    named = [(str(to.pk), amount) for to, amount in legs]
    return TransactionService.transfer_batch(
        sender=sender,
        batch=Batch(mode=TransferBatch.Mode(mode), legs=asked),
        idempotency=replace(call_by(sender, key, legs=named), present=present_batch),
    )


def nothing_moved(*people):
    """Of people who were given 100.00 each, and of nobody else."""
    assert [balance(each) for each in people] == [Decimal("100.00")] * len(people)
    assert not Transaction.objects.exclude(type="deposit").exists()
    assert not TransferBatch.objects.exists()
    assert breaches() == []


class TestBatch:
    @pytest.mark.parametrize("mode", [ATOMIC, INDEPENDENT])
    def test_given_money_when_sending_to_many_then_each_leg_is_a_transfer_of_its_own(self, mode):
        alice, bob, carol = person("100.00"), person(), person()

        answer = answer_of(
            post(
                alice,
                mode,
                leg(bob.email.upper(), "10.5", description="Rent", metadata={"month": "11"}),
                leg(carol, 20),
                leg(str(bob.pk).upper(), "0.01", currency="USD"),
            )
        )

        assert {name: answer[name] for name in answer if name not in ("id", "results")} == {
            "mode": mode,
            "status": "completed",
            "count": 3,
            "succeeded": 3,
            "failed": 0,
            "total": "30.51",
            "currency": "USD",
        }
        assert [result["index"] for result in answer["results"]] == [0, 1, 2]
        assert {result["status"] for result in answer["results"]} == {"succeeded"}
        assert codes_of(answer) == [None] * 3
        made = [
            Transaction.objects.get(pk=result["transaction_id"]) for result in answer["results"]
        ]
        assert {each.type for each in made} == {"transfer"}
        assert [each.to_user_id for each in made] == [bob.pk, carol.pk, bob.pk]
        assert [each.amount for each in made] == [Decimal("10.50"), Decimal(20), Decimal("0.01")]
        assert (made[0].description, made[0].metadata) == ("Rent", {"month": "11"})
        assert (balance(alice), balance(bob), balance(carol)) == (
            Decimal("69.49"),
            Decimal("10.51"),
            Decimal("20.00"),
        )
        assert breaches() == []

    def test_given_a_batch_when_reading_the_ledger_then_the_balances_run_leg_by_leg(self):
        alice, bob = person("100.00"), person()
        answer_of(post(alice, ATOMIC, *[leg(bob, "10.00")] * 3))
        lines = TransactionLedger.objects.filter(wallet__user=bob).order_by("sequence")
        assert [line.balance_after for line in lines] == [10, 20, 30]

    def test_given_a_batch_when_done_then_it_is_on_record_with_its_legs(self):
        alice, bob = person("15.00"), person()
        answer = answer_of(post(alice, INDEPENDENT, leg(bob), leg(bob)))
        batch = TransferBatch.objects.get()
        assert (str(batch.pk), batch.user_id, batch.status) == (answer["id"], alice.pk, "partial")
        assert (batch.count, batch.succeeded, batch.failed, batch.total) == (2, 1, 1, 10)
        rows = batch.legs.order_by("index").values_list("transaction_id", "error_code")
        assert list(rows) == [
            (Transaction.objects.get(type="transfer").pk, ""),
            (None, "insufficient_funds"),
        ]
        assert batch.created_at == Transaction.objects.get(type="transfer").created_at


class TestLegs:
    """Each is decided in the light of those before it."""

    def test_given_money_for_two_when_three_are_asked_for_then_the_third_is_refused(self):
        alice, bob = person("25.00"), person()
        answer = answer_of(post(alice, INDEPENDENT, *[leg(bob)] * 3, leg(bob, "5.00")))
        assert codes_of(answer) == [None, None, "insufficient_funds", None]
        assert (answer["status"], answer["succeeded"], answer["failed"]) == ("partial", 3, 1)
        assert answer["total"] == "25.00"
        assert (balance(alice), balance(bob)) == (Decimal(0), Decimal("25.00"))
        assert breaches() == []

    def test_given_a_hold_when_sending_then_only_what_is_available_counts(self):
        alice, bob = person("30.00"), person()
        reserve(alice, bob, "15.00")
        answer = answer_of(post(alice, INDEPENDENT, leg(bob), leg(bob)))
        assert codes_of(answer) == [None, "insufficient_funds"]
        assert breaches() == []

    def test_given_a_recipients_limit_when_legs_fill_it_then_the_rest_is_refused(self):
        alice, newcomer = person("2000.00"), UserFactory()  # not approved: 1,000.00 at most
        answer = answer_of(
            post(
                alice,
                INDEPENDENT,
                leg(newcomer, "600.00"),
                leg(newcomer, "400.01"),
                leg(newcomer, "400.00"),
            )
        )
        assert codes_of(answer) == [None, "recipient_unavailable", None]
        assert balance(newcomer) == Decimal("1000.00")

    def test_given_no_money_when_trying_amounts_then_they_tell_nothing_of_a_balance(self):
        spy, bob = person(), person("100.00")
        set_limits(bob, balance_max="115.00")
        legs = [leg(bob, amount) for amount in ("0.01", "15.00", "15.01", "9000.00")]
        for mode in (ATOMIC, INDEPENDENT):
            response = post(spy, mode, *legs)
            told = [problem_of(response)["code"]] if mode == ATOMIC else codes_of(response.json())
            assert set(told) == {"insufficient_funds"}

    def test_given_every_kind_of_refusal_when_independent_then_the_others_go_through(self):
        alice, bob, gone, closed = person("20000.00"), person(), person(), person()
        User.objects.filter(pk=gone.pk).update(is_active=False)
        close(closed)
        answer = answer_of(
            post(
                alice,
                INDEPENDENT,
                leg(alice),
                leg(bob, "1.00"),
                leg(alice.email.upper()),
                leg("nobody@example.com"),
                leg(str(uuid4())),
                leg(gone),
                leg(closed.email),
                leg(bob, currency="EUR"),
                leg(bob, "10000.01"),
                leg(bob, "20000.00"),
                leg(bob, "2.00"),
            )
        )
        assert codes_of(answer) == [
            "self_transfer",
            None,
            "self_transfer",
            "recipient_not_found",
            "recipient_not_found",
            "recipient_unavailable",
            "recipient_unavailable",
            "currency_mismatch",
            "limit_exceeded",
            "insufficient_funds",
            None,
        ]
        for result in answer["results"]:
            assert (result["transaction_id"] is None) == (result["error"] is not None)
            assert result["status"] == ("failed" if result["error"] else "succeeded")
            assert not result["error"] or set(result["error"]) == {"code", "title", "detail"}
        assert (answer["status"], answer["total"]) == ("partial", "3.00")
        assert (balance(alice), balance(bob)) == (Decimal("19997.00"), Decimal("3.00"))
        assert breaches() == []

    def test_given_a_daily_limit_when_legs_use_it_up_then_the_rest_is_refused(self):
        alice, bob = person("90000.00"), person()
        legs = [leg(bob, "9999.99")] * 5 + [leg(bob, "0.06"), leg(bob, "0.05"), leg(bob, "0.01")]
        answer = answer_of(post(alice, INDEPENDENT, *legs))
        assert codes_of(answer) == [None] * 5 + ["limit_exceeded", None, "limit_exceeded"]
        assert answer["total"] == "50000.00"
        problem = problem_of(post(alice, ATOMIC, leg(bob, "0.01")))
        assert (problem["code"], problem["index"]) == ("limit_exceeded", 0)
        assert breaches() == []

    def test_given_a_refused_atomic_batch_when_sending_again_then_no_limit_was_used(self):
        alice, bob = person("90000.00"), person()
        post(alice, ATOMIC, *[leg(bob, "10000.00")] * 5, leg(alice))
        answer = answer_of(post(alice, ATOMIC, *[leg(bob, "10000.00")] * 5))
        assert answer["total"] == "50000.00"

    def test_given_a_frozen_wallet_when_independent_then_201_and_every_leg_failed(self):
        alice, bob = person("100.00"), person("100.00")
        freeze(alice)
        answer = answer_of(post(alice, INDEPENDENT, leg(bob), leg(alice), leg(bob)))
        assert codes_of(answer) == ["wallet_frozen", "self_transfer", "wallet_frozen"]
        assert (answer["status"], answer["total"]) == ("failed", "0.00")
        assert (answer["succeeded"], answer["failed"]) == (0, 3)
        assert balance(bob) == Decimal("100.00")
        assert TransferBatch.objects.get().status == "failed"


class TestAtomic:
    @pytest.mark.parametrize(
        ("refused", "code"),
        [
            (lambda alice, bob: leg(alice), "self_transfer"),
            (lambda alice, bob: leg("nobody@example.com"), "recipient_not_found"),
            (lambda alice, bob: leg(bob, "99900.01"), "insufficient_funds"),
            (lambda alice, bob: leg(bob, currency="EUR"), "currency_mismatch"),
            (lambda alice, bob: leg(bob, "90.01"), "insufficient_funds"),
        ],
    )
    def test_given_a_leg_that_cannot_be_made_when_atomic_then_nothing_moves(self, refused, code):
        alice, bob = person("100.00"), person("100.00")
        response = post(alice, ATOMIC, leg(bob), refused(alice, bob), leg("no@example.com"))
        problem = problem_of(response)
        assert (problem["status"], problem["code"], problem["index"]) == (422, code, 1)
        nothing_moved(alice, bob)

    def test_given_a_recipient_without_room_when_atomic_then_nothing_moves(self):
        alice, bob = person("100.00"), person("100.00")
        set_limits(bob, balance_max="115.00")
        problem = problem_of(post(alice, ATOMIC, leg(bob, "15.01")))
        assert (problem["code"], problem["index"]) == ("recipient_unavailable", 0)
        nothing_moved(alice, bob)

    def test_given_a_full_recipient_when_atomic_then_no_leg_tells_how_much_room_there_is(self):
        spy, bob, full = person("100.00"), person("100.00"), person("5.00")
        set_limits(bob, balance_max="115.00")
        set_limits(full, balance_max="5.00")
        cents = [leg(bob, "0.50") for _ in range(40)]
        told = [
            problem_of(post(spy, ATOMIC, *legs))
            for legs in (
                cents,
                [leg(bob, "15.00"), leg(full, "0.01")],
                [leg(bob, "15.01"), leg(full, "0.01")],
            )
        ]
        for problem in told:
            assert problem["code"] == "recipient_unavailable"
            assert "index" not in problem
        nothing_moved(spy, bob)

    def test_given_an_amount_no_empty_wallet_takes_when_atomic_then_its_leg_is_named(self):
        alice, bob, full = person("100.00"), person("100.00"), person("100.00")
        set_limits(full, balance_max="50.00")
        problem = problem_of(post(alice, ATOMIC, leg(bob), leg(full, "0.01"), leg(full, "50.01")))
        assert (problem["code"], problem["index"]) == ("recipient_unavailable", 2)
        nothing_moved(alice, bob, full)

    @pytest.mark.parametrize("amount", ["15.00", "15.01"])
    def test_given_a_leg_that_must_fail_when_asking_for_room_then_it_is_not_told(self, amount):
        alice, bob = person("100.00"), person("100.00")
        set_limits(bob, balance_max="115.00")
        problem = problem_of(post(alice, ATOMIC, leg(bob, amount), leg(alice)))
        assert (problem["code"], problem["index"]) == ("self_transfer", 1)
        nothing_moved(alice, bob)

    def test_given_too_much_for_one_transfer_when_atomic_then_limit_exceeded(self):
        alice, bob = person("20000.00"), person()
        problem = problem_of(post(alice, ATOMIC, leg(bob), leg(bob), leg(bob, "10000.01")))
        assert (problem["status"], problem["code"], problem["index"]) == (422, "limit_exceeded", 2)
        assert balance(alice) == Decimal("20000.00")

    def test_given_a_frozen_wallet_when_atomic_then_the_first_leg_is_refused(self):
        alice, bob = person("100.00"), person("100.00")
        freeze(alice)
        problem = problem_of(post(alice, ATOMIC, leg(bob)))
        assert (problem["status"], problem["code"], problem["index"]) == (422, "wallet_frozen", 0)
        nothing_moved(alice, bob)

    def test_given_a_refusal_when_money_has_arrived_since_then_the_same_refusal(self):
        alice, bob = person("5.00"), person()
        first = post(alice, ATOMIC, leg(bob), key="k")
        fund(alice, "100.00")
        again = post(alice, ATOMIC, leg(bob), key="k")
        assert problem_of(first)["code"] == "insufficient_funds"
        assert again.content == first.content
        assert again["Idempotent-Replayed"] == "true"
        assert answer_of(post(alice, ATOMIC, leg(bob), key="k2"))["status"] == "completed"


class TestWholeCall:
    @pytest.mark.parametrize("mode", [ATOMIC, INDEPENDENT])
    @pytest.mark.parametrize("kyc", ["not_submitted", "pending", "rejected"])
    def test_given_a_sender_who_is_not_approved_when_sending_then_403(self, mode, kyc):
        newcomer, bob = person("100.00", kyc=kyc), person("100.00")
        problem = problem_of(post(newcomer, mode, leg(newcomer), leg(bob)))
        assert (problem["status"], problem["code"]) == (403, "kyc_required")
        assert "index" not in problem
        nothing_moved(newcomer, bob)

    def test_given_no_token_when_sending_then_401(self, client):
        response = client.post(URL, {}, content_type="application/json")
        assert (response.status_code, problem_of(response)["code"]) == (401, "not_authenticated")

    @pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
    def test_given_another_method_when_calling_then_405(self, method):
        response = getattr(client_of(person()), method)(URL)
        assert (response.status_code, problem_of(response)["code"]) == (405, "method_not_allowed")

    def test_given_no_key_when_sending_then_400(self):
        alice, bob = person("100.00"), person("100.00")
        body = {"mode": ATOMIC, "transfers": [leg(bob)]}
        response = client_of(alice).post(URL, body)
        assert problem_of(response)["code"] == "idempotency_key_required"
        nothing_moved(alice, bob)

    def test_given_a_batch_when_counting_calls_then_it_is_one(self, settings):
        settings.RATE_LIMIT_TRANSFER = "2/m"
        alice, bob = person("100.00"), person()
        answer_of(post(alice, ATOMIC, *[leg(bob, "1.00")] * 5))
        answer_of(post(alice, ATOMIC, *[leg(bob, "1.00")] * 5))
        problem = problem_of(post(alice, ATOMIC, leg(bob)))
        assert (problem["status"], problem["code"]) == (429, "rate_limited")

    def test_given_many_legs_when_the_hours_are_used_up_then_429_and_none_is_looked_up(
        self, settings, monkeypatch
    ):
        monkeypatch.undo()  # conftest's one window: the clock is this test's own
        settings.RATE_LIMIT_TRANSFER = "60/m"  # so 3600 legs an hour
        spy, unknown = person(), [leg(f"nobody{number}@example.com") for number in range(1000)]
        hour = datetime(2099, 1, 1, 12, tzinfo=UTC)
        with time_machine.travel(hour, tick=False) as clock:
            for _ in range(3):
                assert set(codes_of(answer_of(post(spy, INDEPENDENT, *unknown)))) == {
                    "recipient_not_found"
                }
            refused = post(spy, INDEPENDENT, *unknown)
            assert problem_of(refused)["code"] == "rate_limited"
            wait = int(refused["Retry-After"])
            assert 0 < wait <= 3600
            assert TransferBatch.objects.count() == 3
            # What was refused is not used up, and a body that is none is told so.
            assert post(spy, INDEPENDENT, *unknown[:600]).status_code == 201
            assert problem_of(post(spy, INDEPENDENT, unknown[0]))["code"] == "rate_limited"
            clock.shift(timedelta(seconds=wait))
            too_many = problem_of(post(spy, INDEPENDENT, *unknown, *unknown, *unknown, *unknown))
            assert too_many["code"] == "validation_error"
            assert post(spy, INDEPENDENT, *unknown[:10]).status_code == 201

    def test_given_a_low_rate_when_sending_the_largest_batch_then_it_goes(self, settings):
        settings.RATE_LIMIT_TRANSFER = "2/m"
        alice, bob = person("1000.00"), person()
        assert answer_of(post(alice, ATOMIC, *[leg(bob, "1.00")] * 1000))["total"] == "1000.00"


class TestShape:
    @pytest.mark.parametrize(
        ("change", "fields"),
        [
            ({"transfers": []}, {"transfers"}),
            (
                {"transfers": [{"recipient": "b@example.com", "amount": "0.01"}] * 1001},
                {"transfers"},
            ),
            ({"transfers": None}, {"transfers"}),
            ({"transfers": {}}, {"transfers"}),
            ({"transfers": "all"}, {"transfers"}),
            ({"transfers": [1]}, {"transfers[0]"}),
            ({"transfers": [None]}, {"transfers[0]"}),
            ({"transfers": [[]]}, {"transfers[0]"}),
            ({"transfers": [{}]}, {"transfers[0].recipient", "transfers[0].amount"}),
            ({"mode": "both"}, {"mode"}),
            ({"mode": None}, {"mode"}),
            ({"mode": ["atomic"]}, {"mode"}),
            ({"mode": True}, {"mode"}),
            ({"notify": True}, {"notify"}),
        ],
    )
    def test_given_no_batch_when_sending_then_400_and_nothing_moves(self, change, fields):
        alice, bob = person("100.00"), person("100.00")
        body = {"mode": INDEPENDENT, "transfers": [leg(bob)], **change}
        problem = problem_of(post_body(alice, body))
        assert (problem["status"], problem["code"]) == (400, "validation_error")
        assert {error["field"] for error in problem["errors"]} == fields
        nothing_moved(alice, bob)

    @pytest.mark.parametrize("missing", ["mode", "transfers"])
    def test_given_a_missing_member_when_sending_then_400(self, missing):
        alice, bob = person("100.00"), person("100.00")
        body = {"mode": ATOMIC, "transfers": [leg(bob)]}
        del body[missing]
        problem = problem_of(post_body(alice, body))
        assert [error["field"] for error in problem["errors"]] == [missing]
        nothing_moved(alice, bob)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"amount": "0.00"}, "amount"),
            ({"amount": "1.001"}, "amount"),
            ({"amount": "NaN"}, "amount"),
            ({"amount": True}, "amount"),
            ({"recipient": "nobody"}, "recipient"),
            ({"recipient": "a\x00@example.com"}, "recipient"),
            ({"currency": "usd"}, "currency"),
            ({"description": "x" * 256}, "description"),
            ({"metadata": {"a": 1}}, "metadata.a"),
            ({"from": "bob"}, "from"),
        ],
    )
    @pytest.mark.parametrize("mode", [ATOMIC, INDEPENDENT])
    def test_given_one_bad_leg_when_sending_then_400_names_it(self, mode, wrong, field):
        alice, bob = person("100.00"), person("100.00")
        legs = [leg(bob)] * 3 + [{**leg(bob), **wrong}] + [leg(bob)]
        problem = problem_of(post(alice, mode, *legs))
        assert (problem["status"], problem["code"]) == (400, "validation_error")
        assert [error["field"] for error in problem["errors"]] == [f"transfers[3].{field}"]
        nothing_moved(alice, bob)

    def test_given_a_thousand_bad_legs_when_sending_then_the_answer_stays_small(self):
        alice = person("100.00")
        response = post(alice, ATOMIC, *[{"amount": "x", "to": "b"}] * 1000)
        assert problem_of(response)["code"] == "validation_error"
        assert len(response.content) < 20_000


class TestOnce:
    def test_given_a_retry_when_sending_then_the_same_bytes_and_no_second_effect(self):
        alice, bob = person("100.00"), person()
        first = post(alice, INDEPENDENT, leg(bob), leg(alice), key="k")
        again = post(alice, INDEPENDENT, leg(bob.email.upper()), leg(alice), key="k")
        assert problem_of(again)["code"] == "idempotency_key_reused"  # an email is not an id
        again = post(alice, INDEPENDENT, leg(bob, 10), leg(alice, currency="USD"), key="k")
        assert again.content == first.content
        assert again["Idempotent-Replayed"] == "true"
        assert balance(bob) == Decimal("10.00")
        assert TransferBatch.objects.count() == 1

    def test_given_another_order_under_the_key_when_sending_then_422(self):
        alice, bob = person("100.00"), person()
        post(alice, ATOMIC, leg(bob, "1.00"), leg(bob, "2.00"), key="k")
        problem = problem_of(post(alice, ATOMIC, leg(bob, "2.00"), leg(bob, "1.00"), key="k"))
        assert problem["code"] == "idempotency_key_reused"

    def test_given_the_key_of_a_transfer_when_sending_a_batch_then_it_is_a_key_of_its_own(self):
        alice, bob = person("100.00"), person()
        transfer = "/api/v1/transactions/transfer/"
        client_of(alice).post(transfer, leg(bob), headers={"Idempotency-Key": "k"})
        answer_of(post(alice, ATOMIC, leg(bob), key="k"))
        assert balance(bob) == Decimal("20.00")

    @pytest.mark.parametrize(
        ("module", "function"),
        [
            (posting, "send_along"),
            (batches, "_record"),
            (batches, "send_along"),
        ],
    )
    def test_given_a_crash_in_the_middle_when_retrying_then_it_is_done_once(
        self, monkeypatch, module, function
    ):
        alice, bob, carol = person("100.00"), person(), person()
        with monkeypatch.context() as broken:
            broken.setattr(module, function, _die)
            with pytest.raises(SystemError):
                direct(alice, ATOMIC, (bob, "10.00"), (carol, "20.00"), key="k")
        assert balance(alice) == Decimal("100.00")
        assert not TransferBatch.objects.exists()

        first = direct(alice, ATOMIC, (bob, "10.00"), (carol, "20.00"), key="k")
        again = direct(alice, ATOMIC, (bob, "10.00"), (carol, "20.00"), key="k")

        assert (first.status, first.replayed, again.replayed) == (201, False, True)
        assert (balance(bob), balance(carol)) == (Decimal("10.00"), Decimal("20.00"))
        assert breaches() == []


def _die(*arguments, **options):
    raise SystemError("the process is gone")


class TestAtTheSameTime:
    def test_given_simultaneous_duplicates_when_sending_then_one_effect(self):
        alice, bob, carol = person("100.00"), person(), person()
        legs = [(bob, "10.00"), (carol, "10.00"), (bob, "5.00")]
        outcomes = at_once(*[lambda: direct(alice, ATOMIC, *legs, key="k")] * 8)
        assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
        assert len({outcome.body for outcome in outcomes}) == 1
        assert [outcome.replayed for outcome in outcomes].count(False) == 1
        assert (balance(bob), balance(carol)) == (Decimal("15.00"), Decimal("10.00"))
        assert breaches() == []

    def test_given_opposite_batches_and_singles_when_they_race_then_none_deadlocks(self):
        people = [person("100.00") for _ in range(4)]

        def pay_all(sender, mode):
            others = [(other, "1.00") for other in people if other != sender]
            return [direct(sender, mode, *others, *reversed(others)) for _ in range(4)]

        def pay_one(sender, recipient):
            return [send(sender, recipient, "1.00") for _ in range(8)]

        first, second, third, fourth = people
        outcomes = at_once(
            lambda: pay_all(first, ATOMIC),
            lambda: pay_all(fourth, INDEPENDENT),
            lambda: pay_all(second, ATOMIC),
            lambda: pay_one(third, first),
            lambda: pay_one(first, fourth),
        )

        answers = [answer for each in outcomes for answer in each]
        assert {answer.status for answer in answers} == {201}
        assert sum(map(balance, people)) == Decimal("400.00")
        assert breaches() == []

    def test_given_money_for_one_batch_when_four_race_then_one_moves(self):
        alice, bob, carol = person("30.00"), person(), person()
        legs = [(bob, "10.00"), (carol, "15.00")]
        outcomes = at_once(*[lambda: direct(alice, ATOMIC, *legs)] * 4)
        assert sorted(outcome.status for outcome in outcomes) == [201, 422, 422, 422]
        assert (balance(alice), balance(bob)) == (Decimal("5.00"), Decimal("10.00"))
        assert breaches() == []

    def test_given_a_freeze_when_a_batch_races_with_it_then_it_is_whole_or_not_at_all(self):
        alice, bob = person("100.00"), person()

        guardian()  # made before the race
        outcome, _ = at_once(
            lambda: direct(alice, ATOMIC, *[(bob, "1.00")] * 50), lambda: freeze(alice)
        )
        assert balance(bob) == (Decimal("50.00") if outcome.status == 201 else Decimal(0))
        assert breaches() == []


class TestSize:
    def test_given_a_thousand_legs_when_sending_then_all_arrive(self):
        alice, people = person("1000.00"), [person() for _ in range(40)]
        legs = [leg(people[number % 40], "1.00") for number in range(1000)]
        answer = answer_of(post(alice, ATOMIC, *legs))
        assert (answer["succeeded"], answer["total"]) == (1000, "1000.00")
        assert balance(alice) == Decimal(0)
        assert {balance(each) for each in people} == {Decimal("25.00")}
        assert len({result["transaction_id"] for result in answer["results"]}) == 1000
        assert breaches() == []

    def test_given_more_legs_when_sending_then_no_more_statements(self):
        alice, people = person("1000.00"), [person() for _ in range(30)]
        for each in people:
            set_limits(each, balance_max="5000.00")

        def statements(count):
            legs = [(people[number % 30], "1.00") for number in range(count)]
            with CaptureQueriesContext(connection) as queries:
                assert direct(alice, INDEPENDENT, *legs).status == 201
            return len(queries)

        assert statements(2) == statements(300)
        assert statements(300) <= 20


class TestRules:
    """PostgreSQL refuses, whoever writes."""

    def _batch(self):
        alice, bob = person("100.00"), person()
        answer_of(post(alice, INDEPENDENT, leg(bob), leg(alice)))
        return TransferBatch.objects.get()

    def _made(self, user, **facts):
        whole = {"mode": ATOMIC, "status": "completed", "count": 1, "succeeded": 1, "failed": 0}
        made = Transaction.objects.filter(type="transfer").order_by("-id").first()
        at = made.created_at if made else None
        return TransferBatch(
            user=user, **{**whole, "total": "10.00", "currency": "USD", "created_at": at, **facts}
        )

    @pytest.mark.parametrize(
        ("table", "statement"),
        [
            ("transferbatch", "UPDATE transactions_transferbatch SET total = 1"),
            ("transferbatch", "DELETE FROM transactions_transferbatch"),
            ("transferbatch", "TRUNCATE transactions_transferbatch CASCADE"),
            ("transferbatchleg", "UPDATE transactions_transferbatchleg SET error_code = 'x'"),
            ("transferbatchleg", "DELETE FROM transactions_transferbatchleg"),
            ("transferbatchleg", "TRUNCATE transactions_transferbatchleg"),
        ],
    )
    def test_given_a_batch_when_changing_it_as_its_owner_then_refused(
        self, owner, table, statement
    ):
        self._batch()
        with pytest.raises(Exception, match="is history"):
            owner.execute(statement)

    def test_given_a_batch_that_counts_wrongly_when_committing_then_refused(self):
        batch = self._batch()
        lonely = self._made(batch.user)
        with refused_by("transactions_transferbatch_is_whole"):
            lonely.save(force_insert=True)

    def test_given_a_whole_batch_when_a_leg_joins_then_refused(self):
        batch = self._batch()
        with refused_by("transactions_transferbatchleg_fits"):
            TransferBatchLeg.objects.create(batch=batch, index=2, error_code="insufficient_funds")

    def test_given_the_transfer_of_another_batch_when_claiming_it_then_refused(self):
        batch = self._batch()
        send(batch.user, person(), "10.00")
        other = Transaction.objects.filter(type="transfer").order_by("-id").first()
        stranger = person()
        claimed = self._made(stranger)
        with refused_by("transactions_transferbatchleg_fits"), transaction.atomic():
            claimed.save(force_insert=True)
            TransferBatchLeg.objects.create(batch=claimed, index=0, transaction=other)

    def test_given_an_earlier_transfer_of_ones_own_when_claiming_it_then_refused(self):
        alice = person("100.00")
        sent = send(alice, person(), "10.00").content["id"]
        claimed = self._made(alice)
        with refused_by("transactions_transferbatchleg_fits"), transaction.atomic():
            claimed.save(force_insert=True)
            TransferBatchLeg.objects.create(batch=claimed, index=0, transaction_id=sent)

    def test_given_an_atomic_batch_when_a_leg_failed_then_refused(self):
        batch = self._batch()
        torn = self._made(batch.user, status="partial", count=2, failed=1)
        with refused_by("transactions_transferbatch_atomic_is_whole"):
            torn.save(force_insert=True)


@pytest.mark.django_db(transaction=True)
def test_given_a_refused_recipient_ahead_of_the_clock_when_sending_then_the_others_are_paid(owner):
    """A clock stepped back: the wallet of somebody whom nobody pays does not date the others."""
    alice, early, bob = person("10.00"), person("10.00"), person()
    ahead = f"'{datetime.now(tz=UTC) + timedelta(minutes=10)}'"
    deposit = f"SELECT id FROM transactions_transaction WHERE to_user_id = '{early.pk}'"
    tamper(
        owner,
        f"UPDATE transactions_transactionledger SET created_at = {ahead}"
        f" WHERE transaction_id IN ({deposit})",
        f"UPDATE transactions_transaction SET created_at = {ahead}, completed_at = {ahead}"
        f" WHERE id IN ({deposit})",
        f"UPDATE wallet_wallet SET last_entry_at = {ahead} WHERE user_id = '{early.pk}'",
    )
    answer = direct(alice, INDEPENDENT, (early, "500.00"), (bob, "1.00"))
    assert [leg["status"] for leg in answer.content["results"]] == ["failed", "succeeded"]
    assert balance(bob) == Decimal("1.00")
