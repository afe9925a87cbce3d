"""What is checked in sets is checked to the last row; and what no foreign key asks any more."""

import itertools
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

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


INSERT_TRANSFER = """
INSERT INTO transactions_transaction
    (id, reference_id, type, status, amount, currency, fee, refunded_amount, from_user_id,
     to_user_id, description, metadata, created_at, completed_at)
VALUES (%(id)s, left(%(id)s::text, 32), 'transfer', 'completed', %(amount)s, 'USD', 0, 0,
        %(payer)s, %(payee)s, '', '{}', %(at)s, %(at)s)
"""


class TestOneOrder:
    """Two transfers that each come before the other: each brings what the other one needs."""

    @pytest.mark.parametrize("at", ["now", "2999-01-01T00:00:00Z"])
    @pytest.mark.parametrize("together", [True, False])
    def test_given_two_that_stand_on_each_other_when_inserting_then_refused(self, at, together):
        alice, bob = person("10.00"), person("10.00")
        first, second = uuid7(), uuid7()
        moment = timezone.now().isoformat() if at == "now" else at
        with refused_by("transactions_ledger_follows_one_order"), transaction.atomic():
            for made, payer, payee in [(first, alice, bob), (second, bob, alice)]:
                run(
                    INSERT_TRANSFER,
                    id=made,
                    amount="1000.00",
                    payer=payer.pk,
                    payee=payee.pk,
                    at=moment,
                )
            entries = [
                self._entry(second, alice, 2, "credit", "1010.00"),
                self._entry(first, alice, 3, "debit", "10.00"),
                self._entry(first, bob, 2, "credit", "1010.00"),
                self._entry(second, bob, 3, "debit", "10.00"),
            ]
            for some in [entries] if together else [[entry] for entry in entries]:
                self._insert(moment, *some)
        assert breaches() == []

    @staticmethod
    def _entry(made, owner, sequence, entry_type, balance_after):
        return {
            "id": made,
            "account": "wallet",
            "wallet": owner.wallet.pk,
            "sequence": sequence,
            "entry_type": entry_type,
            "amount": "1000.00",
            "currency": "USD",
            "balance_after": balance_after,
        }

    @staticmethod
    def _insert(moment, *entries):
        insert, values = INSERT_ENTRY.split("VALUES")
        with connection.cursor() as cursor:
            rows = [
                cursor.mogrify(values.replace("now()", f"'{moment}'"), entry).decode()
                for entry in entries
            ]
            cursor.execute(f"{insert} VALUES {', '.join(rows)}")

    def test_given_many_ids_when_made_one_after_the_other_then_they_rise(self):
        made = [uuid7() for _ in range(10_000)]
        assert made == sorted(made)


class TestOtherCluster:
    def test_given_old_transactions_with_numbers_to_come_when_sending_then_nobody_minds(
        self, owner
    ):
        """After a restore: PostgreSQL counts its transactions anew, and meets the old numbers."""
        alice, bob = person("100.00"), person()
        for _ in range(12):
            send(alice, bob, "1.00")
        old = "- interval '1 day'"
        tamper(
            owner,
            "UPDATE transactions_transaction made SET posted_in ="
            " ((pg_current_xact_id()::text::bigint + 1 + place)::text)::xid8"
            " FROM (SELECT id, row_number() OVER () AS place FROM transactions_transaction) old"
            " WHERE old.id = made.id",
            f"UPDATE transactions_transaction SET created_at = created_at {old},"
            f" completed_at = completed_at {old}",
            f"UPDATE transactions_transactionledger SET created_at = created_at {old}",
            f"UPDATE wallet_wallet SET last_entry_at = last_entry_at {old}",
        )
        for _ in range(6):
            assert send(alice, bob, "1.00").status == 201


class TestOutside:
    def test_given_many_for_no_wallet_when_committing_then_one_chain_seals_them(self):
        alice = person()
        made = [Forgery(alice) for _ in range(20)]
        with transaction.atomic():
            for each in made:
                each.user = None
                each.transaction()
                insert_together(
                    each.facts_outside(),
                    {**each.facts_outside(), "account": "suspense", "entry_type": "credit"},
                )
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT sequence, transaction_id, seal FROM transactions_outsideseal ORDER BY 1"
            )
            sealed = cursor.fetchall()
        assert [row[:2] for row in sealed] == list(enumerate((each.id for each in made), 1))
        assert len({bytes(row[2]) for row in sealed}) == 20
