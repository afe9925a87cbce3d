"""Every entry is sealed when it commits: by PostgreSQL, and by nobody else."""

import hashlib
import importlib
from pathlib import Path

import pytest
from django.conf import settings
from django.db import DatabaseError, transaction

from fintech_core.database import query
from transactions.models import LedgerSeal, OutsideSeal, Transaction, TransactionLedger
from transactions.seals import seal_of
from transactions.standalone import verify_export
from transactions.tests.helpers import at_once, breaches, fund, person, refused_by, send
from transactions.tests.proofs import outside, tamper
from transactions.tests.test_ledger_rules import INSERT_TRANSACTION, Forgery, run

pytestmark = pytest.mark.django_db(transaction=True)

DOCUMENT = Path(settings.BASE_DIR) / "docs" / "ledger-proof.md"
migration = importlib.import_module("transactions.migrations.0004_seals")

# Not in the digest, because they may still change, or (posted_in) mean nothing elsewhere.
UNSEALED = {"status", "refunded_amount", "completed_at", "posted_in"}

BEFORE_THE_FIRST = bytes(32)

SEAL_NOW = "SET CONSTRAINTS transactions_transaction_seal IMMEDIATE"


def netstrings(*values):
    """The encoding as the document says it, in other words than the code."""
    parts = []
    for value in values:
        text = None if value is None else str(value).encode()
        parts.append(b"-" if text is None else str(len(text)).encode() + b":" + text + b",")
    return b"".join(parts)


def moment(value):
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def expected_digest(made):
    entries = sorted(made.entries.all(), key=lambda entry: entry.pk)
    [[metadata]] = query(
        "SELECT metadata::text FROM transactions_transaction WHERE id = %(id)s", id=made.pk
    )
    text = netstrings(
        "fintech-core/transaction/1",
        made.pk,
        made.reference_id,
        made.type,
        made.amount,
        made.currency,
        made.fee,
        made.from_user_id,
        made.to_user_id,
        made.parent_id,
        made.description,
        metadata,
        made.effect_key,
        moment(made.created_at),
        len(entries),
    )
    for entry in entries:
        text += netstrings(
            entry.pk,
            entry.account,
            entry.wallet_id,
            entry.sequence,
            entry.entry_type,
            entry.amount,
            entry.currency,
            entry.balance_after,
            moment(entry.created_at),
        )
    return hashlib.sha256(text).digest()


def digest(made):
    [[found]] = query("SELECT transactions_digest(%(id)s)", id=made.pk)
    return bytes(found)


def columns(model):
    rows = query(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %(table)s",
        table=model._meta.db_table,
    )
    return {row[0] for row in rows}


def seals(user):
    rows = LedgerSeal.objects.filter(wallet__user=user).order_by("sequence")
    return [bytes(row.seal) for row in rows]


# The example of docs/ledger-proof.md: whoever writes a verifier can try it on this.
EXAMPLE = """
INSERT INTO transactions_transaction
    (id, reference_id, type, status, amount, currency, fee, refunded_amount, from_user_id,
     to_user_id, description, metadata, created_at, completed_at, posted_in)
VALUES ('01930000-0000-7000-8000-000000000001', 'TX-EXAMPLE', 'transfer', 'completed', 12.5, 'EUR',
        0, 0, '01930000-0000-7000-8000-00000000000a', '01930000-0000-7000-8000-00000000000b',
        'Café', '{"table": "7"}', '2026-11-22T13:00:00.5Z', '2026-11-22T13:00:00.5Z', '3');
INSERT INTO transactions_transactionledger
    (id, transaction_id, account, wallet_id, sequence, entry_type, amount, currency,
     balance_after, created_at)
VALUES ('01930000-0000-7000-8000-000000000002', '01930000-0000-7000-8000-000000000001', 'wallet',
        '01930000-0000-7000-8000-0000000000aa', 2, 'debit', 12.5, 'EUR', 87.5,
        '2026-11-22T13:00:00.5Z'),
       ('01930000-0000-7000-8000-000000000003', '01930000-0000-7000-8000-000000000001', 'fees',
        NULL, NULL, 'credit', 12.5, 'EUR', NULL, '2026-11-22T13:00:00.5Z');
"""
EXAMPLE_DIGEST = "f358ef180aae25f6071a21cb01a3090a3993f844a7431829e82eecc195c54660"


class TestDigest:
    def test_given_any_text_when_hashing_then_postgresql_and_python_agree(self, owner):
        alice, bob = person("100.00"), person()
        send(alice, bob, "40.00")
        tamper(
            owner,
            "UPDATE transactions_transaction SET description = E'3:é,-\\n✓ 12:', fee = 0.01,"
            """ metadata = '{"b": "1,\\"-", "ü": "", "aa": "x"}', parent_id = gen_random_uuid()""",
        )
        made = Transaction.objects.prefetch_related("entries")
        assert made.count() == 2
        for one in made:
            assert digest(one) == expected_digest(one)

    def test_given_the_example_of_the_document_when_hashing_then_it_is_what_it_says(self, owner):
        tamper(owner, EXAMPLE)
        made = Transaction.objects.get()
        assert digest(made).hex() == EXAMPLE_DIGEST
        assert EXAMPLE_DIGEST in DOCUMENT.read_text()

    def test_given_the_tables_when_a_column_joins_them_then_somebody_must_decide(self):
        """A column outside the digest could be changed unseen."""
        assert columns(Transaction) == {*verify_export.TRANSACTION_FIELDS, *UNSEALED}
        # An entry's transaction is the one in whose digest it is.
        assert columns(TransactionLedger) == {*verify_export.ENTRY_FIELDS, "transaction_id"}


class TestChain:
    def test_given_movements_when_they_commit_then_each_seals_the_one_before_it(self):
        alice, bob = person("100.00"), person()
        send(alice, bob, "40.00")
        fund(alice, "1.00")
        previous = BEFORE_THE_FIRST
        for entry, seal in zip(
            TransactionLedger.objects.filter(wallet=alice.wallet).order_by("sequence"),
            seals(alice),
            strict=True,
        ):
            previous = hashlib.sha256(previous + digest(entry.transaction)).digest()
            assert seal == previous
        assert len(seals(alice)) == 3
        assert len(seals(bob)) == 1
        assert seal_of(alice.wallet.pk, 3) == previous
        assert seal_of(alice.wallet.pk, 0) == b""
        assert seal_of(alice.wallet.pk, 4) == b""

    def test_given_several_movements_at_once_when_they_commit_then_all_are_sealed(self):
        alice, bob = person("100.00"), person()
        with transaction.atomic():
            send(alice, bob, "1.00")
            send(bob, alice, "0.50")
            fund(alice, "2.00")
        assert len(seals(alice)) == 4
        assert breaches() == []

    def test_given_a_movement_when_it_is_rolled_back_then_its_seal_is_too(self):
        alice = person("100.00")
        with transaction.atomic():
            fund(alice, "1.00")
            transaction.set_rollback(True)
        assert len(seals(alice)) == 1

    def test_given_many_at_once_when_they_commit_then_no_chain_is_broken(self):
        people = [person("100.00") for _ in range(4)]
        jobs = [
            lambda a=a, b=b: send(people[a], people[b], "1.00")
            for a in range(4)
            for b in range(4)
            if a != b
        ]
        at_once(*jobs)
        assert sum(len(seals(user)) for user in people) == 4 + 2 * len(jobs)
        assert breaches() == []

    def test_given_a_missing_seal_when_the_next_movement_commits_then_refused(self, owner):
        alice = person("100.00")
        tamper(owner, "DELETE FROM transactions_ledgerseal")
        with refused_by("transactions_ledgerseal_continues_the_chain"):
            fund(alice, "1.00")


class TestOutsideAllWallets:
    def test_given_no_wallet_when_it_commits_then_it_joins_a_chain_of_its_own(self):
        first, second = outside("5.00"), outside("7.00")
        one, two = OutsideSeal.objects.order_by("sequence")
        assert (one.transaction_id, two.transaction_id) == (first.pk, second.pk)
        sealed = hashlib.sha256(BEFORE_THE_FIRST + digest(first)).digest()
        assert bytes(one.seal) == sealed
        assert bytes(two.seal) == hashlib.sha256(sealed + digest(second)).digest()
        assert LedgerSeal.objects.count() == 0

    def test_given_many_at_once_when_they_commit_then_they_wait_for_each_other(self):
        at_once(*[lambda: outside("1.00")] * 6)
        numbers = OutsideSeal.objects.order_by("sequence").values_list("sequence", flat=True)
        assert list(numbers) == [1, 2, 3, 4, 5, 6]
        assert breaches() == []


class Suspended(Forgery):
    """Between system accounts: it names nobody, so it is whole without a wallet."""

    def transaction(self) -> None:
        run(INSERT_TRANSACTION, id=self.id, amount=self.amount, user=None)


class TestNobodyElseWritesThem:
    @pytest.mark.parametrize("table", ["ledgerseal", "outsideseal"])
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE transactions_{} SET seal = sha256('')",
            "DELETE FROM transactions_{}",
            "TRUNCATE transactions_{}",
            "INSERT INTO transactions_{} SELECT * FROM transactions_{}",
        ],
    )
    def test_given_the_serving_role_when_it_tries_then_it_has_no_right(self, table, statement):
        with pytest.raises(DatabaseError, match="permission denied"):
            run(statement.format(table, table))

    @pytest.mark.parametrize("table", ["ledgerseal", "outsideseal"])
    @pytest.mark.parametrize(
        "statement",
        ["UPDATE transactions_{} SET seal = sha256('')", "DELETE FROM transactions_{}"],
    )
    def test_given_the_owner_when_it_changes_one_then_a_trigger_refuses(
        self, owner, table, statement
    ):
        person("10.00")
        outside("1.00")
        with pytest.raises(Exception, match="is history") as refusal:
            owner.execute(statement.format(table))
        assert refusal.value.diag.constraint_name == f"transactions_{table}_is_append_only"
        with pytest.raises(Exception, match="is history"):
            owner.execute(f"TRUNCATE transactions_{table}")

    def test_given_the_sealing_function_when_the_serving_role_borrows_it_then_refused(self):
        """It runs with the owner's rights, so it must run for its own trigger alone."""
        run("CREATE TEMPORARY TABLE mine (id uuid)")
        try:
            with pytest.raises(DatabaseError, match="permission denied"):
                run(
                    "CREATE TRIGGER forge AFTER INSERT ON mine FOR EACH ROW "
                    "EXECUTE FUNCTION transactions_transaction_seal()"
                )
        finally:
            run("DROP TABLE mine")

    def test_given_sealed_books_when_an_outside_entry_joins_them_then_refused(self):
        """SET CONSTRAINTS lets anybody seal early; what comes after must not slip in unsealed."""
        forgery = Forgery(person("10.00"))
        with refused_by("transactions_ledger_books_are_closed"), transaction.atomic():
            forgery.transaction()
            forgery.outside()
            forgery.inside()
            forgery.balance()
            run(SEAL_NOW)
            forgery.outside()

    def test_given_sealed_books_outside_when_an_outside_entry_joins_them_then_refused(self):
        forgery = Suspended(person("10.00"))
        with refused_by("transactions_ledger_books_are_closed"), transaction.atomic():
            forgery.transaction()
            forgery.outside()
            forgery.outside(account="suspense", entry_type="credit")
            run(SEAL_NOW)
            forgery.outside(account="fees", entry_type="credit")

    def test_given_sealed_books_when_a_wallets_entry_joins_them_then_refused(self):
        forgery = Suspended(person("10.00"))
        with refused_by("transactions_ledger_books_are_closed"), transaction.atomic():
            forgery.transaction()
            forgery.outside()
            forgery.outside(account="suspense", entry_type="credit")
            run(SEAL_NOW)
            forgery.inside()
            forgery.balance()

    def test_given_books_that_do_not_balance_when_sealing_them_early_then_refused(self):
        forgery = Forgery(person("10.00"))
        with refused_by("transactions_transaction_balances"), transaction.atomic():
            forgery.transaction()
            forgery.outside()
            run(SEAL_NOW)

    def test_given_a_wallet_that_does_not_agree_when_sealing_early_then_refused(self):
        forgery = Forgery(person("10.00"))
        with refused_by("wallet_wallet_balance_is_its_ledgers"), transaction.atomic():
            forgery.transaction()
            forgery.outside()
            forgery.inside()
            run(SEAL_NOW)

    def test_given_whole_books_when_sealing_them_early_then_they_stand(self):
        forgery = Forgery(person("10.00"))
        with transaction.atomic():
            forgery.transaction()
            forgery.outside()
            forgery.inside()
            forgery.balance()
            run("SET CONSTRAINTS ALL IMMEDIATE")
        assert breaches() == []


class TestUpgrade:
    def test_given_a_ledger_without_seals_when_migrating_then_it_gets_the_same_ones(self, owner):
        alice, bob = person("100.00"), person()
        send(alice, bob, "40.00")
        send(bob, alice, "10.00")
        outside("3.00")
        outside("4.00")
        before = seals(alice), seals(bob), list(OutsideSeal.objects.values_list())
        tamper(owner, "DELETE FROM transactions_ledgerseal", "DELETE FROM transactions_outsideseal")
        owner.execute(migration.SEAL_WHAT_IS_THERE)
        assert (seals(alice), seals(bob)) == before[:2]
        after = OutsideSeal.objects.values_list()
        assert [bytes(row[-1]) for row in after] == [bytes(row[-1]) for row in before[2]]
        assert breaches() == []

    def test_given_a_gap_when_migrating_then_it_refuses_to_seal_it(self, owner):
        alice = person("100.00")
        fund(alice, "1.00")
        tamper(
            owner,
            "DELETE FROM transactions_ledgerseal",
            "DELETE FROM transactions_transactionledger WHERE sequence = 1",
        )
        with pytest.raises(Exception, match="entry 1 is missing"):
            owner.execute(migration.SEAL_WHAT_IS_THERE)
