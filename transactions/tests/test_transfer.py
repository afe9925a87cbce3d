"""Sending money over HTTP: what happens, and every refusal with its status and code."""

import json
from decimal import Decimal
from uuid import uuid4

import pytest
from django.core.validators import validate_email
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient

from transactions.models import Transaction, TransactionLedger
from transactions.serializers.transactions import _PLAIN_EMAIL
from transactions.tests.helpers import (
    balance,
    breaches,
    client_of,
    close,
    freeze,
    fund,
    person,
    reserve,
    send,
    set_limits,
)
from users.tests.factories import UserFactory

URL = "/api/v1/transactions/transfer/"


def post(client, body, key=None, **headers):
    key = str(uuid4()) if key is None else key
    return client.post(URL, body, headers={"Idempotency-Key": key, **headers})


def refusal(response):
    assert response["Content-Type"] == "application/problem+json"
    problem = json.loads(response.content)
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response["X-Request-ID"]
    return response.status_code, problem["code"]


@pytest.mark.django_db(transaction=True)
class TestTransfer:
    def test_given_money_when_sending_then_both_balances_and_the_ledger_say_so(self):
        alice, bob = person("100.00"), person(first_name="Bob", last_name="Tanner")

        response = post(
            client_of(alice),
            {
                "recipient": bob.email.upper(),
                "amount": "30.5",
                "description": "Dinner",
                "metadata": {"table": "7"},
            },
        )

        assert response.status_code == 201
        answer = response.json()
        assert answer["amount"] == "30.50"
        assert answer["fee"] == "0.00"
        assert answer["type"] == "transfer"
        assert answer["status"] == "completed"
        assert answer["balance_after"] == "69.50"
        assert answer["to_user"] == {"id": str(bob.pk), "display_name": "Bob T."}
        assert answer["from_user"]["id"] == str(alice.pk)
        assert answer["description"] == "Dinner"
        assert answer["metadata"] == {"table": "7"}
        assert answer["parent_id"] is None
        assert answer["created_at"] == answer["completed_at"]
        assert answer["created_at"].endswith("Z")
        assert (balance(alice), balance(bob)) == (Decimal("69.50"), Decimal("30.50"))
        entries = TransactionLedger.objects.filter(transaction_id=answer["id"])
        assert {(e.entry_type, e.amount, e.balance_after) for e in entries} == {
            ("debit", Decimal("30.50"), Decimal("69.50")),
            ("credit", Decimal("30.50"), Decimal("30.50")),
        }
        assert breaches() == []

    def test_given_a_user_id_as_recipient_when_sending_then_it_arrives(self):
        alice, bob = person("10.00"), person()
        response = post(client_of(alice), {"recipient": str(bob.pk).upper(), "amount": 10})
        assert response.status_code == 201
        assert (balance(alice), balance(bob)) == (Decimal("0.00"), Decimal("10.00"))

    @pytest.mark.parametrize(
        "raw", ["0.01", "1e1", "10.0", "10", "1.10e1", "9.99"], ids=lambda raw: f"number {raw}"
    )
    def test_given_a_json_number_when_sending_then_its_exact_value_counts(self, raw):
        alice, bob = person("100.00"), person()
        body = f'{{"recipient": "{bob.pk}", "amount": {raw}}}'
        response = client_of(alice).post(
            URL, body, content_type="application/json", headers={"Idempotency-Key": "k"}
        )
        assert response.status_code == 201
        assert Decimal(response.json()["amount"]) == Decimal(raw)

    @pytest.mark.parametrize(
        "raw",
        [
            '"1e3"',
            '"NaN"',
            '"Infinity"',
            '"-1.00"',
            '"+1.00"',
            '" 1.00"',
            '"1.00 "',
            '"1.001"',
            '"0"',
            '"0.00"',
            '"00.10"',
            '".50"',
            '"1."',
            '"1,00"',
            '"10000000000000.00"',
            '"\\u0661"',
            '""',
            "0",
            "-1",
            "0.001",
            "1.005",
            "1e-3",
            "1e13",
            "1e400",
            "true",
            "null",
            "[]",
            "{}",
            '["1.00"]',
        ],
    )
    def test_given_an_amount_that_is_none_when_sending_then_400_and_nothing_moves(self, raw):
        alice, bob = person("100.00"), person()
        body = f'{{"recipient": "{bob.pk}", "amount": {raw}}}'
        response = client_of(alice).post(
            URL, body, content_type="application/json", headers={"Idempotency-Key": "k"}
        )
        assert refusal(response) == (400, "validation_error")
        assert response.json()["errors"][0]["field"] == "amount"
        assert balance(alice) == Decimal("100.00")

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ("{", "parse_error"),
            (b"\xff{}", "parse_error"),
            ('{"amount": "1.00", "description": "\\ud800"}', "parse_error"),
            ('{"amount": NaN}', "parse_error"),
            ('{"amount": Infinity}', "parse_error"),
            ('{"amount": "1.00", "amount": "2.00"}', "parse_error"),
            ("[" * 100_000, "parse_error"),
            ('{"amount": ' + "9" * 5000 + "}", "parse_error"),
            ('{"amount": 1e99999999999999999999}', "parse_error"),
            ("[]", "validation_error"),
            ('"text"', "validation_error"),
            ("null", "validation_error"),
            ("3", "validation_error"),
            ("", "validation_error"),
            ("{}", "validation_error"),
        ],
    )
    def test_given_a_body_that_is_no_request_when_sending_then_400(self, body, code):
        alice = person("100.00")
        response = client_of(alice).generic(
            "POST", URL, body, content_type="application/json", headers={"Idempotency-Key": "k"}
        )
        assert refusal(response) == (400, code)

    @pytest.mark.parametrize(
        "extra",
        [
            {"fee": "0.00"},
            {"from_user": "x"},
            {"status": "completed"},
            {"description": "a\x00b"},
            {"description": "x" * 256},
            {"description": 7},
            {"metadata": {"a": 1}},
            {"metadata": {"a": "\x00"}},
            {"metadata": {"\x00": "a"}},
            {"metadata": {"a": None}},
            {"metadata": {"a": {"b": "c"}}},
            {"metadata": {str(n): "x" for n in range(21)}},
            {"metadata": "text"},
            {"currency": "usd"},
            {"currency": "JPY"},
            {"currency": "XXX"},
            {"currency": 840},
            {"recipient": "not an address"},
            {"recipient": "12345"},
            {"recipient": "\u212aate@example.com"},  # a Kelvin sign: its lower-case is a plain k
            {"recipient": ["a@example.com"]},
            {"recipient": ""},
        ],
    )
    def test_given_a_field_that_is_wrong_when_sending_then_400_names_it(self, extra):
        alice, bob = person("100.00"), person()
        body = {"recipient": str(bob.pk), "amount": "1.00", **extra}
        response = client_of(alice).post(
            URL,
            json.dumps(body),
            content_type="application/json",
            headers={"Idempotency-Key": "k"},
        )
        assert refusal(response) == (400, "validation_error")
        assert response.json()["errors"][0]["field"].startswith(next(iter(extra)))
        assert balance(alice) == Decimal("100.00")

    def test_given_no_token_when_sending_then_401_with_a_challenge(self):
        response = post(APIClient(), {"recipient": "x", "amount": "1.00"})
        assert refusal(response) == (401, "not_authenticated")
        assert response["WWW-Authenticate"].startswith("Bearer")

    @pytest.mark.parametrize("kyc", ["not_submitted", "pending", "rejected"])
    def test_given_kyc_not_approved_when_sending_then_403_whatever_else_is_wrong(self, kyc):
        sender = UserFactory(kyc=kyc)
        response = post(client_of(sender), {"recipient": str(sender.pk), "amount": "1.00"})
        assert refusal(response) == (403, "kyc_required")

    def test_given_oneself_as_recipient_when_sending_then_self_transfer(self):
        alice = person("10.00")
        for recipient in (str(alice.pk), alice.email.upper()):
            response = post(client_of(alice), {"recipient": recipient, "amount": "1.00"})
            assert refusal(response) == (422, "self_transfer")

    def test_given_nobody_of_that_name_when_sending_then_recipient_not_found(self):
        alice = person("10.00")
        for recipient in (str(uuid4()), "nobody@example.com"):
            response = post(client_of(alice), {"recipient": recipient, "amount": "1.00"})
            assert refusal(response) == (422, "recipient_not_found")

    def test_given_a_deactivated_recipient_when_sending_then_recipient_unavailable(self):
        alice, bob = person("10.00"), person(is_active=False)
        response = post(client_of(alice), {"recipient": str(bob.pk), "amount": "1.00"})
        assert refusal(response) == (422, "recipient_unavailable")

    def test_given_a_closed_recipient_when_sending_then_recipient_unavailable(self):
        alice, bob = person("10.00"), person()
        close(bob)
        response = post(client_of(alice), {"recipient": str(bob.pk), "amount": "1.00"})
        assert refusal(response) == (422, "recipient_unavailable")

    def test_given_a_recipient_at_their_limit_when_sending_then_recipient_unavailable(self):
        alice, newcomer = person("2000.00"), UserFactory(kyc="not_submitted")
        full = post(client_of(alice), {"recipient": str(newcomer.pk), "amount": "1000.00"})
        more = post(client_of(alice), {"recipient": str(newcomer.pk), "amount": "0.01"})
        assert full.status_code == 201
        assert refusal(more) == (422, "recipient_unavailable")

    def test_given_a_recipient_at_their_limit_when_it_could_not_be_paid_then_that_is_not_told(
        self,
    ):
        """Else somebody without a cent could read a balance, amount by amount."""
        newcomer = UserFactory(kyc="not_submitted")
        body = {"recipient": newcomer.email, "amount": "1000.01"}
        poor, frozen, small = person(), person("2000.00"), person("2000.00")
        freeze(frozen)
        set_limits(small, transfer_max="1000.00")
        for sender, code in (
            (poor, "insufficient_funds"),
            (frozen, "wallet_frozen"),
            (small, "limit_exceeded"),
        ):
            assert refusal(post(client_of(sender), body)) == (422, code)

    def test_given_another_currency_when_sending_then_currency_mismatch(self):
        alice, bob = person("10.00"), person()
        response = post(
            client_of(alice), {"recipient": str(bob.pk), "amount": "1.00", "currency": "EUR"}
        )
        assert refusal(response) == (422, "currency_mismatch")

    def test_given_a_frozen_sender_when_sending_then_wallet_frozen(self):
        alice, bob = person("10.00"), person()
        freeze(alice)
        response = post(client_of(alice), {"recipient": str(bob.pk), "amount": "99.00"})
        assert refusal(response) == (422, "wallet_frozen")

    def test_given_a_frozen_recipient_when_sending_then_it_arrives(self):
        alice, bob = person("10.00"), person()
        freeze(bob)
        assert (
            post(client_of(alice), {"recipient": str(bob.pk), "amount": "1.00"}).status_code == 201
        )
        assert balance(bob) == Decimal("1.00")

    def test_given_too_little_money_when_sending_then_nothing_is_written(self):
        alice, bob = person("10.00"), person()
        response = post(client_of(alice), {"recipient": str(bob.pk), "amount": "10.01"})
        assert refusal(response) == (422, "insufficient_funds")
        assert (balance(alice), balance(bob)) == (Decimal("10.00"), Decimal("0.00"))
        assert Transaction.objects.filter(type="transfer").count() == 0

    def test_given_money_that_a_hold_reserves_when_sending_then_it_is_not_available(self):
        alice, bob = person("10.00"), person()
        reserve(alice, bob, "4.00")
        refused = post(client_of(alice), {"recipient": str(bob.pk), "amount": "6.01"})
        allowed = post(client_of(alice), {"recipient": str(bob.pk), "amount": "6.00"})
        assert refusal(refused) == (422, "insufficient_funds")
        assert allowed.status_code == 201

    def test_given_more_than_a_transfer_may_be_when_sending_then_limit_exceeded(self):
        alice, bob = person("20000.00"), person()
        response = post(client_of(alice), {"recipient": str(bob.pk), "amount": "10000.01"})
        assert refusal(response) == (422, "limit_exceeded")
        assert (
            post(client_of(alice), {"recipient": str(bob.pk), "amount": "10000"}).status_code == 201
        )

    def test_given_a_sender_deactivated_in_between_when_sending_then_403(self):
        alice, bob = person("10.00"), person()
        client = client_of(alice)
        type(alice).objects.filter(pk=alice.pk).update(is_active=False)
        response = post(client, {"recipient": str(bob.pk), "amount": "1.00"})
        assert refusal(response) == (403, "permission_denied")
        assert balance(alice) == Decimal("10.00")

    def test_given_many_transfers_when_one_customer_hurries_then_429_with_retry_after(
        self, settings
    ):
        settings.RATE_LIMIT_TRANSFER = "3/m"
        alice, bob = person("10.00"), person()
        client = client_of(alice)
        body = {"recipient": str(bob.pk), "amount": "1.00"}
        answers = [post(client, body) for _ in range(5)]
        assert [a.status_code for a in answers] == [201, 201, 201, 429, 429]
        assert refusal(answers[-1]) == (429, "rate_limited")
        assert 1 <= int(answers[-1]["Retry-After"]) <= 60
        assert balance(bob) == Decimal("3.00")


@pytest.mark.django_db(transaction=True)
class TestReading:
    def test_given_a_transfer_when_each_reads_it_then_both_see_it_and_nobody_else(self):
        alice, bob, charlie = person("10.00"), person(), person()
        made = send(alice, bob, "4.00").content["id"]
        for reader in (alice, bob):
            response = client_of(reader).get(f"/api/v1/transactions/{made}/")
            assert response.status_code == 200
            assert response.json()["id"] == made
            assert "balance_after" not in response.json()
        for path in ("", "ledger/"):
            stranger = client_of(charlie).get(f"/api/v1/transactions/{made}/{path}")
            assert refusal(stranger) == (404, "not_found")

    def test_given_a_transfer_when_reading_its_ledger_then_only_ones_own_balance_is_shown(self):
        alice, bob = person("10.00"), person("5.00")
        made = send(alice, bob, "4.00").content["id"]
        entries = client_of(bob).get(f"/api/v1/transactions/{made}/ledger/").json()["results"]
        assert {
            (e["entry_type"], e["account"], e["amount"], e["balance_after"]) for e in entries
        } == {
            ("debit", "wallet", "4.00", None),
            ("credit", "wallet", "4.00", "9.00"),
        }

    def test_given_money_in_and_out_when_reading_history_then_lines_are_signed_and_newest_first(
        self,
    ):
        alice, bob = person("10.00"), person(first_name="Bob", last_name="Tanner")
        made = send(alice, bob, "4.00").content["id"]
        lines = client_of(alice).get("/api/v1/transactions/history/").json()["results"]
        assert [(x["type"], x["direction"], x["amount"], x["balance_after"]) for x in lines] == [
            ("transfer", "out", "-4.00", "6.00"),
            ("deposit", "in", "10.00", "10.00"),
        ]
        assert lines[0]["transaction_id"] == made
        assert lines[0]["counterparty"] == {"id": str(bob.pk), "display_name": "Bob T."}
        assert lines[1]["counterparty"] is None

    def test_given_many_lines_when_paging_then_every_line_comes_once_in_both_directions(self):
        alice, bob = person("100.00"), person()
        for _ in range(7):
            send(alice, bob, "1.00")
        client = client_of(alice)
        pages, url = [], "/api/v1/transactions/history/?page_size=3"
        while url:
            page = client.get(url).json()
            pages.append([x["balance_after"] for x in page["results"]])
            url, last = page["next"], page
        assert pages == [
            ["93.00", "94.00", "95.00"],
            ["96.00", "97.00", "98.00"],
            ["99.00", "100.00"],
        ]
        back = client.get(last["previous"]).json()
        assert [x["balance_after"] for x in back["results"]] == pages[1]

    @pytest.mark.parametrize("cursor", ["x", "cD1hYmM=", "cD0xZTk5", "cD0lMDA=", "%00", "bz0tMQ=="])
    def test_given_a_cursor_that_is_none_of_ours_when_paging_then_400(self, cursor):
        response = client_of(person()).get(f"/api/v1/transactions/?cursor={cursor}")
        assert refusal(response) == (400, "validation_error")

    def test_given_a_huge_page_size_when_listing_then_it_is_clamped(self):
        response = client_of(person("1.00")).get("/api/v1/transactions/?page_size=100000")
        assert response.status_code == 200

    def test_given_filters_when_listing_then_they_apply(self):
        alice, bob = person("100.00"), person()
        send(alice, bob, "5.00")
        fund(alice, "7.00")
        client = client_of(alice)

        def amounts(query):
            response = client.get(f"/api/v1/transactions/?{query}")
            assert response.status_code == 200, response.content
            return [x["amount"] for x in response.json()["results"]]

        assert amounts("") == ["7.00", "5.00", "100.00"]
        assert amounts("type=deposit") == ["7.00", "100.00"]
        assert amounts("direction=out") == ["5.00"]
        assert amounts("direction=in&amount_max=7") == ["7.00"]
        assert amounts("amount_min=6.00") == ["7.00", "100.00"]
        assert amounts("status=pending") == []
        times = [x["created_at"] for x in client.get("/api/v1/transactions/").json()["results"]]
        assert amounts(f"created_after={times[1]}") == ["7.00", "5.00"]
        assert amounts(f"created_before={times[1]}") == ["100.00"]
        assert amounts("created_before=2000-01-01T00:00:00Z") == []
        assert amounts("created_after=0001-01-01T00:00:00Z") == ["7.00", "5.00", "100.00"]
        assert amounts("created_before=9999-12-31t23:59:59.5%2B00:00&created_after=") == [
            "7.00",
            "5.00",
            "100.00",
        ]

    @pytest.mark.parametrize(
        "query",
        [
            "type=loan",
            "status=lost",
            "direction=up",
            "amount_min=NaN",
            "amount_max=1e3",
            "amount_min=%205.00",
            "amount_max=5.00%0a",
            "created_after=yesterday",
            "created_after=2026-11-22T13:00:00",  # no offset: not a moment
            "created_before=2026-11-22",
            "created_before=2026-11-22T13:00Z",
            "created_before=2026-11-22T13:00:00%2B01",
            "created_before=%202026-11-22T13:00:00Z",
            "created_before=2026-11-22T13:00:00Z%00",
            "created_before=0001-01-01T00:00:00%2B14:00",
            "type=%00",
        ],
    )
    def test_given_a_filter_that_cannot_be_read_when_listing_then_400(self, query):
        response = client_of(person()).get(f"/api/v1/transactions/?{query}")
        assert refusal(response) == (400, "validation_error")

    def test_given_a_wallet_when_reading_it_then_the_owner_sees_their_money(self):
        alice = person("12.30")
        client = client_of(alice)
        wallet = client.get("/api/v1/wallets/me/").json()
        shown = client.get("/api/v1/wallets/me/balance/").json()
        assert (wallet["balance"], wallet["held"], wallet["available"]) == (
            "12.30",
            "0.00",
            "12.30",
        )
        assert (wallet["currency"], wallet["status"]) == ("USD", "active")
        assert (shown["balance"], shown["available"]) == ("12.30", "12.30")
        assert shown["as_of"].endswith("Z")

    def test_given_an_unknown_url_when_calling_then_a_problem(self):
        for path in ("/api/v1/nothing/", "/nothing", f"/api/v1/transactions/{uuid4()}/x/"):
            assert refusal(client_of(person()).get(path)) == (404, "not_found")
        assert refusal(client_of(person()).get("/api/v1/transactions/not-a-uuid/")) == (
            404,
            "not_found",
        )

    def test_given_a_method_or_a_type_that_is_not_read_when_calling_then_a_problem(self):
        client = client_of(person())
        assert refusal(client.delete(URL)) == (405, "method_not_allowed")
        assert refusal(client.get("/api/v1/wallets/me/", headers={"Accept": "text/csv"})) == (
            406,
            "not_acceptable",
        )
        xml = client.post(URL, "<a/>", content_type="text/xml", headers={"Idempotency-Key": "k"})
        assert refusal(xml) == (415, "unsupported_media_type")
        big = client.post(URL, "x" * (2 * 1024 * 1024 + 1), content_type="application/json")
        assert refusal(big) == (413, "payload_too_large")


@given(st.from_regex(_PLAIN_EMAIL, fullmatch=True))
def test_given_a_plain_address_when_read_then_django_takes_it_too(text):
    validate_email(text)


@pytest.mark.parametrize(
    "text",
    ["a@b", "a@b.c", ".a@example.com", "a@-b.com", "a@b-.com", "a@b..com", "a" * 255 + "@b.com"],
)
def test_given_an_address_that_may_be_none_when_read_then_django_decides(text):
    assert not _PLAIN_EMAIL.fullmatch(text)
