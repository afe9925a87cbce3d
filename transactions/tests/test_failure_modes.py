"""Rows of docs/failure-modes.md that the other modules do not prove by themselves."""

import threading
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
import time_machine
from django.db import connection, transaction

from transactions.models import Transaction
from transactions.services import TransactionService
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    client_of,
    fund,
    person,
    refused_by,
)
from transactions.tests.test_ledger_rules import INSERT_ENTRY, INSERT_TRANSACTION, run
from transactions.tests.test_transfer import post, refusal
from wallet.models import Wallet

pytestmark = pytest.mark.django_db(transaction=True)


def test_given_a_deposit_under_way_when_another_wallet_is_paid_then_it_does_not_wait():
    """Both are posted against `gateway_clearing`, which has no row that could be locked."""
    alice, bob = person(), person()
    written, paid = threading.Event(), threading.Event()

    def slow():
        with transaction.atomic():
            fund(alice, "1.00")
            written.set()
            return paid.wait(20)

    def quick():
        written.wait(20)
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '1s'")
        fund(bob, "1.00")
        paid.set()
        return True

    assert at_once(slow, quick) == [True, True]
    assert (balance(alice), balance(bob)) == (Decimal("1.00"), Decimal("1.00"))
    assert breaches() == []


def test_given_an_entry_older_than_the_one_before_when_inserting_then_refused():
    alice = person("10.00")
    wallet = Wallet.objects.get(user=alice)
    made = uuid4()

    def dated(statement):
        return statement.replace("now()", "timestamptz '2020-01-01 00:00Z'")

    with refused_by("transactions_ledger_time_runs_forward"), transaction.atomic():
        run(dated(INSERT_TRANSACTION), id=made, amount="5.00", user=alice.pk)
        run(
            dated(INSERT_ENTRY),
            id=made,
            account="wallet",
            wallet=wallet.pk,
            sequence=2,
            entry_type="credit",
            amount="5.00",
            currency="USD",
            balance_after="15.00",
        )


def test_given_oneself_on_both_sides_in_raw_sql_when_inserting_then_refused():
    alice = person("10.00")
    with refused_by("transactions_transaction_two_different_parties"), transaction.atomic():
        run(
            INSERT_TRANSACTION.replace("to_user_id", "from_user_id, to_user_id").replace(
                "%(user)s", "%(user)s, %(user)s"
            ),
            id=uuid4(),
            amount="5.00",
            user=alice.pk,
        )


def test_given_a_wrong_clock_on_the_host_when_posting_then_the_databases_counts():
    alice = person()
    with time_machine.travel(datetime(2099, 1, 1, tzinfo=UTC)):
        made = TransactionService.add_money(
            wallet_id=alice.wallet.pk, amount=Decimal("1.00"), currency="USD", effect_key="clock"
        )
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    stored = Transaction.objects.get(pk=made.pk)
    assert stored.created_at < now
    assert stored.entries.get(wallet__user=alice).created_at == stored.created_at
    # A customer can go on: nothing of theirs lies in the future.
    fund(alice, "1.00")
    assert breaches() == []


def test_given_a_429_when_the_limit_is_over_then_the_key_is_still_fresh(settings):
    settings.RATE_LIMIT_TRANSFER = "1/m"
    alice, bob = person("10.00"), person()
    client, body = client_of(alice), {"recipient": bob.email, "amount": "1.00"}
    post(client, body)
    assert refusal(post(client, body, key="k")) == (429, "rate_limited")
    settings.RATE_LIMIT_TRANSFER = "10/m"
    late = post(client, body, key="k")
    assert late.status_code == 201
    assert "Idempotent-Replayed" not in late


def test_given_several_reasons_when_the_limit_is_over_then_429_right_after_401(client, settings):
    settings.RATE_LIMIT_TRANSFER = "1/m"
    alice, bob = person("10.00"), person()
    body = {"recipient": bob.email, "amount": "1.00"}
    assert post(client_of(alice), body, key="k").status_code == 201
    for wrong in (body, body | {"amount": "x"}, body | {"recipient": alice.email}):
        assert refusal(post(client_of(alice), wrong, key="k")) == (429, "rate_limited")
        assert refusal(post(client, wrong, key="k")) == (401, "not_authenticated")
