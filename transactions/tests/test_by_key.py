"""Who moves money reads the rows of those concerned, not everybody's.

With some thousand people PostgreSQL would rather read the whole tables: see
`wallet/migrations/0009_lock_by_key.py`.
"""

import pytest
from django.db import transaction

from conftest import owner_cursor
from fintech_core.database import query
from transactions.tests.helpers import capture, fund, hold_of, person, refund, reserve, send

pytestmark = pytest.mark.django_db(transaction=True)

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
ANALYZE users_user, wallet_wallet;
"""


@pytest.fixture(autouse=True)
def bystanders(db):
    with owner_cursor() as owner:
        owner.execute(_BYSTANDERS)


def tables_read_whole() -> int:
    """How often this session has read all people or wallets, since its statistics were sent."""
    [(count,)] = query(
        "SELECT sum(seq_scan)::int FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('users_user', 'wallet_wallet')"
    )
    return count


@transaction.atomic
def read_whole_by(move) -> int:
    before = tables_read_whole()
    move()
    return tables_read_whole() - before


def test_given_some_thousand_people_when_all_of_them_are_counted_then_it_is_seen():
    assert read_whole_by(lambda: query("SELECT count(updated_at) FROM wallet_wallet")) == 1


def test_given_some_thousand_people_when_money_moves_then_only_the_parties_are_read():
    alice, bob = person("100.00"), person()
    sent = []

    assert read_whole_by(lambda: sent.append(send(alice, bob, "10.00"))) == 0
    assert read_whole_by(lambda: fund(alice, "5.00")) == 0
    assert read_whole_by(lambda: refund(bob, sent[0].content["id"])) == 0
    hold = hold_of(reserve(alice, bob, "20.00"))
    assert read_whole_by(lambda: capture(bob, hold)) == 0
