"""Real threads on real PostgreSQL: no overdraft, no deadlock, nothing lost, nothing made."""

import random
from decimal import Decimal

import pytest
from django.db import connection, transaction

from fintech_core.database import query
from fintech_core.idempotency import Answer
from transactions.models import Transaction, TransactionLedger
from transactions.services import TransactionService
from transactions.tests.helpers import at_once, balance, breaches, person, send
from wallet.locking import lock_wallets

pytestmark = pytest.mark.django_db(transaction=True)


def moved(outcomes: list) -> int:
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return sum(outcome.status == 201 for outcome in outcomes)


def test_given_money_for_three_when_ten_transfers_race_then_three_win():
    alice, bob = person("30.00"), person()
    outcomes = at_once(*[lambda: send(alice, bob, "10.00") for _ in range(10)])
    assert moved(outcomes) == 3
    refused = [x.content["code"] for x in outcomes if x.status != 201]
    assert refused == ["insufficient_funds"] * 7
    assert (balance(alice), balance(bob)) == (Decimal("0.00"), Decimal("30.00"))
    assert breaches() == []


def test_given_opposite_transfers_when_they_race_then_none_deadlocks():
    alice, bob = person("100.00"), person("100.00")

    def back_and_forth(sender, recipient):
        return [send(sender, recipient, "1.00") for _ in range(10)]

    outcomes = at_once(
        *[lambda: back_and_forth(alice, bob)] * 4, *[lambda: back_and_forth(bob, alice)] * 4
    )
    assert moved([answer for answers in outcomes for answer in answers]) == 80
    assert (balance(alice), balance(bob)) == (Decimal("100.00"), Decimal("100.00"))
    assert breaches() == []


def test_given_a_ring_of_people_when_they_all_pay_at_random_then_the_sum_stays():
    people = [person("50.00") for _ in range(5)]

    def pay(seed):
        chance = random.Random(seed)
        for _ in range(12):
            sender, recipient = chance.sample(people, 2)
            send(sender, recipient, f"{chance.randint(1, 3000) / 100:.2f}")

    assert at_once(*[lambda seed=seed: pay(seed) for seed in range(8)]) == [None] * 8
    assert sum(map(balance, people)) == Decimal("250.00")
    assert breaches() == []


def test_given_one_cause_when_sixteen_deposits_race_then_one_credit():
    alice = person()

    def deposit():
        return TransactionService.add_money(
            wallet_id=alice.wallet.pk, amount=Decimal("5.00"), currency="USD", effect_key="gw:1"
        ).pk

    outcomes = at_once(*[deposit] * 16)
    assert len(set(outcomes)) == 1
    assert balance(alice) == Decimal("5.00")


def test_given_a_freeze_when_transfers_race_with_it_then_each_goes_one_way_or_the_other():
    alice, bob = person("10.00"), person()

    def freeze():
        freeze(alice)

    *outcomes, _ = at_once(*[lambda: send(alice, bob, "1.00") for _ in range(8)], freeze)
    assert {x.content.get("code", "moved") for x in outcomes} <= {"moved", "wallet_frozen"}
    assert balance(bob) == Decimal(moved(outcomes))
    assert breaches() == []


def test_given_many_writers_when_reading_the_entries_then_numbers_and_times_run_forward():
    alice, *others = [person("100.00") for _ in range(5)]
    at_once(
        *[lambda other=other: [send(other, alice, "1.00") for _ in range(8)] for other in others]
    )
    entries = list(TransactionLedger.objects.filter(wallet__user=alice).order_by("sequence"))
    assert [entry.sequence for entry in entries] == list(range(1, 34))
    times = [entry.created_at for entry in entries]
    assert times == sorted(times)
    posted = Transaction.objects.filter(type="transfer")
    assert all(made.created_at == made.completed_at for made in posted)


def test_given_a_deadlock_when_postgresql_sacrifices_us_then_the_transfer_is_repeated(owner):
    """Locks taken against the order by somebody else: a script, an operator's session."""
    alice, bob = person("10.00"), person("10.00")
    first, second = sorted([alice, bob], key=lambda user: user.wallet.pk)

    def against_the_order():
        owner.execute("SET deadlock_timeout = '5s'")  # so that the other side is the victim
        owner.execute("BEGIN")
        for user in (second, first):
            owner.execute(
                "SELECT 1 FROM wallet_wallet WHERE id = %s FOR UPDATE", [str(user.wallet.pk)]
            )
            owner.execute("SELECT pg_sleep(0.4)")
        owner.execute("ROLLBACK")

    def transfer():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.1)")
        return send(alice, bob, "1.00")

    outcome, _ = at_once(transfer, against_the_order)
    assert isinstance(outcome, Answer), outcome
    assert outcome.status == 201
    assert breaches() == []


def test_given_two_wallets_when_locking_them_then_in_id_order_whoever_asks():
    """Retries would hide a wrong order: the deadlocks would only cost time."""
    first, second = sorted([person().wallet.pk, person().wallet.pk])
    for asked in ((first, second), (second, first)):
        with transaction.atomic():
            assert list(lock_wallets(*asked)) == [first, second]
    [(body,)] = query("SELECT prosrc FROM pg_proc WHERE proname = 'wallet_lock'")
    assert body.count("FOR NO KEY UPDATE") == body.count("ORDER BY w.id FOR NO KEY UPDATE") == 1
