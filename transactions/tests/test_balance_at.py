"""`/wallets/me/balance/`, now and at a moment: an answer about the past never changes again."""

import threading
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections, transaction

from fintech_core.database import database_time
from transactions.balances import balance_at
from transactions.models import TransactionLedger
from transactions.services import TransactionService
from transactions.tests.helpers import (
    at_once,
    capture,
    client_of,
    fund,
    hold_of,
    let_time_pass,
    person,
    reserve,
    send,
)
from users.models import User
from users.tests.helpers import refusal, wrong_fields

URL = "/api/v1/wallets/me/balance/"
pytestmark = pytest.mark.django_db(transaction=True)


def shown(user: User, at: Any = None) -> dict[str, str]:
    response = client_of(user).get(URL, {"at": at} if at else {})
    assert response.status_code == 200, response.content
    return response.json()


def rfc3339(moment: Any) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def entry_of(user: User) -> TransactionLedger:
    return TransactionLedger.objects.filter(wallet=user.wallet).latest("sequence")


class TestNow:
    def test_given_money_when_reading_then_what_is_there_and_when(self):
        alice = person("100.00")
        before = database_time()
        answer = shown(alice)
        assert answer["as_of"] >= rfc3339(before)
        assert {name: answer[name] for name in ("currency", "balance", "held", "available")} == {
            "currency": "USD",
            "balance": "100.00",
            "held": "0.00",
            "available": "100.00",
        }

    def test_given_nobody_when_reading_then_401(self, client):
        assert refusal(client.get(URL)) == (401, "not_authenticated")


class TestAtAMoment:
    def test_given_history_when_asking_then_the_balance_as_it_was(self):
        alice, bob = person("100.00"), person()
        first = database_time()
        send(alice, bob, "30.00")
        second = database_time()
        fund(alice, "5.00")
        assert shown(alice, rfc3339(first))["balance"] == "100.00"
        assert shown(alice, rfc3339(second)) == {
            "currency": "USD",
            "balance": "70.00",
            "held": "0.00",
            "available": "70.00",
            "as_of": rfc3339(second),
        }
        assert shown(bob, rfc3339(first))["balance"] == "0.00"

    def test_given_the_very_moment_when_asking_then_what_was_completed_then_counts(self):
        alice = person("100.00")
        at = entry_of(alice).created_at
        assert shown(alice, rfc3339(at))["balance"] == "100.00"
        just_before = at - timedelta(microseconds=1)
        assert shown(alice, rfc3339(just_before))["balance"] == "0.00"

    @pytest.mark.parametrize(
        "written",
        [
            "{:%Y-%m-%dT%H:%M:%S.%f}Z",
            "{:%Y-%m-%d %H:%M:%S.%f}z",
            "{:%Y-%m-%dt%H:%M:%S.%f}999Z",  # cut off after the microseconds
            "{:%Y-%m-%dT%H:%M:%S.%f}+00:00",
            "{:%Y-%m-%dT%H:%M:%S.%f} 00:00",  # a "+" that was not escaped in the URL
            "{:%Y-%m-%dT%H:%M:%S.%f}-00:00",
        ],
    )
    def test_given_any_spelling_of_rfc_3339_when_asking_then_it_is_read(self, written):
        alice = person("100.00")
        at = entry_of(alice).created_at
        assert shown(alice, written.format(at))["as_of"] == rfc3339(at)

    def test_given_an_offset_when_asking_then_it_is_the_same_moment(self):
        alice = person("100.00")
        at = entry_of(alice).created_at
        local = (at + timedelta(hours=5, minutes=30)).replace(tzinfo=None).isoformat()
        assert shown(alice, f"{local}+05:30")["balance"] == "100.00"

    @pytest.mark.parametrize(
        "at",
        [
            "",
            "now",
            "yesterday",
            "2026-11-22",
            "2026-11-22T13:00:00",  # no offset: not a moment
            "2026-11-22T13:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-11-22T25:00:00Z",
            "2026-11-22T13:00:60Z",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "1969-12-31T23:59:59Z",
            "1732280400",
            "\uff12\uff10\uff12\uff16-11-22T13:00:00Z",
            "2026-11-22T13:00:00Z\x00",
            "2026-11-22T13:00:00Z; DROP TABLE",
        ],
    )
    def test_given_no_moment_when_asking_then_400_names_at(self, at):
        assert wrong_fields(client_of(person()).get(URL, {"at": at})) == ["at"]

    def test_given_the_future_when_asking_then_400(self):
        alice = person("100.00")
        at = rfc3339(database_time() + timedelta(seconds=5))
        response = client_of(alice).get(URL, {"at": at})
        assert wrong_fields(response) == ["at"]
        assert response.json()["errors"][0]["code"] == "future"

    def test_given_a_moment_before_the_wallet_when_asking_then_400(self):
        alice = person("100.00")
        at = rfc3339(alice.wallet.created_at - timedelta(microseconds=1))
        response = client_of(alice).get(URL, {"at": at})
        assert wrong_fields(response) == ["at"]
        assert response.json()["errors"][0]["code"] == "before_opening"
        assert shown(alice, rfc3339(alice.wallet.created_at))["balance"] == "0.00"


class TestHolds:
    def test_given_a_hold_when_asking_then_held_as_it_was(self):
        alice, bob = person("100.00"), person()
        before = database_time()
        hold = hold_of(reserve(alice, bob, "40.00"))
        during = database_time()
        capture(bob, hold, "15.00")
        after = database_time()

        def at(moment: Any) -> tuple[str, ...]:
            answer = shown(alice, rfc3339(moment))
            return answer["balance"], answer["held"], answer["available"]

        assert at(before) == ("100.00", "0.00", "100.00")
        assert at(hold.created_at) == ("100.00", "40.00", "60.00")
        assert at(during) == ("100.00", "40.00", "60.00")
        assert at(after) == ("85.00", "0.00", "85.00")
        assert shown(bob, rfc3339(during))["held"] == "0.00"

    def test_given_a_capture_when_asking_for_its_moment_then_never_half_of_it(self):
        alice, bob = person("100.00"), person()
        hold = hold_of(reserve(alice, bob, "40.00"))
        capture(bob, hold)
        captured_at = entry_of(alice).created_at
        at = shown(alice, rfc3339(captured_at))
        before = shown(alice, rfc3339(captured_at - timedelta(microseconds=1)))
        assert (at["balance"], at["held"]) == ("60.00", "0.00")
        assert (before["balance"], before["held"]) == ("100.00", "40.00")

    def test_given_several_holds_when_asking_then_each_counts_while_it_was_active(self, owner):
        alice, bob = person("100.00"), person()
        old = hold_of(reserve(alice, bob, "1.00"))
        let_time_pass(owner, old)  # due, but no job has tidied it up: it is still held
        reserve(alice, bob, "2.00")
        voided = hold_of(reserve(alice, bob, "4.00"))
        during = database_time()
        TransactionService.void_hold(caller=bob, hold_id=voided.pk)
        assert shown(alice, rfc3339(during))["held"] == "7.00"
        assert shown(alice, rfc3339(database_time()))["held"] == "3.00"


class TestRaces:
    def test_given_a_posting_in_flight_when_asking_then_it_waits_and_counts_it(self):
        """The posting has read the clock; whoever asks afterwards must not miss it."""
        alice = person("100.00")
        posted, asked = threading.Event(), threading.Event()

        def post_slowly() -> None:
            with transaction.atomic():
                fund(alice, "11.00")
                posted.set()
                asked.wait(timeout=5)
                threading.Event().wait(0.3)
            connections.close_all()

        slow = threading.Thread(target=post_slowly)
        slow.start()
        assert posted.wait(timeout=5)
        at = database_time()
        asked.set()
        answer = balance_at(alice.pk, at)
        slow.join(timeout=10)
        assert answer.balance == Decimal("111.00")
        assert entry_of(alice).created_at <= at

    def test_given_readers_when_asking_at_once_then_they_share_the_wallet(self):
        alice = person("100.00")
        at = database_time()
        with transaction.atomic():
            balance_at(alice.pk, at)
            answers: list[Any] = []

            def read() -> None:
                answers.append(balance_at(alice.pk, at).balance)
                connections.close_all()

            reader = threading.Thread(target=read)
            reader.start()
            reader.join(timeout=3)
            assert answers == [Decimal("100.00")]

    @pytest.mark.parametrize("readers", [2, 4, 8])
    def test_given_readers_without_end_when_paying_them_then_nobody_waits_for_long(self, readers):
        """Neither who pays them, nor who deals with whoever pays them."""
        alice, bob, carol = person("1000.00"), person("1.00"), person()
        at, stop = database_time(), threading.Event()
        send(alice, bob, "1.00")

        def read() -> int:
            reads = 0
            while not stop.is_set():
                assert balance_at(bob.pk, at).balance == Decimal("1.00")
                reads += 1
            return reads

        def pay() -> list[float]:
            took, until = [], time.monotonic() + 1
            while time.monotonic() < until:
                for payee in (bob, carol):
                    began = time.monotonic()
                    send(alice, payee, "1.00")
                    took.append(time.monotonic() - began)
            stop.set()
            return took

        *reads, took = at_once(*[read] * readers, pay)
        assert isinstance(took, list), took
        assert max(took) < 1.5, took
        assert min(reads) > 3
        assert shown(bob)["balance"] == f"{2 + len(took) // 2}.00"

    def test_given_answers_while_money_moves_when_asking_again_then_the_same(self):
        alice, bob = person("1000.00"), person("1000.00")
        answers = []
        stop = threading.Event()

        def move() -> None:
            while not stop.is_set():
                send(alice, bob, "1.00", key=str(uuid4()))
            connections.close_all()

        movers = [threading.Thread(target=move) for _ in range(2)]
        for mover in movers:
            mover.start()
        for _ in range(40):
            at = database_time()
            answers.append((at, balance_at(alice.pk, at).balance))
        stop.set()
        for mover in movers:
            mover.join(timeout=10)
        assert len({balance for _at, balance in answers}) > 3, "nothing moved meanwhile"
        for at, balance in answers:
            assert balance_at(alice.pk, at).balance == balance
