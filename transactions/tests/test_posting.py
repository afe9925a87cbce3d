"""Writing many movements at once: what they share is told once, and nothing is lost by that."""

import pytest
from django.db import transaction

from fintech_core.database import query
from fintech_core.rows import as_text, differences
from transactions.models import Account, Transaction
from transactions.posting import Journal, Posting
from transactions.tests.helpers import person
from wallet.locking import lock_wallets

pytestmark = pytest.mark.django_db

SAME_AS_TOLD = """
SELECT to_jsonb(stored) - 'posted_in', to_jsonb(told) - 'posted_in'
  FROM json_populate_recordset(NULL::{table}, %(rows)s) told
  LEFT JOIN {table} stored USING (id)
"""


def deposit(wallet, amount, **more):
    return Posting(
        kind=Transaction.Type.DEPOSIT,
        debit=Account.GATEWAY_CLEARING,
        credit=wallet,
        amount=amount,
        currency=wallet.currency,
        **more,
    )


@pytest.mark.parametrize("order", [1, -1])
def test_given_movements_of_every_kind_when_posted_together_then_each_row_is_as_told(order):
    # Given movements that share nothing but the moment, and rows that lack columns of others
    payer, payee = person("100.00").wallet, person().wallet
    with transaction.atomic():
        wallets = lock_wallets(payer.pk, payee.pk)
        payer, payee = wallets[payer.pk], wallets[payee.pk]
        postings = [
            deposit(payer, payer.balance, effect_key="one", metadata={"a": "Łódź", "b": '"\\'}),
            deposit(payee, payer.balance / 4, description="it's % of {all}"),
            Posting(
                kind=Transaction.Type.TRANSFER,
                debit=payer,
                credit=payee,
                amount=payer.balance / 8,
                currency=payer.currency,
                metadata={},
            ),
            deposit(payee, payer.balance / 4, effect_key="two"),
        ]
        journal = Journal()
        for posting in postings[::order]:
            journal.enter(posting)
        # When
        journal.write()
        # Then
        told = {
            "transactions_transaction": [row for _, row in journal._made],
            "transactions_transactionledger": journal._entries,
        }
        for table, rows in told.items():
            compared = query(SAME_AS_TOLD.format(table=table), rows=as_text(rows))
            assert len(compared) == len(rows)
            assert all(stored == as_told for stored, as_told in compared)


def test_given_rows_that_differ_when_compared_then_only_that_is_said():
    rows = [{"id": 1, "kind": "a", "note": None}, {"id": 2, "kind": "a", "note": "x"}]
    assert differences(rows) == [{}, {"id": 2, "note": "x"}]


def test_given_a_row_without_a_column_of_the_first_when_compared_then_it_says_so():
    rows = [{"id": 1, "wallet": 5}, {"id": 2, "more": 3}, {"id": 1, "wallet": None}]
    assert differences(rows) == [{}, {"id": 2, "wallet": None, "more": 3}, {"wallet": None}]


def test_given_no_rows_when_compared_then_there_are_none():
    assert differences([]) == []
