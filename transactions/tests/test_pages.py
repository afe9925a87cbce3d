"""Pages whose JSON PostgreSQL writes: to the byte what the serializers would have written."""

import json
from typing import Any

import pytest
from rest_framework.renderers import JSONRenderer

from transactions import queries
from transactions.serializers import LedgerEntrySerializer, TransactionSerializer
from transactions.tests.helpers import client_of, person, refund, send
from transactions.tests.proofs import tamper
from users.models import User

ASCII = "".join(chr(code) for code in range(1, 128))
NAMES = [
    ("", ""),
    ("Bob", ""),
    ("", "Tanner"),
    ("Anna Maria", "de Vries"),
    ('O"Neil\\', '"'),
    ("Ünal", "Öz"),
    ("Ada", "👩‍🚀 of Mars"),  # its first character, not what is seen as one
]
TEXTS = ["", "Dinner", ASCII, ' %s {} "a": b, </script> ', "\u2028 é \u2029 \ufeff 👩‍🚀", "\\u2028"]
METADATA: list[dict[str, Any]] = [
    {},
    {"table": "7"},
    {"b": "x: y, z", "a": ASCII, 'c"': "", "é": "👩‍🚀"},
    {"number": 1.50, "nothing": None, "so": True},
]


def content(user: User, path: str = "") -> bytes:
    response = client_of(user).get(f"/api/v1/transactions/{path}")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    written: bytes = response.content
    return written


def written_by_python(results: Any) -> bytes:
    return JSONRenderer().render({"next": None, "previous": None, "results": results})


@pytest.fixture
def alice(owner: Any) -> User:
    """She has dealt with people of every kind of name, and every kind of text went along."""
    alice = person("100.00", first_name="Alice", last_name="Archer")
    for first_name, last_name in NAMES:
        other = person("5.00")
        given_back = send(other, alice, "2.00").content["id"]
        send(alice, other, "1.00")
        refund(alice, given_back, "0.50")
        names = "UPDATE users_user SET first_name = %s, last_name = %s WHERE id = %s"
        rewrite(owner, names, first_name, last_name, str(other.pk))
    touched = queries.transactions_of(alice.pk).order_by("id")
    for place, one in enumerate(touched):
        said = "UPDATE transactions_transaction SET description = %s, metadata = %s WHERE id = %s"
        metadata = json.dumps(METADATA[place % len(METADATA)])
        rewrite(owner, said, TEXTS[place % len(TEXTS)], metadata, str(one.pk))
    return alice


def rewrite(owner: Any, statement: str, *parameters: Any) -> None:
    tamper(owner, owner.mogrify(statement, parameters))


@pytest.mark.django_db(transaction=True)
class TestPages:
    def test_given_any_name_and_text_when_listing_transactions_then_as_the_serializer_writes_them(
        self, alice
    ):
        newest_first = queries.transactions_of(alice.pk).order_by("-id")
        expected = TransactionSerializer(newest_first, many=True).data
        assert content(alice) == written_by_python(expected)

    def test_given_any_name_and_text_when_reading_history_then_as_a_statement_shows_it(self, alice):
        always = {"from": "2020-01-01", "to": "2900-01-01"}
        statement = client_of(alice).get("/api/v1/wallets/me/statement/", always)
        lines = json.loads(b"".join(statement.streaming_content))["lines"]
        assert len(lines) == 1 + 3 * len(NAMES)
        assert content(alice, "history/") == written_by_python(lines[::-1])

    def test_given_entries_when_listing_them_then_as_the_serializer_writes_them(self, alice):
        entries = alice.wallet.entries.order_by("-sequence")
        expected = LedgerEntrySerializer(entries, many=True, context={"caller_id": alice.pk}).data
        assert content(alice, "ledger/") == written_by_python(expected)

    @pytest.mark.parametrize("fraction", ["", ".000001", ".120000", ".999999"])
    def test_given_a_moment_when_listing_then_its_second_has_six_decimals_or_none(
        self, owner, fraction
    ):
        bob = person("1.00")
        moment = f"2026-03-01T00:00:00{fraction}Z"
        made = "UPDATE transactions_transaction SET (created_at, completed_at) = (%s, %s)"
        rewrite(owner, made, moment, moment)
        rewrite(owner, "UPDATE transactions_transactionledger SET created_at = %s", moment)
        for path in ("", "history/", "ledger/"):
            [line] = json.loads(content(bob, path))["results"]
            assert line["created_at"] == moment

    def test_given_a_withdrawal_that_waits_when_listing_then_it_is_not_completed(self, owner):
        bob = person("1.00")
        rewrite(
            owner,
            "UPDATE transactions_transaction SET type = 'withdrawal', status = 'pending',"
            " completed_at = NULL",
        )
        [line] = json.loads(content(bob))["results"]
        assert (line["status"], line["completed_at"]) == ("pending", None)
