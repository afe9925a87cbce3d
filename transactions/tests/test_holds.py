"""Holds over HTTP and in PostgreSQL: reserve, capture, void, expire; each resolved exactly once."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import BytesIO
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.utils.dateparse import parse_datetime
from rest_framework.test import APIClient

from fintech_core.exceptions import InvalidState
from fintech_core.idempotency import Answer
from transactions import holds, transfers
from transactions.exceptions import HoldExpired
from transactions.models import Hold, Transaction
from transactions.posting import post as post_one
from transactions.services import TransactionService
from transactions.tasks import expire_holds
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    capture,
    client_of,
    close,
    freeze,
    fund,
    held,
    hold_of,
    let_time_pass,
    person,
    refused_by,
    reserve,
    send,
    set_limits,
    unfreeze,
)
from transactions.tests.proofs import tamper
from transactions.tests.test_transfer import refusal
from users.models import User
from users.tests.factories import StaffFactory, UserFactory

URL = "/api/v1/transactions/holds/"


def post(user, path, body=None, key=None):
    headers = {"Idempotency-Key": key or str(uuid4())}
    return client_of(user).post(path, {} if body is None else body, headers=headers)


def ask(payer, recipient, amount, **more):
    return post(payer, URL, {"recipient": str(recipient.pk), "amount": amount, **more})


def take(recipient, hold, body=None, key=None):
    return post(recipient, f"{URL}{hold.pk}/capture/", body, key)


def void(user, hold):
    return client_of(user).post(f"{URL}{hold.pk}/void/")


def available(user):
    return client_of(user).get("/api/v1/wallets/me/").json()["available"]


@pytest.fixture
def alice():
    return person("100.00", first_name="Alice", last_name="Archer")


@pytest.fixture
def bob():
    return person(first_name="Bob", last_name="Tanner")


@pytest.fixture
def hold(alice, bob):
    return hold_of(reserve(alice, bob, "40.00"))


@pytest.mark.django_db(transaction=True)
class TestCreating:
    def test_given_money_when_holding_it_then_it_leaves_available_but_not_the_wallet(
        self, alice, bob
    ):
        response = ask(
            alice,
            bob,
            "40",
            description="Bicycle",
            metadata={"booking": "117"},
            expires_in=3600,
        )

        assert response.status_code == 201
        answer = response.json()
        assert list(answer) == [
            "id",
            "status",
            "amount",
            "captured_amount",
            "currency",
            "from_user",
            "to_user",
            "description",
            "metadata",
            "transaction_id",
            "expires_at",
            "created_at",
            "resolved_at",
        ]
        assert (answer["status"], answer["amount"], answer["captured_amount"]) == (
            "active",
            "40.00",
            "0.00",
        )
        assert answer["from_user"] == {"id": str(alice.pk), "display_name": "Alice A."}
        assert answer["to_user"] == {"id": str(bob.pk), "display_name": "Bob T."}
        assert (answer["description"], answer["metadata"]) == ("Bicycle", {"booking": "117"})
        assert (answer["transaction_id"], answer["resolved_at"]) == (None, None)
        lasts = parse_datetime(answer["expires_at"]) - parse_datetime(answer["created_at"])
        assert lasts == timedelta(hours=1)
        wallet = client_of(alice).get("/api/v1/wallets/me/").json()
        assert (wallet["balance"], wallet["held"], wallet["available"]) == (
            "100.00",
            "40.00",
            "60.00",
        )
        assert Transaction.objects.exclude(type="deposit").count() == 0
        assert breaches() == []

    def test_given_no_lifetime_when_holding_then_seven_days(self, alice, bob):
        made = hold_of(reserve(alice, bob, "1.00"))
        answer = ask(alice, bob, "1.00").json()
        lasts = parse_datetime(answer["expires_at"]) - parse_datetime(answer["created_at"])
        assert lasts == made.expires_at - made.created_at == timedelta(days=7)

    @pytest.mark.parametrize("seconds", [1, 30 * 86400, "60"])
    def test_given_the_shortest_and_the_longest_lifetime_when_holding_then_201(
        self, alice, bob, seconds
    ):
        assert ask(alice, bob, "1.00", expires_in=seconds).status_code == 201

    @pytest.mark.parametrize(
        "extra",
        [
            {"expires_in": 0},
            {"expires_in": -1},
            {"expires_in": 30 * 86400 + 1},
            {"expires_in": "soon"},
            {"expires_in": "6_0"},
            {"expires_in": " 60 "},
            {"expires_in": "60\n"},
            {"expires_in": "+60"},
            {"expires_in": "60.0"},
            {"expires_in": "\u0666\u0660"},  # 60 in Arabic digits
            {"expires_in": "\uff16\uff10"},
            {"expires_in": 1.5},
            {"expires_in": None},
            {"expires_in": True},
            {"expires_at": "2030-01-01T00:00:00Z"},
            {"status": "captured"},
            {"captured_amount": "1.00"},
            {"amount": "0.001"},
            {"metadata": {"a": 1}},
        ],
    )
    def test_given_a_field_that_is_wrong_when_holding_then_400_and_nothing_is_held(
        self, alice, bob, extra
    ):
        response = post(alice, URL, {"recipient": str(bob.pk), "amount": "1.00", **extra})
        assert refusal(response) == (400, "validation_error")
        assert response.json()["errors"][0]["field"].startswith(next(iter(extra)))
        assert held(alice) == 0

    def test_given_no_token_or_no_key_when_holding_then_401_and_400(self, alice, bob):
        body = {"recipient": str(bob.pk), "amount": "1.00"}
        assert refusal(APIClient().post(URL, body)) == (401, "not_authenticated")
        assert refusal(client_of(alice).post(URL, body)) == (400, "idempotency_key_required")

    def test_given_kyc_not_approved_when_holding_then_403_whatever_else_is_wrong(self):
        newcomer = UserFactory()
        assert refusal(ask(newcomer, newcomer, "1.00")) == (403, "kyc_required")

    def test_given_oneself_or_nobody_as_recipient_when_holding_then_refused(self, alice):
        assert refusal(ask(alice, alice, "1000.00")) == (422, "self_transfer")
        unknown = post(alice, URL, {"recipient": "nobody@example.com", "amount": "1.00"})
        assert refusal(unknown) == (422, "recipient_not_found")

    @pytest.mark.parametrize("why", ["deactivated", "closed"])
    def test_given_a_recipient_who_cannot_receive_when_holding_then_recipient_unavailable(
        self, alice, why
    ):
        bob = UserFactory(is_active=why != "deactivated")
        if why == "closed":
            close(bob)
        assert refusal(ask(alice, bob, "10.01")) == (422, "recipient_unavailable")
        assert held(alice) == 0

    def test_given_a_full_recipient_when_holding_then_their_balance_is_not_told(self, alice, bob):
        fund(bob, "99990.00")
        assert ask(alice, bob, "10.01").status_code == 201
        assert refusal(ask(person(), bob, "10.01")) == (422, "insufficient_funds")

    @pytest.mark.parametrize(("amount", "status"), [("50.00", 201), ("50.01", 422)])
    def test_given_a_recipients_limit_when_holding_then_the_amount_alone_is_measured_by_it(
        self, alice, bob, amount, status
    ):
        set_limits(bob, balance_max="50.00")
        assert ask(alice, bob, amount).status_code == status

    def test_given_several_reasons_when_holding_then_the_contracts_first(self, alice, bob):
        freeze(alice)
        assert refusal(ask(alice, bob, "99000.00", currency="EUR")) == (422, "currency_mismatch")
        assert refusal(ask(alice, bob, "99000.00")) == (422, "wallet_frozen")
        unfreeze(alice)
        assert refusal(ask(alice, bob, "99000.00")) == (422, "insufficient_funds")
        fund(alice, "20000.00")
        assert refusal(ask(alice, bob, "10000.01")) == (422, "limit_exceeded")

    def test_given_a_hold_when_spending_more_than_is_left_then_insufficient_funds(
        self, alice, bob, hold
    ):
        assert refusal(ask(alice, bob, "60.01")) == (422, "insufficient_funds")
        assert send(alice, bob, "60.01").content["code"] == "insufficient_funds"
        assert send(alice, bob, "60.00").status == 201
        assert send(alice, bob, "0.01").content["code"] == "insufficient_funds"
        assert (balance(alice), held(alice)) == (Decimal("40.00"), Decimal("40.00"))

    def test_given_a_retry_when_holding_then_the_same_bytes_and_one_hold(self, alice, bob):
        body = {"recipient": bob.email, "amount": "10.00"}
        first = post(alice, URL, body, key="k")
        again = post(alice, URL, {**body, "amount": 10, "expires_in": 604800}, key="k")
        other = post(alice, URL, {**body, "expires_in": 604799}, key="k")
        assert first.content == again.content
        assert again["Idempotent-Replayed"] == "true"
        assert refusal(other) == (422, "idempotency_key_reused")
        assert held(alice) == Decimal("10.00")

    def test_given_many_holds_when_one_customer_hurries_then_429(self, settings, alice, bob):
        settings.RATE_LIMIT_TRANSFER = "2/m"
        assert [ask(alice, bob, "1.00").status_code for _ in range(3)] == [201, 201, 429]
        assert client_of(alice).get(URL).status_code == 200


@pytest.mark.django_db(transaction=True)
class TestReading:
    def test_given_a_hold_when_each_reads_it_then_both_see_it_and_nobody_else(
        self, alice, bob, hold
    ):
        for reader in (alice, bob):
            response = client_of(reader).get(f"{URL}{hold.pk}/")
            assert response.status_code == 200
            assert response.json()["id"] == str(hold.pk)
        for stranger in (person(), StaffFactory()):
            assert refusal(client_of(stranger).get(f"{URL}{hold.pk}/")) == (404, "not_found")
            assert client_of(stranger).get(URL).json()["results"] == []

    def test_given_holds_both_ways_when_paging_then_each_comes_once_newest_first(self):
        alice, bob, charlie = person("100.00"), person("100.00"), person("100.00")
        pairs = [(alice, bob), (bob, alice), (alice, charlie), (bob, charlie), (charlie, alice)]
        made = [hold_of(reserve(a, b, "1.00")) for a, b in [*pairs, *pairs]]
        mine = [str(h.pk) for h in made if alice.pk in (h.from_user_id, h.to_user_id)][::-1]
        client = client_of(alice)

        pages, url = [], f"{URL}?page_size=3"
        while url:
            page = client.get(url).json()
            pages.append([x["id"] for x in page["results"]])
            url, last = page["next"], page
        assert pages == [mine[:3], mine[3:6], mine[6:]]
        back = client.get(last["previous"]).json()
        assert [x["id"] for x in back["results"]] == pages[1]
        first = client.get(back["previous"]).json()
        assert [x["id"] for x in first["results"]] == pages[0]
        assert first["previous"] is None

    def test_given_filters_when_listing_then_they_apply(self, alice, bob, hold):
        back = hold_of(reserve(person("5.00"), alice, "5.00"))
        capture(bob, hold, "1.00")
        client = client_of(alice)

        def ids(query):
            return [x["id"] for x in client.get(f"{URL}?{query}").json()["results"]]

        assert ids("") == ids("direction=") == [str(back.pk), str(hold.pk)]
        assert ids("direction=out") == ids("status=captured") == [str(hold.pk)]
        assert ids("direction=in") == ids("status=active") == [str(back.pk)]
        assert ids("direction=in&status=captured") == []

    @pytest.mark.parametrize("query", ["status=lost", "direction=up", "cursor=x", "status=%00"])
    def test_given_a_filter_that_cannot_be_read_when_listing_then_400(self, alice, query):
        assert refusal(client_of(alice).get(f"{URL}?{query}")) == (400, "validation_error")


@pytest.mark.django_db(transaction=True)
class TestCapturing:
    def test_given_a_hold_when_capturing_all_then_the_recipient_has_it(self, alice, bob, hold):
        response = take(bob, hold)

        assert response.status_code == 201
        answer = response.json()
        assert (answer["type"], answer["status"], answer["amount"]) == (
            "capture",
            "completed",
            "40.00",
        )
        assert answer["balance_after"] == "40.00"
        assert answer["from_user"]["id"] == str(alice.pk)
        assert answer["to_user"]["id"] == str(bob.pk)
        assert (balance(alice), held(alice), balance(bob)) == (Decimal("60.00"), 0, 40)
        shown = client_of(alice).get(f"{URL}{hold.pk}/").json()
        assert (shown["status"], shown["captured_amount"]) == ("captured", "40.00")
        assert shown["transaction_id"] == answer["id"]
        assert shown["resolved_at"] == answer["created_at"]
        assert breaches() == []

    def test_given_a_part_when_capturing_then_the_rest_is_released(self, alice, bob, hold):
        answer = take(bob, hold, {"amount": "15.50"}).json()
        assert (answer["amount"], answer["balance_after"]) == ("15.50", "15.50")
        assert (balance(alice), held(alice)) == (Decimal("84.50"), 0)
        assert available(alice) == "84.50"
        hold.refresh_from_db()
        assert (hold.amount, hold.captured_amount) == (Decimal("40.00"), Decimal("15.50"))

    @pytest.mark.parametrize("is_readable", [True, False])
    def test_given_a_part_sent_in_chunks_when_capturing_then_never_all(
        self, alice, bob, hold, is_readable
    ):
        response = client_of(bob).generic(
            "POST",
            f"{URL}{hold.pk}/capture/",
            content_type="application/json",
            HTTP_TRANSFER_ENCODING="chunked",
            HTTP_IDEMPOTENCY_KEY="in-chunks",
            **{"wsgi.input": BytesIO(b'{"amount":"15.50"}'), "wsgi.input_terminated": is_readable},
        )
        if is_readable:
            assert (response.status_code, response.json()["amount"]) == (201, "15.50")
        else:
            assert refusal(response) == (400, "parse_error")
            assert held(alice) == Decimal("40.00")

    def test_given_what_it_was_for_when_capturing_then_the_transaction_says_it(self, alice, bob):
        made = ask(alice, bob, "1.00", description="Bicycle", metadata={"booking": "7"}).json()
        answer = take(bob, Hold.objects.get(pk=made["id"])).json()
        assert (answer["description"], answer["metadata"]) == ("Bicycle", {"booking": "7"})

    def test_given_more_than_is_held_when_capturing_then_refused_and_still_active(
        self, alice, bob, hold
    ):
        response = take(bob, hold, {"amount": "40.01"})
        assert refusal(response) == (422, "amount_exceeds_remaining")
        assert response.json()["remaining"] == "40.00"
        assert held(alice) == Decimal("40.00")
        assert take(bob, hold, {"amount": "40.00"}).status_code == 201

    def test_given_the_payer_when_capturing_then_403_and_a_stranger_404(self, alice, bob, hold):
        assert refusal(take(alice, hold)) == (403, "permission_denied")
        for stranger in (person(), StaffFactory()):
            assert refusal(take(stranger, hold)) == (404, "not_found")
        assert refusal(post(bob, f"{URL}{uuid4()}/capture/")) == (404, "not_found")
        assert (held(alice), balance(bob)) == (Decimal("40.00"), 0)

    def test_given_a_captured_hold_when_capturing_or_voiding_then_409(self, alice, bob, hold):
        take(bob, hold, {"amount": "1.00"})
        assert refusal(take(bob, hold, {"amount": "1.00"})) == (409, "invalid_state")
        assert refusal(void(bob, hold)) == (409, "invalid_state")
        assert balance(bob) == Decimal("1.00")

    def test_given_a_retry_when_capturing_then_the_same_bytes_and_one_capture(self, bob, hold):
        first = take(bob, hold, {"amount": "5.00"}, key="k")
        again = take(bob, hold, {"amount": 5}, key="k")
        other = take(bob, hold, {"amount": "6.00"}, key="k")
        assert first.content == again.content
        assert again["Idempotent-Replayed"] == "true"
        assert refusal(other) == (422, "idempotency_key_reused")
        assert balance(bob) == Decimal("5.00")

    def test_given_a_frozen_payer_when_capturing_then_wallet_frozen_until_thawed(
        self, alice, bob, hold
    ):
        freeze(alice)
        assert refusal(take(bob, hold)) == (422, "wallet_frozen")
        assert held(alice) == Decimal("40.00")
        unfreeze(alice)
        assert take(bob, hold).status_code == 201

    def test_given_a_payer_deactivated_since_when_capturing_then_the_promise_holds(
        self, alice, bob, hold
    ):
        type(alice).objects.filter(pk=alice.pk).update(is_active=False)
        assert take(bob, hold).status_code == 201

    def test_given_a_frozen_recipient_when_capturing_then_it_arrives(self, bob, hold):
        freeze(bob)
        assert take(bob, hold).status_code == 201

    @pytest.mark.parametrize("why", ["closed", "full"])
    def test_given_a_recipient_who_cannot_receive_when_capturing_then_refused(
        self, alice, bob, hold, why
    ):
        if why == "closed":
            close(bob)
        else:
            fund(bob, "99960.01")
        assert refusal(take(bob, hold)) == (422, "recipient_unavailable")
        assert held(alice) == Decimal("40.00")

    @pytest.mark.parametrize("body", [{"amount": "0"}, {"amount": None}, {"all": True}, []])
    def test_given_a_body_that_is_none_when_capturing_then_400(self, bob, hold, body):
        assert refusal(take(bob, hold, body)) == (400, "validation_error")

    def test_given_no_key_when_capturing_then_400(self, bob, hold):
        response = client_of(bob).post(f"{URL}{hold.pk}/capture/")
        assert refusal(response) == (400, "idempotency_key_required")


@pytest.mark.django_db(transaction=True)
class TestVoiding:
    def test_given_a_hold_when_the_recipient_voids_it_then_the_money_is_available(
        self, alice, bob, hold
    ):
        response = void(bob, hold)
        assert response.status_code == 200
        answer = response.json()
        assert (answer["status"], answer["captured_amount"]) == ("voided", "0.00")
        assert answer["resolved_at"] >= answer["created_at"]
        assert available(alice) == "100.00"
        assert refusal(take(bob, hold)) == (409, "invalid_state")
        assert refusal(void(bob, hold)) == (409, "invalid_state")
        assert breaches() == []

    def test_given_a_hold_when_staff_void_it_then_200_even_if_the_payer_is_frozen(
        self, alice, hold
    ):
        freeze(alice)
        assert void(StaffFactory(), hold).json()["status"] == "voided"
        assert held(alice) == 0

    def test_given_each_way_to_resolve_when_done_then_it_says_by_whom(
        self, owner, alice, bob, hold
    ):
        staff, taken, due = StaffFactory(), reserve(alice, bob, "1.00"), reserve(alice, bob, "2.00")
        void(staff, hold)
        capture(bob, hold_of(taken))
        let_time_pass(owner, hold_of(due))
        expire_holds()
        assert Hold.objects.get(pk=hold.pk).resolved_by == staff
        assert hold_of(taken).resolved_by == bob
        assert (hold_of(due).status, hold_of(due).resolved_by) == ("expired", None)

    def test_given_a_void_by_staff_when_looking_in_the_admin_then_it_shows_who(self, client, hold):
        staff = StaffFactory(permissions=["transactions.view_hold"])
        void(staff, hold)
        client.force_login(staff)
        shown = client.get(f"/admin/transactions/hold/{hold.pk}/change/").content.decode()
        assert "Captured or voided by" in shown
        assert str(staff) in shown.split("Captured or voided by")[1]

    @pytest.mark.parametrize("loss", [{"is_staff": False}, {"is_active": False}])
    def test_given_staff_no_more_since_the_request_when_voiding_then_404(self, alice, hold, loss):
        staff = StaffFactory()
        User.objects.filter(pk=staff.pk).update(**loss)
        assert refusal(void(staff, hold)) == (404, "not_found")
        assert held(alice) == Decimal("40.00")

    def test_given_the_payer_when_voiding_then_403_even_if_staff(self, bob, alice, hold):
        assert refusal(void(alice, hold)) == (403, "permission_denied")
        type(alice).objects.filter(pk=alice.pk).update(is_staff=True)
        alice.refresh_from_db()
        assert refusal(void(alice, hold)) == (403, "permission_denied")
        assert held(alice) == Decimal("40.00")

    def test_given_a_stranger_or_nothing_when_voiding_then_404(self, hold):
        assert refusal(void(person(), hold)) == (404, "not_found")
        response = client_of(StaffFactory()).post(f"{URL}{uuid4()}/void/")
        assert refusal(response) == (404, "not_found")

    def test_given_a_body_when_voiding_then_400(self, bob, hold):
        response = client_of(bob).post(f"{URL}{hold.pk}/void/", {"amount": "1.00"})
        assert refusal(response) == (400, "validation_error")


@pytest.mark.django_db(transaction=True)
class TestExpiring:
    @pytest.mark.parametrize("act", [take, void])
    def test_given_a_late_call_when_no_job_has_run_then_409_and_the_money_is_free_at_once(
        self, owner, alice, bob, hold, act
    ):
        let_time_pass(owner, hold)
        assert available(alice) == "60.00"
        assert refusal(act(bob, hold)) == (409, "invalid_state")
        assert (available(alice), balance(bob)) == ("100.00", 0)
        hold.refresh_from_db()
        assert hold.status == "expired"
        assert hold.resolved_at > hold.expires_at
        assert refusal(act(bob, hold)) == (409, "invalid_state")
        assert breaches() == []

    def test_given_a_late_call_of_the_payer_when_refused_then_the_hold_is_not_touched(
        self, owner, alice, hold
    ):
        let_time_pass(owner, hold)
        assert refusal(take(alice, hold)) == (403, "permission_denied")
        hold.refresh_from_db()
        assert hold.status == "active"

    def test_given_holds_of_many_people_when_the_job_runs_then_only_the_due_ones_expire(
        self, owner, monkeypatch
    ):
        monkeypatch.setattr(holds, "_BATCH", 3)
        alice, bob, charlie = person("50.00"), person("50.00"), person("50.00")
        due = [hold_of(reserve(alice, bob, "3.00")) for _ in range(4)]
        due += [hold_of(reserve(bob, charlie, "5.00")) for _ in range(4)]
        kept = [hold_of(reserve(a, charlie, "7.00")) for a in (alice, bob)]
        for hold in due:
            let_time_pass(owner, hold)

        expire_holds()

        assert Hold.objects.filter(status="expired").count() == len(due)
        assert set(Hold.objects.filter(status="active")) == set(kept)
        assert (held(alice), held(bob)) == (Decimal("7.00"), Decimal("7.00"))
        assert TransactionService.expire_holds() == 0
        assert breaches() == []

    def test_given_a_wallet_whose_books_are_broken_when_the_job_runs_then_others_go(
        self, owner, alice, bob, hold, caplog
    ):
        others = [hold_of(reserve(person("9.00"), bob, "9.00")) for _ in range(2)]
        for due in (hold, *others):
            let_time_pass(owner, due)
        tamper(owner, f"UPDATE wallet_wallet SET held = 0 WHERE id = '{alice.wallet.pk}'")
        assert TransactionService.expire_holds() == 2
        assert Hold.objects.get(status="active") == hold
        assert str(hold.pk) in {getattr(record, "hold", None) for record in caplog.records}
        assert refusal(take(bob, hold)) == (409, "invalid_state")

    def test_given_a_wallet_in_use_when_the_job_runs_then_others_go_first_and_it_waits(
        self, owner, alice, bob, hold
    ):
        other = hold_of(reserve(person("9.00"), bob, "9.00"))
        for due in (hold, other):
            let_time_pass(owner, due)
        owner.execute("BEGIN")
        owner.execute(
            "SELECT 1 FROM wallet_wallet WHERE id = %s FOR UPDATE", [str(alice.wallet.pk)]
        )
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
        try:
            assert TransactionService.expire_holds() == 1
            other.refresh_from_db()
            assert other.status == "expired"
        finally:
            owner.execute("ROLLBACK")
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '4s'")
        assert TransactionService.expire_holds() == 1
        assert held(alice) == 0

    def test_given_the_schedule_when_reading_it_then_the_job_runs_within_the_promised_minute(
        self, settings
    ):
        entry = settings.CELERY_BEAT_SCHEDULE["expire-holds"]
        assert entry["task"] == expire_holds.name
        assert entry["schedule"] + entry["options"]["expires"] <= 60


def won(outcomes):
    """How many succeeded; the rest were refused for the hold's state, and for nothing else."""
    done = [x for x in outcomes if isinstance(x, Answer | Hold)]
    assert all(isinstance(x, InvalidState) for x in outcomes if x not in done), outcomes
    assert all(x.status == 201 for x in done if isinstance(x, Answer)), done
    return len(done)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_given_eight_captures_when_they_race_then_one_wins(self, alice, bob, hold):
        outcomes = at_once(*[lambda: capture(bob, hold, "10.00") for _ in range(8)])
        assert won(outcomes) == 1
        assert (balance(alice), held(alice), balance(bob)) == (Decimal("90.00"), 0, 10)
        assert breaches() == []

    def test_given_captures_and_voids_when_they_race_then_one_wins(self, alice, bob):
        staff = StaffFactory()
        pairs = [hold_of(reserve(alice, bob, "1.00")) for _ in range(8)]
        for hold in pairs:
            outcomes = at_once(
                lambda hold=hold: capture(bob, hold),
                lambda hold=hold: TransactionService.void_hold(caller=bob, hold_id=hold.pk),
                lambda hold=hold: capture(bob, hold),
                lambda hold=hold: TransactionService.void_hold(caller=staff, hold_id=hold.pk),
            )
            assert won(outcomes) == 1
        captured = Hold.objects.filter(status="captured").count()
        assert captured + Hold.objects.filter(status="voided").count() == len(pairs)
        assert (balance(bob), held(alice)) == (Decimal(captured), 0)
        assert balance(alice) == 100 - captured
        assert breaches() == []

    def test_given_a_hold_that_runs_out_when_captures_and_jobs_race_then_one_way_or_the_other(
        self, alice, bob
    ):
        """The last second of each hold: captured in time, or expired, never both."""
        made = [
            hold_of(reserve(alice, bob, "1.00", seconds=seconds)) for seconds in (4, 1, 1, 1, 2, 2)
        ]

        def capture_late(hold, wait):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(%s)", [wait])
            return capture(bob, hold)

        def tidy():
            for _ in range(30):
                TransactionService.expire_holds()
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(0.1)")

        waits = [0.0, 0.9, 0.98, 1.3, 0.5, 2.2]
        jobs = [lambda h=h, w=w: capture_late(h, w) for h, w in zip(made, waits, strict=True)]
        *outcomes, first, second = at_once(*jobs, tidy, tidy)
        assert (first, second) == (None, None)
        captured = won(outcomes)
        assert 1 <= captured <= 4
        assert isinstance(outcomes[0], Answer)
        assert isinstance(outcomes[3], InvalidState)
        assert isinstance(outcomes[5], InvalidState)
        assert Hold.objects.filter(status="expired").count() == len(made) - captured
        assert (balance(bob), held(alice)) == (Decimal(captured), 0)
        for hold in Hold.objects.filter(status="captured"):
            assert hold.transaction.created_at < hold.expires_at + timedelta(seconds=0.5)
        assert breaches() == []

    def test_given_money_for_three_when_holds_and_transfers_race_then_three_win(self, bob):
        alice = person("30.00")
        asked = [lambda: reserve(alice, bob, "10.00"), lambda: send(alice, bob, "10.00")]
        outcomes = at_once(*asked * 5)
        assert sum(x.status == 201 for x in outcomes) == 3
        refused = [x.content["code"] for x in outcomes if x.status != 201]
        assert refused == ["insufficient_funds"] * 7
        assert held(alice) == balance(alice)
        assert breaches() == []

    def test_given_sixteen_duplicates_when_capturing_then_one_effect(self, bob, hold):
        responses = at_once(*[lambda: take(bob, hold, key="k") for _ in range(16)])
        assert {r.status_code for r in responses} <= {201, 409}
        assert len({r.content for r in responses if r.status_code == 201}) == 1
        codes = {json.loads(r.content)["code"] for r in responses if r.status_code == 409}
        assert codes <= {"idempotency_in_progress"}
        assert balance(bob) == Decimal("40.00")

    def test_given_a_freeze_when_captures_race_with_it_then_each_goes_one_way_or_the_other(
        self, alice, bob
    ):
        made = [hold_of(reserve(alice, bob, "1.00")) for _ in range(8)]
        *outcomes, _ = at_once(
            *[lambda hold=hold: capture(bob, hold) for hold in made],
            lambda: freeze(alice),
        )
        assert {x.content.get("code", "moved") for x in outcomes} <= {"moved", "wallet_frozen"}
        captured = sum(x.status == 201 for x in outcomes)
        assert (balance(bob), held(alice)) == (Decimal(captured), Decimal(8 - captured))
        assert breaches() == []


def run(statement, **parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


RESOLVE = (
    "UPDATE transactions_hold"
    " SET status = %(status)s, resolved_at = now(), resolved_by_id = to_user_id"
)
INSERT = """
INSERT INTO transactions_hold
    (id, status, amount, captured_amount, currency, payer_wallet_id, payee_wallet_id,
     from_user_id, to_user_id, description, metadata, created_at, expires_at, resolved_at)
SELECT gen_random_uuid(), %(status)s, %(amount)s, 0, %(currency)s, payer.id, payee.id,
       %(from)s, payee.user_id, '', '{}', now() + %(begins)s::interval,
       coalesce(%(ends)s::timestamptz, now() + %(begins)s::interval + %(lasts)s::interval),
       CASE %(status)s WHEN 'active' THEN NULL ELSE now() END
  FROM wallet_wallet payer, wallet_wallet payee
 WHERE payer.user_id = %(payer)s AND payee.user_id = %(payee)s
"""


@pytest.mark.django_db(transaction=True)
class TestRules:
    """The same in raw SQL, as the serving role."""

    @pytest.fixture
    def forge(self, alice, bob):
        def insert(**changes):
            facts = {
                "status": "active",
                "amount": "5.00",
                "currency": "USD",
                "payer": alice.pk,
                "payee": bob.pk,
                "from": alice.pk,
                "begins": "0 days",
                "lasts": "1 day",
                "ends": None,
                "held": "5.00",
                **changes,
            }
            with transaction.atomic():
                run(
                    "UPDATE wallet_wallet SET held = held + %(held)s WHERE user_id = %(payer)s",
                    **facts,
                )
                run(INSERT, **facts)

        return insert

    def test_given_a_right_hold_by_hand_when_committing_then_it_stands(self, forge, alice):
        forge()
        assert held(alice) == Decimal("5.00")
        assert breaches() == []

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            ({"held": "0"}, "wallet_wallet_held_is_its_holds"),
            ({"held": "4.99"}, "wallet_wallet_held_is_its_holds"),
            ({"amount": "NaN"}, "transactions_hold_amount_positive"),
            ({"amount": "0"}, "transactions_hold_amount_positive"),
            ({"amount": "-5"}, "transactions_hold_amount_positive"),
            ({"amount": "500", "held": "500"}, "wallet_wallet_held_within_balance"),
            ({"lasts": "0 days"}, "transactions_hold_expires_after_it_begins"),
            ({"lasts": "721 hours"}, "transactions_hold_is_dated"),
            ({"ends": "infinity"}, "transactions_hold_is_dated"),
            ({"begins": "-1 second"}, "transactions_hold_is_dated"),
            ({"begins": "-10 years"}, "transactions_hold_is_dated"),
            ({"begins": "5 years"}, "transactions_hold_is_dated"),
            ({"currency": "EUR"}, "transactions_hold_wallets_are_its_parties"),
            ({"from": uuid4()}, "transactions_hold_wallets_are_its_parties"),
            ({"status": "voided"}, "transactions_hold_begins_active"),
            ({"status": "captured"}, "transactions_hold_begins_active"),
        ],
    )
    def test_given_a_hold_that_does_not_fit_when_inserting_then_refused(self, forge, changes, rule):
        with refused_by(rule):
            forge(**changes)

    def test_given_oneself_as_payee_when_inserting_then_refused(self, forge, alice):
        with refused_by("transactions_hold_two_different_parties"):
            forge(payee=alice.pk)

    @pytest.mark.parametrize("change", ["held = held + 1", "held = held - 1", "held = 0"])
    def test_given_a_hold_when_changing_held_by_hand_then_refused(self, hold, change):
        with refused_by("wallet_wallet_held_is_its_holds"):
            run(f"UPDATE wallet_wallet SET {change} WHERE held = 40")

    def test_given_the_owner_when_changing_held_by_hand_then_refused(self, owner, hold):
        with pytest.raises(Exception, match="its active holds reserve") as refused:
            owner.execute("UPDATE wallet_wallet SET held = 1 WHERE held = 40")
        assert refused.value.diag.constraint_name == "wallet_wallet_held_is_its_holds"

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ("amount = 1", "is_frozen"),
            ("currency = 'EUR'", "is_frozen"),
            ("to_user_id = from_user_id", "is_frozen"),
            ("payer_wallet_id = payee_wallet_id", "is_frozen"),
            ("expires_at = expires_at + interval '1 day'", "is_frozen"),
            ("description = 'x'", "is_frozen"),
            ("resolved_at = now()", "resolved_at_iff_resolved"),
            ("captured_amount = 1", "captured_within_amount"),
            (
                "status = 'voided', resolved_at = now(), captured_amount = 1,"
                " resolved_by_id = to_user_id",
                "captured_within_amount",
            ),
            ("status = 'voided', resolved_by_id = to_user_id", "resolved_at_iff_resolved"),
            ("status = 'voided', resolved_at = now()", "resolved_by_whom"),
            (
                "status = 'voided', resolved_at = now(), resolved_by_id = from_user_id",
                "resolved_by_whom",
            ),
            ("resolved_by_id = to_user_id", "runs_out_by_itself"),
            ("status = 'lost', resolved_at = now()", "status_known"),
            ("status = 'expired', resolved_at = now()", "expires_in_time"),
            ("status = 'captured', resolved_at = now()", "capture_is_its_own"),
        ],
    )
    def test_given_a_hold_when_rewriting_it_then_refused(self, hold, change, rule):
        with refused_by(f"transactions_hold_{rule}"):
            run(f"UPDATE transactions_hold SET {change}")

    def test_given_a_due_hold_when_expired_by_somebody_by_hand_then_refused(self, owner, hold):
        let_time_pass(owner, hold)
        with refused_by("transactions_hold_runs_out_by_itself"):
            run(RESOLVE, status="expired")

    def test_given_somebody_else_when_capturing_by_hand_then_refused(
        self, alice, bob, hold, monkeypatch
    ):
        resolve = holds._resolve
        monkeypatch.setattr(
            holds,
            "_resolve",
            lambda hold, status, at, by: resolve(hold, status, at, by=alice),
        )
        with refused_by("transactions_hold_resolved_by_whom"):
            capture(bob, hold)
        assert (balance(bob), held(alice)) == (0, Decimal("40.00"))

    def test_given_a_void_without_the_wallet_when_resolving_then_refused(self, hold):
        with refused_by("wallet_wallet_held_is_its_holds"):
            run(RESOLVE, status="voided")

    def test_given_a_wallet_that_changes_after_its_hold_when_committing_then_refused(
        self, forge, alice
    ):
        with refused_by("wallet_wallet_held_is_its_holds"), transaction.atomic():
            forge()
            run("UPDATE wallet_wallet SET held = 0 WHERE user_id = %(payer)s", payer=alice.pk)
        assert held(alice) == 0

    @pytest.mark.parametrize("status", ["active", "voided", "captured"])
    def test_given_a_resolved_hold_when_reviving_it_then_refused(self, bob, hold, status):
        TransactionService.void_hold(caller=bob, hold_id=hold.pk)
        with refused_by("transactions_hold_resolved_once"):
            run(RESOLVE, status=status)

    @pytest.mark.parametrize(
        ("part", "rule"),
        [
            (None, "transactions_hold_transaction_id_key"),
            ("39.99", "transactions_hold_capture_is_its_own"),
        ],
    )
    def test_given_the_capture_of_another_hold_when_claiming_it_then_refused(
        self, alice, bob, hold, part, rule
    ):
        other = hold_of(reserve(alice, bob, "40.00"))
        made = capture(bob, other, part).content["id"]
        with refused_by(rule):
            run(
                "UPDATE transactions_hold SET status = 'captured', resolved_at = now(),"
                " captured_amount = 40, transaction_id = %(made)s, resolved_by_id = to_user_id"
                " WHERE status = 'active'",
                made=made,
            )

    def test_given_a_due_hold_when_capturing_by_hand_then_refused(self, owner, hold):
        let_time_pass(owner, hold)
        with refused_by("transactions_hold_expires_in_time"):
            run(RESOLVE, status="captured")

    def test_given_no_hold_when_posting_a_capture_then_refused(self, alice, bob, monkeypatch):
        def as_capture(posting, spent):
            return post_one(replace(posting, kind=Transaction.Type.CAPTURE), spent)

        monkeypatch.setattr(transfers, "post", as_capture)
        with refused_by("transactions_transaction_capture_has_its_hold"):
            send(alice, bob, "1.00")
        assert balance(alice) == Decimal("100.00")

    @pytest.mark.parametrize(
        "statement",
        ["DELETE FROM transactions_hold", "TRUNCATE transactions_hold"],
    )
    def test_given_a_hold_when_deleting_it_then_refused_even_to_the_owner(
        self, owner, hold, statement
    ):
        with pytest.raises(Exception, match="permission denied"):
            run(statement)
        with pytest.raises(Exception, match="never deleted") as refused:
            owner.execute(statement)
        assert refused.value.diag.constraint_name == "transactions_hold_never_deleted"

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE wallet_wallet SET held = 1 WHERE held = 40",
            "UPDATE transactions_hold SET amount = 41",
            "DELETE FROM transactions_hold",
        ],
    )
    def test_given_a_superuser_who_tampers_when_verifying_then_the_wallet_is_named(
        self, owner, alice, hold, statement
    ):
        assert breaches() == []
        owner.execute("SET session_replication_role = replica")
        owner.execute(statement)
        owner.execute("SET session_replication_role = origin")
        named = {(breach.invariant, breach.subject) for breach in breaches()}
        assert (4, f"wallet {alice.wallet.pk}") in named

    @pytest.mark.parametrize(
        ("change", "invariant"),
        [
            ("captured_amount = 39", 5),
            ("captured_amount = 41, amount = 41", 5),
            ("transaction_id = (SELECT id FROM transactions_transaction LIMIT 1)", 5),
            ("currency = 'EUR'", 4),
            ("to_user_id = from_user_id, from_user_id = to_user_id", 4),
            ("payer_wallet_id = payee_wallet_id", 4),
        ],
    )
    def test_given_a_superuser_who_rewrites_a_capture_when_verifying_then_the_hold_is_named(
        self, owner, bob, hold, change, invariant
    ):
        capture(bob, hold)
        assert breaches() == []
        owner.execute("SET session_replication_role = replica")
        owner.execute(f"UPDATE transactions_hold SET {change}")
        owner.execute("SET session_replication_role = origin")
        assert (invariant, f"hold {hold.pk}") in {(b.invariant, b.subject) for b in breaches()}

    def test_given_a_capture_whose_hold_is_gone_when_verifying_then_it_is_named(
        self, owner, bob, hold
    ):
        made = capture(bob, hold).content["id"]
        owner.execute("SET session_replication_role = replica")
        owner.execute("DELETE FROM transactions_hold")
        owner.execute("SET session_replication_role = origin")
        assert (5, f"transaction {made}") in {(b.invariant, b.subject) for b in breaches()}


@pytest.mark.django_db(transaction=True)
def test_given_a_service_call_too_late_when_refused_then_it_says_why(owner, alice, bob, hold):
    let_time_pass(owner, hold)
    with pytest.raises(HoldExpired):
        capture(bob, hold)
