"""Statements over HTTP: whose days, which lines, in three forms; and that they always add up."""

import csv
import http.client
import io
import itertools
import json
import re
import sys
import threading
import time
import tracemalloc
import unicodedata
import urllib.request
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from django.db import connections, transaction
from django.test import override_settings
from pypdf import PdfReader
from rest_framework.test import APIClient

from fintech_core.database import database_time
from fintech_core.moments import day_begins, parse_zone
from fintech_core.tests.live import Web
from transactions.models import LedgerSeal
from transactions.services import TransactionService, Transfer
from transactions.statement_csv import as_text
from transactions.statement_pdf import LINES_MAX, NOTE, _register_fonts, clean, wrap
from transactions.statements import StatementBroken
from transactions.tests.helpers import call_by, client_of, fund, person, send
from transactions.tests.proofs import tamper
from users.models import User
from users.tests.factories import UserFactory, sign_in
from users.tests.helpers import refusal, wrong_fields

URL = "/api/v1/wallets/me/statement/"
EVER = {"from": "2000-01-01", "to": "2900-01-01"}


def ask(user: User, accept: str = "*/*", **query: str) -> Any:
    """`from_` for `from`, which is a word of Python."""
    asked = {name.rstrip("_"): value for name, value in query.items()}
    return client_of(user).get(URL, asked or EVER, headers={"Accept": accept})


def body(response: Any) -> str:
    assert response.status_code == 200, response.content
    return b"".join(response.streaming_content).decode()


def statement(user: User, **query: str) -> dict[str, Any]:
    return json.loads(body(ask(user, **query)))


def table(user: User, **query: str) -> list[dict[str, str]]:
    text = body(ask(user, **(query or {"from_": EVER["from"], "to": EVER["to"]}), format="csv"))
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def pay(sender: User, recipient: User, amount: str, description: str) -> None:
    TransactionService.transfer_money(
        sender=sender,
        transfer=Transfer(str(recipient.pk), Decimal(amount), "USD", description),
        idempotency=call_by(sender),
    )


@pytest.fixture
def deposit_at(owner: Any) -> Any:
    """A deposit that gets its date afterwards, for the database takes nothing from the past."""

    def post(moment: str, user: User, amount: str) -> None:
        made = fund(user, amount)
        statements = [
            f"UPDATE transactions_transactionledger SET created_at = '{moment}'"
            f" WHERE transaction_id = '{made.pk}'",
            "UPDATE transactions_transaction SET (created_at, completed_at) ="
            f" ('{moment}', '{moment}') WHERE id = '{made.pk}'",
            f"UPDATE wallet_wallet SET last_entry_at = '{moment}' WHERE user_id = '{user.pk}'",
        ]
        tamper(owner, *statements)

    return post


@pytest.mark.django_db(transaction=True)
class TestJSON:
    def test_given_history_when_asking_then_opening_lines_and_closing_add_up(self):
        alice, bob = person("100.00"), person(first_name="Bob", last_name="Tanner")
        pay(alice, bob, "30.00", "Dinner")
        send(bob, alice, "0.50")

        shown = statement(alice, from_="2020-01-01", to="2900-01-01", tz="Europe/Berlin")

        lines = shown.pop("lines")
        newest = LedgerSeal.objects.get(wallet=alice.wallet, sequence=3)
        assert shown.pop("generated_at") >= lines[-1]["created_at"]
        assert shown == {
            "wallet_id": str(alice.wallet.pk),
            "currency": "USD",
            "from": "2020-01-01",
            "to": "2900-01-01",
            "tz": "Europe/Berlin",
            "opening_balance": "0.00",
            "closing_balance": "70.50",
            "closing_sequence": 3,
            "closing_seal": bytes(newest.seal).hex(),
        }
        assert [line["amount"] for line in lines] == ["100.00", "-30.00", "0.50"]
        assert [line["balance_after"] for line in lines] == ["100.00", "70.00", "70.50"]
        assert lines[1]["counterparty"] == {"id": str(bob.pk), "display_name": "Bob T."}

    def test_given_history_when_asking_then_a_line_is_what_the_history_shows(self):
        alice, bob = person("100.00"), person()
        pay(alice, bob, "30.00", 'A "quoted" \u2028 description\n')
        history = client_of(alice).get("/api/v1/transactions/history/").json()["results"]
        assert statement(alice)["lines"] == history[::-1]

    def test_given_nothing_when_asking_then_an_empty_statement(self):
        shown = statement(person())
        assert (shown["opening_balance"], shown["closing_balance"]) == ("0.00", "0.00")
        assert (shown["lines"], shown["closing_seal"]) == ([], None)
        assert shown["tz"] == "UTC"

    def test_given_days_before_the_wallet_when_asking_then_an_empty_statement(self):
        shown = statement(person("5.00"), from_="2001-01-01", to="2002-01-01")
        assert (shown["opening_balance"], shown["closing_balance"]) == ("0.00", "0.00")

    def test_given_more_lines_than_a_chunk_when_asking_then_each_once_and_in_order(
        self, monkeypatch
    ):
        monkeypatch.setattr("transactions.statements.CHUNK", 2)
        monkeypatch.setattr("transactions.statement_json.CHUNK", 3)
        alice = person()
        for number in range(1, 8):
            fund(alice, f"{number}.00")
        amounts = [line["amount"] for line in statement(alice)["lines"]]
        assert amounts == [f"{number}.00" for number in range(1, 8)]

    def test_given_others_when_asking_then_only_the_callers_lines(self):
        alice, bob = person("100.00"), person("7.00")
        assert len(statement(bob)["lines"]) == 1
        assert refusal(APIClient().get(URL, EVER)) == (401, "not_authenticated")
        assert statement(alice)["wallet_id"] == str(alice.wallet.pk)

    @override_settings(LANGUAGE_CODE="de")
    def test_given_another_language_when_asking_then_the_same_numbers(self):
        alice = person("1234.50")
        response = client_of(alice).get(URL, EVER, headers={"Accept-Language": "de"})
        assert json.loads(body(response))["closing_balance"] == "1234.50"


@pytest.mark.django_db(transaction=True)
class TestDays:
    def test_given_the_edges_of_a_day_when_asking_then_the_first_counts_and_the_last_does_not(
        self, deposit_at
    ):
        alice = person()
        for moment, amount in [
            ("2026-10-01T00:00:00+00:00", "1.00"),
            ("2026-10-01T23:59:59.999999+00:00", "2.00"),
            ("2026-10-02T00:00:00+00:00", "4.00"),
        ]:
            deposit_at(moment, alice, amount)
        first = statement(alice, from_="2026-10-01", to="2026-10-02")
        second = statement(alice, from_="2026-10-02", to="2026-10-03")
        assert [line["amount"] for line in first["lines"]] == ["1.00", "2.00"]
        assert (first["opening_balance"], first["closing_balance"]) == ("0.00", "3.00")
        assert [line["amount"] for line in second["lines"]] == ["4.00"]
        assert (second["opening_balance"], second["closing_balance"]) == ("3.00", "7.00")
        assert statement(alice, from_="2026-10-01", to="2026-10-03")["closing_balance"] == "7.00"

    # Day by day around each change: what happened just before and just after each midnight.
    @pytest.mark.parametrize(
        ("tz", "days", "hours"),
        [
            ("Europe/Berlin", ["2026-03-28", "2026-03-29", "2026-03-30"], [24, 23, 24]),
            ("Europe/Berlin", ["2026-10-24", "2026-10-25", "2026-10-26"], [24, 25, 24]),
            ("America/New_York", ["2026-03-07", "2026-03-08", "2026-03-09"], [24, 23, 24]),
            ("America/New_York", ["2025-11-01", "2025-11-02", "2025-11-03"], [24, 25, 24]),
            ("Pacific/Apia", ["2011-12-29", "2011-12-30", "2011-12-31"], [24, 0, 24]),
            ("America/Sao_Paulo", ["2018-11-03", "2018-11-04", "2018-11-05"], [24, 23, 24]),
            ("America/Sao_Paulo", ["2018-02-16", "2018-02-17", "2018-02-18"], [24, 25, 24]),
            ("America/Havana", ["2025-11-01", "2025-11-02", "2025-11-03"], [24, 25, 24]),
            ("Australia/Lord_Howe", ["2026-04-04", "2026-04-05", "2026-04-06"], [24, 24.5, 24]),
            ("Asia/Kathmandu", ["2026-03-28", "2026-03-29", "2026-03-30"], [24, 24, 24]),
        ],
    )
    def test_given_a_change_of_the_clocks_when_asking_day_by_day_then_each_line_in_its_own(
        self, deposit_at, tz, days, hours
    ):
        alice, zone = person(), ZoneInfo(tz)
        ends = [date.fromisoformat(day) + timedelta(days=1) for day in days]
        begins = [day_begins(date.fromisoformat(day), zone) for day in days]
        closes = day_begins(ends[-1], zone)
        edges = [*begins, closes]
        assert [(b - a) / timedelta(hours=1) for a, b in itertools.pairwise(edges)] == (hours)
        for edge in sorted(set(edges)):
            for moment in (edge - timedelta(microseconds=1), edge):
                deposit_at(moment.isoformat(), alice, "1.00")

        shown = [
            statement(alice, from_=day, to=end.isoformat(), tz=tz)
            for day, end in zip(days, ends, strict=True)
        ]

        for day, one in zip(days, shown, strict=True):
            local = {
                datetime.fromisoformat(line["created_at"]).astimezone(zone).date().isoformat()
                for line in one["lines"]
            }
            assert local <= {day}
        lengths = [2 if length else 0 for length in hours]
        assert [len(one["lines"]) for one in shown] == lengths
        for before, after in itertools.pairwise(shown):
            assert before["closing_balance"] == after["opening_balance"]

    @pytest.mark.parametrize("name", ["Etc/UTC", "GMT", "EST5EDT", "US/Pacific", "Etc/GMT+1"])
    def test_given_any_other_name_of_the_database_when_reading_it_then_a_zone(self, name):
        assert parse_zone(name).key == name

    def test_given_a_gap_that_swallows_midnight_then_the_day_begins_when_the_clocks_jump(self):
        # Toronto, 1919: from half past eleven in the evening to half past midnight.
        zone = parse_zone("America/Toronto")
        begins = day_begins(date(1919, 3, 31), zone)
        assert begins.astimezone(zone).isoformat() == "1919-03-31T00:30:00-04:00"
        before = (begins - timedelta(microseconds=1)).astimezone(zone)
        assert before.date() == date(1919, 3, 30)

    @pytest.mark.parametrize("tz", ["Europe/Berlin", "Asia/Tokyo", "America/Los_Angeles", "UTC"])
    def test_given_every_day_of_a_year_then_days_meet_without_gap_or_overlap(self, tz):
        zone = ZoneInfo(tz)
        day, begins = date(2026, 1, 1), day_begins(date(2026, 1, 1), zone)
        while day < date(2027, 1, 1):
            assert begins.astimezone(zone).date() == day
            assert (begins - timedelta(microseconds=1)).astimezone(zone).date() < day
            day += timedelta(days=1)
            begins = day_begins(day, zone)

    def test_given_a_period_that_is_not_over_when_asking_then_what_is_there_so_far(self):
        alice = person("5.00")
        today = database_time().date()
        later = (today + timedelta(days=40)).isoformat()
        assert statement(alice, from_=today.isoformat(), to=later)["closing_balance"] == "5.00"

    def test_given_the_future_when_asking_then_400_names_from(self):
        alice = person("5.00")
        day = database_time().date() + timedelta(days=2)
        response = ask(alice, from_=day.isoformat(), to=(day + timedelta(days=1)).isoformat())
        assert wrong_fields(response) == ["from"]


@pytest.mark.django_db
class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "fields"),
        [
            ({"to": "2026-02-01"}, ["from"]),
            ({"from": "2026-01-01"}, ["to"]),
            ({"format": "csv"}, ["from", "to"]),
            ({"from": "2026-02-01", "to": "2026-01-01"}, ["to"]),
            ({"from": "2026-02-01", "to": "2026-02-01"}, ["to"]),
            ({"from": "2026-02-30", "to": "2026-03-01"}, ["from"]),
            ({"from": "2026-1-1", "to": "2026-02-01"}, ["from"]),
            ({"from": "20260101", "to": "2026-02-01"}, ["from"]),
            ({"from": "2026-W01-1", "to": "2026-02-01"}, ["from"]),
            ({"from": "2026-01-01T00:00:00Z", "to": "2026-02-01"}, ["from"]),
            ({"from": "0001-01-01", "to": "2026-02-01"}, ["from"]),
            ({"from": "1969-12-31", "to": "2026-02-01"}, ["from"]),
            ({"from": "2026-01-01", "to": "9999-12-31"}, ["to"]),
            ({"from": "2026-01-01", "to": "99999-01-01"}, ["to"]),
            ({"from": "", "to": ""}, ["from", "to"]),
            ({"from": "2026-01-01\x00", "to": "2026-02-01"}, ["from"]),
            ({**EVER, "tz": "Mars/Olympus"}, ["tz"]),
            ({**EVER, "tz": ""}, ["tz"]),
            ({**EVER, "tz": "europe/berlin"}, ["tz"]),
            ({**EVER, "tz": "../../etc/passwd"}, ["tz"]),
            ({**EVER, "tz": "/etc/localtime"}, ["tz"]),
            ({**EVER, "tz": "Europe"}, ["tz"]),
            ({**EVER, "tz": "EUROPE/BERLIN"}, ["tz"]),
            ({**EVER, "tz": "utc"}, ["tz"]),
            ({**EVER, "tz": "localtime"}, ["tz"]),  # the host's own
            ({**EVER, "tz": "Factory"}, ["tz"]),  # stands for "nobody has set it"
            ({**EVER, "tz": "posixrules"}, ["tz"]),
            ({**EVER, "tz": "posix/Europe/Berlin"}, ["tz"]),
            ({**EVER, "tz": "right/Europe/Berlin"}, ["tz"]),
            ({**EVER, "tz": "UTC\x00"}, ["tz"]),
            ({**EVER, "tz": "+02:00"}, ["tz"]),
            ({**EVER, "format": "xlsx"}, ["format"]),
            ({**EVER, "format": ""}, ["format"]),
            ({**EVER, "format": "CSV"}, ["format"]),
            ({**EVER, "format": "api"}, ["format"]),
        ],
    )
    def test_given_nonsense_when_asking_then_400_names_the_field(self, query, fields):
        assert sorted(wrong_fields(client_of(UserFactory()).get(URL, query))) == fields

    @pytest.mark.parametrize(
        "accept",
        [
            "text/csv",
            "application/pdf",
            "application/json",
            "*/*",
            "text/*",
            "text/html, */*;q=0.1",
        ],
    )
    @pytest.mark.parametrize(
        ("form", "media_type"),
        [("json", "application/json"), ("csv", "text/csv"), ("pdf", "application/pdf")],
    )
    def test_given_any_of_the_forms_in_accept_when_asking_then_format_decides(
        self, accept, form, media_type
    ):
        response = ask(UserFactory(), accept, from_="2026-01-01", to="2026-02-01", format=form)
        assert response.status_code == 200
        assert response["Content-Type"].partition(";")[0] == media_type

    def test_given_a_refusal_when_only_csv_is_accepted_then_a_problem_document(self):
        response = ask(UserFactory(), "text/csv", from_="x", to="2026-02-01", format="csv")
        assert wrong_fields(response) == ["from"]

    def test_given_none_of_the_forms_in_accept_when_asking_then_406(self):
        response = client_of(UserFactory()).get(URL, EVER, headers={"Accept": "image/png"})
        assert refusal(response) == (406, "not_acceptable")

    def test_given_another_method_then_405(self):
        assert refusal(client_of(UserFactory()).post(URL)) == (405, "method_not_allowed")


@pytest.mark.django_db(transaction=True)
class TestCSV:
    def test_given_history_when_asking_then_rfc_4180_with_numbers_and_a_name(self):
        alice, bob = person("100.00"), person(first_name="Zoë", last_name="Ünal")
        pay(alice, bob, "30.00", 'Said "hi", then\r\nleft')

        response = ask(alice, from_="2020-01-01", to="2900-01-01", format="csv")

        assert response["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert response["Content-Disposition"] == (
            'attachment; filename="statement_2020-01-01_2900-01-01.csv"'
        )
        text = body(response)
        assert text.count("\r\n") == 3 + 1  # header, two lines, one inside a quoted cell
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        assert [row["amount"] for row in rows] == ["100.00", "-30.00"]
        assert [row["balance_after"] for row in rows] == ["100.00", "70.00"]
        assert rows[1]["counterparty"] == "Zoë Ü."
        assert rows[1]["description"] == 'Said "hi", then\r\nleft'
        assert rows[1]["created_at"].endswith("Z")
        assert rows[0]["counterparty"] == rows[0]["description"] == ""

    def test_given_csv_and_json_when_asking_then_the_same_lines(self):
        alice, bob = person("100.00"), person()
        pay(alice, bob, "30.00", "Dinner")
        lines = statement(alice)["lines"]
        for row, line in zip(table(alice), lines, strict=True):
            for name in ("transaction_id", "type", "direction", "amount", "balance_after"):
                assert row[name] == line[name]
            assert row["created_at"] == line["created_at"]

    @pytest.mark.parametrize(
        ("text", "safe"),
        [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t'=1"),
            ("\r=1", "'\r'=1"),
            ("\n=1", "'\n'=1"),
            ("\tx", "'\tx"),
            ('"=1+1"', '\'"=1+1"'),
            ("'=1+1", "''=1+1"),
            ("  =1+1", "'  =1+1"),
            ("\uff1d1+1", "'\uff1d1+1"),
            ("a;=1+1", "a;'=1+1"),
            ("a\r\n=1+1", "a\r\n'=1+1"),
            ("\u200b=1", "'\u200b=1"),
            ("\ufeff \u200e=1", "'\ufeff \u200e=1"),
            ("\x00=1", "'\x00=1"),
            ("\ufe0f\u3164+1", "'\ufe0f\u3164+1"),
            ("a;\u00a0=1", "a;'\u00a0=1"),
            ("a;\u3000\u2060@b", "a;'\u3000\u2060@b"),
            ("\u200bRent", "\u200bRent"),
            ("a, =b", "a, =b"),
            ("Rent 1-2", "Rent 1-2"),
            ("2+2=4", "2+2=4"),
            ("me@example.com", "me@example.com"),
            ("", ""),
        ],
    )
    def test_given_a_formula_when_written_then_it_is_text(self, text, safe):
        assert as_text(text) == safe

    def test_given_any_invisible_character_before_a_formula_then_it_is_text(self):
        every = map(chr, range(sys.maxunicode + 1))
        invisible = [one for one in every if unicodedata.category(one) in ("Cf", "Zs", "Cc")]
        assert len(invisible) > 150
        for character in invisible:
            assert as_text(f"{character}=1").startswith("'"), ascii(character)
            assert "'" in as_text(f"a;{character}=1"), ascii(character)

    def test_given_formulas_in_every_text_when_asking_then_no_cell_begins_one(self):
        alice, mallory = person("100.00"), person(first_name="=cmd|'/C calc'!A0", last_name="")
        pay(alice, mallory, "1.00", '=HYPERLINK("http://evil.example","x")')
        pay(alice, mallory, "1.00", "\t=1+1")
        for row in table(alice):
            for name, cell in row.items():
                if name not in ("amount", "balance_after"):
                    assert not re.match(r"[\s\"]*[=+\-@]", cell), (name, cell)
                else:
                    assert Decimal(cell) == Decimal(cell)


@pytest.mark.django_db(transaction=True)
class TestProof:
    def test_given_a_ledger_that_contradicts_itself_when_streaming_then_it_breaks_off(
        self, owner, caplog
    ):
        alice = person("100.00")
        for _ in range(3):
            fund(alice, "1.00")
        forge(owner, alice, 3)
        for form in ("json", "csv"):
            response = ask(alice, from_="2000-01-01", to="2900-01-01", format=form)
            written = []
            with pytest.raises(StatementBroken):
                written.extend(response.streaming_content)
            assert b"]}" not in b"".join(written)
        assert "a statement does not add up" in caplog.text

    def test_given_a_missing_line_when_streaming_then_it_breaks_off(self, owner):
        alice = person("100.00")
        fund(alice, "1.00")
        fund(alice, "1.00")
        remove(owner, alice, 2)
        with pytest.raises(StatementBroken):
            body(ask(alice))

    def test_given_a_closing_that_is_not_reached_when_streaming_then_it_breaks_off(self, owner):
        """The newest line vanishes after the statement was settled."""
        alice = person("100.00")
        fund(alice, "1.00")
        response = ask(alice)
        remove(owner, alice, 2)
        with pytest.raises(StatementBroken):
            body(response)

    @pytest.mark.parametrize("form", ["json", "csv"])
    def test_given_a_ledger_that_contradicts_itself_when_downloading_then_it_is_cut_off(
        self, owner, tmp_path, form
    ):
        """Over a real connection: the client's library notices, even with CSV."""
        alice = person("100.00")
        for _ in range(3):
            fund(alice, "1.00")
        forge(owner, alice, 3)
        with Web(tmp_path) as web:
            path = f"{URL}?{urlencode({**EVER, 'format': form})}"
            headers = {"Authorization": f"Bearer {sign_in(alice).access}"}
            request = urllib.request.Request(web.url + path, headers=headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                assert response.status == 200
                with pytest.raises(http.client.IncompleteRead):
                    response.read()
            said = web.said()
        assert "a statement does not add up" in said

    def test_given_a_ledger_that_contradicts_itself_when_asking_for_a_pdf_then_500(self, owner):
        alice = person("100.00")
        forge(owner, alice, 1)
        client = client_of(alice)
        client.raise_request_exception = False
        assert refusal(client.get(URL, {**EVER, "format": "pdf"})) == (500, "internal_error")

    def test_given_a_posting_in_flight_when_asking_then_it_waits_and_counts_it(self):
        alice = person("100.00")
        posted, asked = threading.Event(), threading.Event()

        def post_slowly() -> None:
            with transaction.atomic():
                fund(alice, "11.00")
                posted.set()
                asked.wait(timeout=5)
                time.sleep(0.3)
            connections.close_all()

        slow = threading.Thread(target=post_slowly)
        slow.start()
        assert posted.wait(timeout=5)
        asked.set()
        shown = statement(alice)
        slow.join(timeout=10)
        assert shown["closing_balance"] == "111.00"


def forge(owner: Any, user: User, sequence: int) -> None:
    """What no application can do: change an entry, with the triggers off."""
    _as_superuser(owner, user, sequence, "UPDATE transactions_transactionledger SET amount = 9")


def remove(owner: Any, user: User, sequence: int) -> None:
    _as_superuser(owner, user, sequence, "DELETE FROM transactions_transactionledger")


def _as_superuser(owner: Any, user: User, sequence: int, change: str) -> None:
    owner.execute("SET session_replication_role = replica")
    owner.execute(f"{change} WHERE wallet_id = %s AND sequence = %s", [user.wallet.pk, sequence])
    owner.execute("SET session_replication_role = origin")


def make_history(owner: Any, user: User, other: User, lines: int) -> None:
    """A long history at once: in by two, out by one, a line a minute until now."""
    owner.execute("SET session_replication_role = replica")
    owner.execute(
        """
        CREATE TEMPORARY TABLE made AS
        SELECT n, gen_random_uuid() AS id, CASE n %% 2 WHEN 1 THEN 2.00 ELSE 1.00 END AS amount,
               n %% 2 = 1 AS arrives, now() - (%(lines)s - n) * interval '1 minute' AS at
          FROM generate_series(1, %(lines)s) n;
        INSERT INTO transactions_transaction (id, reference_id, type, status, amount, currency,
               fee, refunded_amount, from_user_id, to_user_id, description, metadata, created_at,
               completed_at)
        SELECT id, 'TX-' || substr(replace(id::text, '-', ''), 1, 26), 'transfer', 'completed',
               amount, 'USD', 0, 0,
               (CASE WHEN arrives THEN %(other)s ELSE %(user)s END)::uuid,
               (CASE WHEN arrives THEN %(user)s ELSE %(other)s END)::uuid,
               'Line number ' || n || ' of a long history', '{}', at, at FROM made;
        INSERT INTO transactions_transactionledger (id, transaction_id, account, wallet_id,
               sequence, entry_type, amount, currency, balance_after, created_at)
        SELECT gen_random_uuid(), id, 'wallet', %(wallet)s::uuid, n,
               CASE WHEN arrives THEN 'credit' ELSE 'debit' END, amount, 'USD',
               (n + 1) / 2 * 2.00 - n / 2 * 1.00, at FROM made;
        UPDATE wallet_wallet SET (balance, entry_count, last_entry_at) = (
               (%(lines)s + 1) / 2 * 2.00 - %(lines)s / 2, %(lines)s, (SELECT max(at) FROM made))
         WHERE id = %(wallet)s::uuid;
        DROP TABLE made;
        """,
        {
            "lines": lines,
            "user": str(user.pk),
            "other": str(other.pk),
            "wallet": str(user.wallet.pk),
        },
    )
    owner.execute("SET session_replication_role = origin")
    owner.execute("ANALYZE transactions_transaction, transactions_transactionledger")


def resident_bytes() -> int:
    """What this process holds in memory; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


@pytest.mark.django_db(transaction=True)
class TestLongHistory:
    def test_given_100_000_lines_when_streaming_then_all_arrive_in_small_pieces(self, owner):
        alice, bob = person(), person()
        make_history(owner, alice, bob, 100_000)
        for form in ("json", "csv"):
            before = resident_bytes()
            lines, longest, most = 0, 0, before
            for piece in ask(alice, from_="2000-01-01", to="2900-01-01", format=form):
                lines += piece.count(b"Line number")
                longest, most = max(longest, len(piece)), max(most, resident_bytes())
            assert lines == 100_000
            assert longest < 1_000_000
            assert most - before < 40_000_000, "about what the whole statement would take"

    @pytest.mark.parametrize("form", ["json", "csv"])
    def test_given_more_lines_when_streaming_then_no_more_memory(self, owner, form):
        peaks = {}
        for lines in (3_000, 12_000):
            alice, bob = person(), person()
            make_history(owner, alice, bob, lines)
            response = ask(alice, from_="2000-01-01", to="2900-01-01", format=form)
            tracemalloc.start()
            try:
                assert sum(piece.count(b"Line number") for piece in response) == lines
                _now, peaks[lines] = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peaks[12_000] < 1.2 * peaks[3_000], peaks

    def test_given_100_000_lines_when_asking_for_a_pdf_then_400_suggests_csv(self, owner):
        alice, bob = person(), person()
        make_history(owner, alice, bob, LINES_MAX + 1)
        response = ask(alice, from_="2000-01-01", to="2900-01-01", format="pdf")
        assert wrong_fields(response) == ["format"]
        assert "csv" in response.json()["errors"][0]["detail"]

    def test_given_5_000_lines_when_asking_for_a_pdf_then_every_page_is_numbered(self, owner):
        alice, bob = person(), person()
        make_history(owner, alice, bob, LINES_MAX)
        started = time.perf_counter()
        response = ask(alice, from_="2000-01-01", to="2900-01-01", format="pdf")
        seconds = time.perf_counter() - started
        assert response.status_code == 200
        pages = response.content.count(b"/Type /Page\n")
        assert 150 < pages < 350
        assert seconds < 15


def text_of(pdf: bytes) -> str:
    """What a reader could copy out of it."""
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


@pytest.mark.django_db(transaction=True)
class TestPDF:
    def pdf(self, user: User, **query: str) -> bytes:
        asked = query or {"from_": "2000-01-01", "to": "2900-01-01"}
        response = ask(user, **asked, format="pdf")
        assert response.status_code == 200, response.content
        assert response["Content-Type"] == "application/pdf"
        assert int(response["Content-Length"]) == len(response.content)
        return response.content

    def test_given_history_when_asking_then_what_a_person_looks_for_is_on_it(self):
        alice = person("1234.50", first_name="Алиса", last_name="Ångström")
        bob = person(first_name="Ελένη", last_name="Παπαδοπούλου")
        pay(alice, bob, "30.00", "Ужин")
        seal = LedgerSeal.objects.get(wallet=alice.wallet, sequence=2)

        words = text_of(self.pdf(alice, from_="2026-01-01", to="2900-01-01", tz="Asia/Tokyo"))

        for expected in (
            "Алиса Ångström",
            str(alice.wallet.pk),
            "1 Jan 2026 \u2013 31 Dec 2899",
            "Asia/Tokyo",
            "Opening balance",
            "Balance so far",
            "+1,234.50",
            "\u221230.00",
            "1,204.50",
            "Transfer to Ελένη Π.",
            "Ужин",
            bytes(seal.seal).hex(),
            "Page 1 of 1",
            "Generated",
        ):
            assert expected in words, expected

    def test_given_a_period_that_is_over_when_asking_then_the_closing_balance(self):
        words = text_of(self.pdf(person(), from_="2026-01-01", to="2026-01-02"))
        assert "Closing balance" in words
        assert "Nothing moved in this period." in words
        assert "1 Jan 2026" in words

    @pytest.mark.parametrize(
        "name", ["王小明", "محمد", "🎉", "a\u202eb", "é" * 100, "W" * 100, "Ǆ", "a\tb\nc", "\ufffe"]
    )
    def test_given_any_name_when_asking_then_a_document(self, name):
        alice, bob = person("10.00"), person("1.00")
        User.objects.filter(pk=alice.pk).update(kyc_status="approved")
        pay(alice, bob, "1.00", name)
        pdf = self.pdf(alice)
        assert pdf.startswith(b"%PDF-")
        assert pdf.rstrip().endswith(b"%%EOF")

    def test_given_characters_without_a_glyph_when_asking_then_it_says_so(self):
        alice, bob = person("10.00"), person()
        pay(alice, bob, "1.00", "紅包")
        assert "Boxes stand for characters" in text_of(self.pdf(alice))
        assert "Boxes stand for" not in text_of(self.pdf(bob, from_="2001-01-01", to="2002-01-01"))

    def test_given_many_lines_when_asking_then_balances_are_brought_forward(self):
        alice = person()
        for _ in range(60):
            fund(alice, "1.00")
        words = text_of(self.pdf(alice))
        assert "Page 1 of 3" in words
        assert "Page 3 of 3" in words
        assert words.count("Brought forward") == 2
        assert words.count("Deposit") == 60

    def test_given_many_when_asking_for_more_then_429_and_other_forms_go_on(self, settings):
        settings.STATEMENT_PDF_RATE = "2/m"
        alice, bob = person("1.00"), person("1.00")
        self.pdf(alice)
        self.pdf(alice)
        response = ask(alice, from_="2026-01-01", to="2026-01-02", format="pdf")
        assert refusal(response) == (429, "rate_limited")
        assert int(response["Retry-After"]) > 0
        # It is drawn for its headers, too.
        assert client_of(alice).head(URL, EVER | {"format": "pdf"}).status_code == 429
        assert ask(alice, from_="2026-01-01", to="2026-01-02", format="csv").status_code == 200
        assert statement(alice)["closing_balance"] == "1.00"
        self.pdf(bob)

    def test_given_long_words_when_breaking_them_then_it_takes_no_time(self):
        _register_fonts()
        began = time.perf_counter()
        for _ in range(200):
            wrap("W" * 255, NOTE, 200)
        assert time.perf_counter() - began < 0.5

    def test_given_text_then_it_is_one_line_without_tricks(self):
        assert clean("a\r\n b\u202e\tc ") == "a b c"
        assert clean("e\u0301") == "é"

    def test_given_the_lines_then_no_more_than_fits(self):
        _register_fonts()
        for text in ("word " * 60, "W" * 255, "a " + "W" * 253, ""):
            lines = wrap(text.strip(), NOTE, 200)
            assert "".join(lines).replace(" ", "") == text.replace(" ", "")
            assert all(NOTE.width(line) <= 200 for line in lines)
