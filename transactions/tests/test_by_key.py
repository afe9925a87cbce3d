"""Who moves money reads the rows of those concerned, not everybody's.

With some thousand people, or a ledger that has hardly begun, PostgreSQL would rather read whole
tables, and keep to that: see `wallet/migrations/0009_lock_by_key.py`.
"""

import pytest

from conftest import owner_cursor
from fintech_core.database import execute, query
from transactions.tests.helpers import (
    capture,
    client_of,
    fund,
    hold_of,
    person,
    refund,
    reserve,
    send,
)

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = ["users_user", "wallet_wallet"]
LEDGER = [
    "transactions_transaction",
    "transactions_transactionledger",
    "transactions_ledgerseal",
    "transactions_outsideseal",
    "transactions_transferbatch",
    "transactions_transferbatchleg",
]
_BYSTANDERS = """
SET session_replication_role = replica;
CREATE TEMPORARY TABLE bystanders AS
SELECT n, uuidv7() AS user_id FROM generate_series(1, 2000) n;
INSERT INTO users_user (id, email, phone_number, first_name, last_name, password, is_active,
    is_staff, is_superuser, date_joined, kyc_status, kyc_rejection_reason, address_line1,
    address_line2, city, postal_code, country)
SELECT user_id, 'by' || n || '@example.com', '+4930' || lpad(n::text, 7, '0'), 'By', 'Stander',
       '!', true, false, false, now(), 'approved', '', '', '', '', '', '' FROM bystanders;
INSERT INTO wallet_wallet (id, user_id, currency, balance, held, entry_count, status, created_at,
    updated_at)
SELECT uuidv7(), user_id, 'USD', 0, 0, 0, 'active', now(), now() FROM bystanders;
"""


@pytest.fixture(autouse=True)
def bystanders(db):
    """And plans that are made for a ledger with nothing in it."""
    with owner_cursor() as owner:
        owner.execute(f"{_BYSTANDERS} ANALYZE {', '.join(PEOPLE + LEDGER)}")


def read_whole_by(move, tables: list[str]) -> int:
    """How often `move` has read one of these tables as a whole, until after its COMMIT."""
    before = _scans(tables)
    move()
    return _scans(tables) - before


def _scans(tables: list[str]) -> int:
    execute("SELECT pg_stat_force_next_flush()")
    [(count,)] = query(
        "SELECT sum(seq_scan)::int FROM pg_stat_user_tables WHERE relname = ANY (%(tables)s)",
        tables=tables,
    )
    return count


def send_many(sender, recipients):
    answer = client_of(sender).post(
        "/api/v1/transactions/batch/",
        {
            "mode": "atomic",
            "transfers": [{"recipient": other.email, "amount": "1.00"} for other in recipients],
        },
        format="json",
        headers={"Idempotency-Key": "many"},
    )
    assert answer.status_code == 201


def test_given_some_thousand_people_when_all_of_them_are_counted_then_it_is_seen():
    assert read_whole_by(lambda: query("SELECT count(updated_at) FROM wallet_wallet"), PEOPLE) == 1


def test_given_a_young_ledger_when_money_is_sent_then_only_the_parties_are_read():
    alice, others = person("100.00"), [person() for _ in range(3)]

    assert read_whole_by(lambda: send(alice, others[0], "10.00"), PEOPLE + LEDGER) == 0
    assert read_whole_by(lambda: send_many(alice, others), PEOPLE + LEDGER) == 0


def test_given_some_thousand_people_when_money_moves_otherwise_then_only_the_parties_are_read():
    alice, bob = person("100.00"), person()
    sent = send(alice, bob, "10.00")

    assert read_whole_by(lambda: fund(alice, "5.00"), PEOPLE) == 0
    assert read_whole_by(lambda: refund(bob, sent.content["id"]), PEOPLE) == 0
    hold = hold_of(reserve(alice, bob, "20.00"))
    assert read_whole_by(lambda: capture(bob, hold), PEOPLE) == 0
