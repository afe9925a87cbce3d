"""How rows are handed to PostgreSQL."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from fintech_core.rows import as_text, from_text, read_moments
from transactions.models import Account, Transaction


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**63 - 1,
        "",
        'Dinner \u00e9\u20ac\U0001f600\u2028\u0001\x7f "quoted" \\ / \n\t',
        {"name \u00fc": "value"},
        Account.WALLET,
        Transaction.Type.TRANSFER,
    ],
)
def test_given_a_value_when_written_then_json_reads_it_as_it_was(value):
    assert json.loads(as_text([{"value": value}])) == [{"value": value}]


@pytest.mark.parametrize("text", ["0.01", "9999999999999.99", "1E-7", "0.00"])
def test_given_an_amount_when_written_then_it_is_text_and_exact(text):
    assert json.loads(as_text({"amount": Decimal(text)})) == {"amount": str(Decimal(text))}


def test_given_an_id_and_a_moment_when_written_then_they_are_text_and_whole():
    made_id = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    for moment in (datetime(2026, 11, 23, 7, 0, 0, 123456, UTC), datetime(2026, 1, 1, tzinfo=UTC)):
        written = json.loads(as_text({"id": made_id, "at": moment}))
        assert written == {"id": str(made_id), "at": moment.isoformat()}


def test_given_half_a_character_when_written_then_refused():
    with pytest.raises(TypeError):
        as_text({"description": "\ud800"})


@pytest.mark.parametrize(
    "text", ["0.0001", "999999999999999.9999", "0.0000", "90071992547409.9300"]
)
def test_given_an_amount_when_read_then_it_is_exact(text):
    read = from_text(f'{{"amount": {text}}}')["amount"]
    assert (type(read), str(read)) == (Decimal, text)


@pytest.mark.parametrize("fraction", ["", ".5", ".97763", ".123456"])
def test_given_a_moment_when_read_then_to_the_microsecond(fraction):
    row = {"at": f"2026-11-23T07:00:00{fraction}+00:00", "never": None}
    read_moments(row, "at", "never")
    microseconds = round(float(f"0{fraction or '.0'}") * 1_000_000)
    assert row == {"at": datetime(2026, 11, 23, 7, 0, 0, microseconds, UTC), "never": None}
