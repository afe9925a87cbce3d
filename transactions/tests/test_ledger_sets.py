"""What is checked in sets is checked to the last row; and what no foreign key asks any more."""

import itertools
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from transactions.models import (
    LedgerSeal,
    Transaction,
    TransactionLedger,
    TransferBatch,
    TransferBatchLeg,
)
from transactions.tests.helpers import breaches, person, refused_by, send
from transactions.tests.proofs import tamper
from transactions.tests.test_ledger_rules import INSERT_ENTRY, INSERT_TRANSACTION, NIL, Forgery, run

pytestmark = pytest.mark.django_db(transaction=True)

SEAL_NOW = "SET CONSTRAINTS transactions_transaction_seal IMMEDIATE"


def insert_together(*entries: dict[str, object]) -> None:
    """All of them by one statement."""
    insert, values = INSERT_ENTRY.split("VALUES")
    with connection.cursor() as cursor:
        rows = [cursor.mogrify(values, entry).decode() for entry in entries]
        cursor.execute(f"{insert} VALUES {', '.join(rows)}")


class Forgeries:
    """Deposits by hand into one wallet, one after the other; right unless a test changes one."""

    def __init__(self, user, count: int) -> None:
        self.all = [Forgery(user) for _ in range(count)]
        for earlier, later in itertools.pairwise(self.all):
            later.sequence = earlier.sequence + 1
            later.balance_after = earlier.balance_after + 5

    def post(self) -> None:
        """Transactions, then the entries of all by one statement, then the balance."""
        for forgery in self.all:
            forgery.transaction()
        insert_together(
            *(forgery.facts_inside() for forgery in self.all),
            *(forgery.facts_outside() for forgery in self.all),
        )
        self.all[-1].balance()


class TestOneStatement:
    def test_given_entries_of_one_wallet_in_any_order_when_right_then_they_stand(self):
        alice = person("10.00")
        forgeries = Forgeries(alice, 3)
        with transaction.atomic():
            for forgery in forgeries.all:
                forgery.transaction()
            insides = [forgery.facts_inside() for forgery in reversed(forgeries.all)]
            insert_together(*insides, *(forgery.facts_outside() for forgery in forgeries.all))
            forgeries.all[-1].balance()
        assert breaches() == []
        assert LedgerSeal.objects.filter(wallet_id=alice.wallet.pk).count() == 4

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"currency": "EUR"}, "transactions_ledger_agrees_with_transaction"),
            ({"entry_type": "debit"}, "transactions_ledger_wallet_is_the_partys"),
            ({"sequence": 9}, "transactions_ledger_numbered_without_gaps"),
            ({"balance_after": "999.00"}, "transactions_ledger_running_balance"),
            ({"wallet": NIL}, "transactions_ledger_currency_is_the_wallets"),
            ({"id": NIL}, "transactions_ledger_books_are_closed"),
        ],
    )
    def test_given_one_wrong_entry_among_many_when_inserting_then_refused(self, change, rule):
        forgeries = Forgeries(person("10.00"), 3)
        with refused_by(rule), transaction.atomic():
            for forgery in forgeries.all:
                forgery.transaction()
            first, second, third = (forgery.facts_inside() for forgery in forgeries.all)
            insert_together(first, second, {**third, **change})
        assert breaches() == []

    def test_given_sealed_books_when_an_entry_joins_among_right_ones_then_refused(self):
        forgeries = Forgeries(person("10.00"), 2)
        sealed, other = forgeries.all
        with refused_by("transactions_ledger_books_are_closed"), transaction.atomic():
            sealed.transaction()
            insert_together(sealed.facts_inside(), sealed.facts_outside())
            sealed.balance()
            run(SEAL_NOW)
            run("SET CONSTRAINTS ALL DEFERRED")
            other.transaction()
            insert_together(other.facts_inside(), other.facts_outside(), {**sealed.facts_outside()})


class TestOneCommit:
    def test_given_many_right_ones_when_committing_then_each_seals_the_one_before(self):
        alice = person("10.00")
        with transaction.atomic():
            Forgeries(alice, 5).post()
        assert breaches() == []
        seals = LedgerSeal.objects.filter(wallet_id=alice.wallet.pk)
        assert len({bytes(seal.seal) for seal in seals}) == 6

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_given_one_without_its_other_side_when_committing_then_refused(self, place):
        forgeries = Forgeries(person("10.00"), 3)
        with refused_by("transactions_transaction_balances"), transaction.atomic():
            for forgery in forgeries.all:
                forgery.transaction()
            insert_together(*(forgery.facts_inside() for forgery in forgeries.all))
            wrong = forgeries.all[place]
            insert_together(*(each.facts_outside() for each in forgeries.all if each is not wrong))
            forgeries.all[-1].balance()
        assert breaches() == []

    def test_given_one_sealed_early_when_the_next_commits_then_the_chain_goes_on(self):
        alice = person("10.00")
        first, second = Forgeries(alice, 2).all
        with transaction.atomic():
            first.transaction()
            insert_together(first.facts_inside(), first.facts_outside())
            first.balance()
            run("SET CONSTRAINTS ALL IMMEDIATE")
            run("SET CONSTRAINTS ALL DEFERRED")
            second.transaction()
            insert_together(second.facts_inside(), second.facts_outside())
            second.balance()
        assert breaches() == []
        assert LedgerSeal.objects.filter(wallet_id=alice.wallet.pk).count() == 3

    def test_given_one_sealed_early_when_the_next_does_not_balance_then_refused(self):
        first, second = Forgeries(person("10.00"), 2).all
        with refused_by("transactions_transaction_balances"), transaction.atomic():
            first.transaction()
            insert_together(first.facts_inside(), first.facts_outside())
            first.balance()
            run("SET CONSTRAINTS ALL IMMEDIATE")
            run("SET CONSTRAINTS ALL DEFERRED")
            second.transaction()
            insert_together(second.facts_inside())
            second.balance()

    def test_given_a_part_rolled_back_when_the_rest_commits_then_it_alone_is_sealed(self):
        alice = person("10.00")
        lost, kept = Forgery(alice), Forgery(alice)
        with transaction.atomic():
            savepoint = transaction.savepoint()
            lost.transaction()
            insert_together(lost.facts_inside(), lost.facts_outside())
            transaction.savepoint_rollback(savepoint)
            kept.transaction()
            insert_together(kept.facts_inside(), kept.facts_outside())
            kept.balance()
        assert breaches() == []
        assert not Transaction.objects.filter(pk=lost.id).exists()

    def test_given_some_for_wallets_and_some_for_none_when_committing_then_all_are_sealed(self):
        alice = person("10.00")
        inside, outside = Forgery(alice), Forgery(alice)
        with transaction.atomic():
            outside.user = None
            outside.transaction()
            inside.transaction()
            insert_together(
                outside.facts_outside(),
                {**outside.facts_outside(), "account": "suspense", "entry_type": "credit"},
                inside.facts_inside(),
                inside.facts_outside(),
            )
            inside.balance()
        with connection.cursor() as cursor:
            cursor.execute("SELECT transaction_id FROM transactions_outsideseal")
            assert cursor.fetchall() == [(outside.id,)]
        assert LedgerSeal.objects.filter(wallet_id=alice.wallet.pk).count() == 2


class TestReferences:
    def test_given_a_party_that_does_not_exist_when_committing_then_refused(self):
        forgery = Forgery(person())
        with refused_by("transactions_ledger_wallet_is_the_partys"), transaction.atomic():
            forgery.user = uuid4()
            forgery.transaction()
            forgery.inside()

    def test_given_a_second_party_that_does_not_exist_when_committing_then_refused(self):
        """No entry names them, so nothing but the count of the parties does."""
        forgery = Forgery(person())
        with refused_by("transactions_transaction_moves_its_parties"), transaction.atomic():
            run(
                INSERT_TRANSACTION.replace("to_user_id", "to_user_id, from_user_id").replace(
                    "%(user)s", "%(user)s, gen_random_uuid()"
                ),
                id=forgery.id,
                amount=forgery.amount,
                user=forgery.user,
            )
            insert_together(forgery.facts_inside(), forgery.facts_outside())
            forgery.balance()

    @pytest.mark.parametrize("column", ["transaction_id", "wallet_id"])
    def test_given_an_entry_that_refers_to_nothing_when_verifying_then_it_is_named(
        self, column, owner
    ):
        alice, bob = person("10.00"), person()
        send(alice, bob, "4.00")
        entry = TransactionLedger.objects.filter(wallet=bob.wallet).get()
        tamper(
            owner,
            f"UPDATE transactions_transactionledger SET {column} = '{uuid4()}'"
            f" WHERE id = '{entry.pk}'",
        )
        found = [str(breach) for breach in breaches()]
        assert found
        tamper(
            owner,
            f"UPDATE transactions_transactionledger SET {column} = '{getattr(entry, column)}'"
            f" WHERE id = '{entry.pk}'",
        )
        assert breaches() == []

    @pytest.mark.parametrize("column", ["from_user_id", "to_user_id"])
    def test_given_a_party_that_is_nobody_when_verifying_then_it_is_named(self, column, owner):
        alice, bob = person("10.00"), person()
        send(alice, bob, "4.00")
        made = Transaction.objects.get(from_user=alice)
        tamper(
            owner,
            f"UPDATE transactions_transaction SET {column} = '{uuid4()}' WHERE id = '{made.pk}'",
        )
        assert any(str(made.pk) in str(breach) for breach in breaches())

    def test_given_a_person_with_a_wallet_when_deleting_them_then_refused(self, owner):
        """Who is named by a transaction has a wallet, and that keeps them."""
        alice = person("1.00")
        with pytest.raises(Exception, match="violates foreign key constraint"):
            owner.execute("DELETE FROM users_user WHERE id = %s", [str(alice.pk)])

    @pytest.mark.parametrize(
        "leg",
        [{"batch_id": uuid4(), "error_code": "self_transfer"}, {"transaction_id": uuid4()}],
    )
    def test_given_a_leg_that_refers_to_nothing_when_inserting_then_refused(self, leg):
        alice = person("10.00")
        batch = TransferBatch(
            user=alice,
            mode="independent",
            status="failed",
            count=1,
            succeeded=0,
            failed=1,
            total=0,
            currency="USD",
            created_at=timezone.now(),
        )
        with refused_by("transactions_transferbatchleg_fits"), transaction.atomic():
            batch.save(force_insert=True)
            TransferBatchLeg.objects.create(**{"batch_id": batch.pk, "index": 0, **leg})
