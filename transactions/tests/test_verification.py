"""`verify_ledger` takes the ledger to pieces and misses nothing at the seams."""

from contextlib import contextmanager
from uuid import uuid4

import pytest

from transactions.models import TransactionLedger
from transactions.tests.helpers import at_once, breaches, fund, person, send
from transactions.tests.proofs import outside, tamper
from transactions.verification import books, verify
from wallet.models import Wallet

pytestmark = pytest.mark.django_db(transaction=True)

ENTRY = "transactions_transactionledger"


def story():
    """Eight transactions of three people, and one outside all wallets; Alice."""
    alice, bob, carol = person("100.00"), person("20.00"), person()
    send(alice, bob, "40.00")
    send(bob, carol, "10.00")
    send(alice, carol, "5.00")
    outside("3.00")
    send(carol, alice, "1.00")
    fund(alice, "2.00")
    return alice


@pytest.fixture(params=[1, 2, 3, 5, 20_000])
def chunk(request, monkeypatch):
    monkeypatch.setattr(books, "CHUNK", request.param)


@pytest.fixture(params=["in the order of time", "in no order"])
def ids(request, monkeypatch):
    """Wallets' entries lie in unbroken runs, or scattered over the chunks."""
    if request.param == "in no order":
        monkeypatch.setattr("transactions.posting.uuid7", uuid4)


@pytest.mark.usefixtures("chunk", "ids")
class TestChunks:
    def test_given_sound_books_when_verifying_then_nothing_is_found_and_all_is_read(self):
        story()
        steps = list(verify())
        assert [breach for step in steps for breach in step.breaches] == []
        others = Wallet.objects.count() + 1  # and the chain outside all wallets
        assert sum(step.rows for step in steps) == TransactionLedger.objects.count() + others

    @pytest.mark.parametrize("sequence", [1, 2, 3, 4, 5])
    def test_given_a_changed_balance_when_verifying_then_it_and_the_next_are_named(
        self, owner, sequence
    ):
        wallet = story().wallet.pk
        tamper(
            owner,
            f"UPDATE {ENTRY} SET balance_after = balance_after + 1"
            f" WHERE wallet_id = '{wallet}' AND sequence = {sequence}",
        )
        named = {(breach.invariant, breach.subject) for breach in breaches()}
        assert (3, f"wallet {wallet}, entry {sequence}") in named
        assert (7, f"wallet {wallet}, entry {sequence}") in named
        last = sequence == 5
        assert (
            3,
            f"wallet {wallet}" if last else f"wallet {wallet}, entry {sequence + 1}",
        ) in named

    @pytest.mark.parametrize("sequence", [1, 2, 3, 4])
    def test_given_a_missing_entry_when_verifying_then_the_next_one_tells(self, owner, sequence):
        wallet = story().wallet.pk
        tamper(owner, f"DELETE FROM {ENTRY} WHERE wallet_id = '{wallet}' AND sequence = {sequence}")
        found = [str(breach) for breach in breaches()]
        assert (
            f"invariant 3: wallet {wallet}, entry {sequence + 1}: there is no entry {sequence}:"
            " entries are missing"
        ) in found

    @pytest.mark.parametrize("sequence", [1, 2, 3, 4, 5])
    def test_given_a_changed_seal_when_verifying_then_it_and_the_next_are_named(
        self, owner, sequence
    ):
        wallet = story().wallet.pk
        tamper(
            owner,
            "UPDATE transactions_ledgerseal SET seal = sha256(seal)"
            f" WHERE wallet_id = '{wallet}' AND sequence = {sequence}",
        )
        assert {(breach.invariant, breach.subject) for breach in breaches()} == {
            (7, f"wallet {wallet}, entry {number}")
            for number in (sequence, sequence + 1)
            if number <= 5
        }

    def test_given_entries_of_no_transaction_when_verifying_then_they_are_named(self, owner):
        story()
        tamper(owner, "DELETE FROM transactions_transaction")
        gone = {
            f"invariant 2: entry {entry.pk}: its transaction is gone"
            for entry in TransactionLedger.objects.all()
        }
        assert gone <= {str(breach) for breach in breaches()}


@contextmanager
def without(owner, *constraints):
    """Until the end of the block these are not there; the entries do not survive it."""
    owner.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = ANY(%s)",
        [list(constraints)],
    )
    found = owner.fetchall()
    assert len(found) == len(constraints)
    for name, _definition in found:
        owner.execute(f"ALTER TABLE {ENTRY} DROP CONSTRAINT {name}")
    try:
        yield
    finally:
        tamper(owner, f"DELETE FROM {ENTRY}")
        for name, definition in found:
            owner.execute(f"ALTER TABLE {ENTRY} ADD CONSTRAINT {name} {definition}")


@contextmanager
def seals_without_key(owner):
    owner.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'transactions_ledgerseal'::regclass AND contype IN ('p', 'u')"
    )
    found = owner.fetchall()
    assert found
    for name, _definition in found:
        owner.execute(f"ALTER TABLE transactions_ledgerseal DROP CONSTRAINT {name}")
    try:
        yield
    finally:
        tamper(owner, "DELETE FROM transactions_ledgerseal")
        for name, definition in found:
            owner.execute(f"ALTER TABLE transactions_ledgerseal ADD CONSTRAINT {name} {definition}")


class TestWithoutConstraints:
    def test_given_a_number_given_twice_when_verifying_then_it_is_named(self, owner):
        wallet = story().wallet.pk
        with without(owner, "transactions_ledger_one_number_per_wallet"):
            tamper(
                owner,
                f"UPDATE {ENTRY} SET sequence = 3 WHERE wallet_id = '{wallet}' AND sequence = 4",
            )
            named = [str(breach) for breach in breaches()]
        assert f"invariant 3: wallet {wallet}, entry 3: its number was given twice" in named

    def test_given_a_number_given_twice_when_verifying_then_the_next_must_follow_from_both(
        self, owner
    ):
        wallet = story().wallet.pk
        with without(owner, "transactions_ledger_one_number_per_wallet"):
            for sequence in (4, 5):
                tamper(
                    owner,
                    f"UPDATE {ENTRY} SET sequence = {sequence - 1},"
                    f" balance_after = balance_after + {sequence - 4}"
                    f" WHERE wallet_id = '{wallet}' AND sequence = {sequence}",
                )
            named = [str(breach) for breach in breaches()]
        expected = f"invariant 3: wallet {wallet}, entry 4: balance 59.00 does not follow from"
        assert {line for line in named if line.startswith(expected)} == {
            f"{expected} 55.00",
            f"{expected} 56.00",
        }

    def test_given_a_number_sealed_twice_when_verifying_then_it_is_named(self, owner):
        wallet = story().wallet.pk
        with seals_without_key(owner):
            tamper(
                owner,
                "INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)"
                " SELECT wallet_id, sequence, sha256(seal) FROM transactions_ledgerseal"
                f" WHERE wallet_id = '{wallet}' AND sequence = 2",
            )
            named = [str(breach) for breach in breaches()]
        assert f"invariant 7: wallet {wallet}, entry 2: its number was sealed twice" in named

    def test_given_a_chain_that_leaves_a_seal_out_when_verifying_then_it_does_not_fit(self, owner):
        wallet = story().wallet.pk
        third = TransactionLedger.objects.get(wallet=wallet, sequence=3)
        tamper(
            owner,
            "UPDATE transactions_ledgerseal SET seal = sha256((SELECT seal FROM"
            f" transactions_ledgerseal WHERE wallet_id = '{wallet}' AND sequence = 1)"
            f" || transactions_digest('{third.transaction_id}'))"
            f" WHERE wallet_id = '{wallet}' AND sequence = 3",
            f"DELETE FROM transactions_ledgerseal WHERE wallet_id = '{wallet}' AND sequence = 2",
        )
        named = [str(breach) for breach in breaches()]
        assert f"invariant 7: wallet {wallet}, entry 2: has no seal" in named
        unfit = f"invariant 7: wallet {wallet}, entry 3: its seal does not fit"
        assert any(line.startswith(unfit) for line in named)

    def test_given_numbers_outside_all_wallets_when_verifying_then_they_are_no_history(self, owner):
        story()
        first, second = TransactionLedger.objects.filter(account="gateway_clearing")[:2]
        with without(owner, "transactions_ledger_wallet_entries_are_numbered"):
            tamper(
                owner,
                f"UPDATE {ENTRY} SET sequence = 1 WHERE id = '{first.pk}'",
                f"UPDATE {ENTRY} SET sequence = 2 WHERE id = '{second.pk}'",
            )
            named = [str(breach) for breach in breaches()]
        missing = "there is no entry 1: entries are missing"
        assert f"invariant 3: entry {second.pk}: {missing}" in named

    @pytest.mark.parametrize("sequence", ["NULL", "0", "-9223372036854775808"])
    def test_given_no_number_when_verifying_then_it_is_named(self, owner, sequence):
        wallet = story().wallet.pk
        with without(owner, "transactions_ledger_wallet_entries_are_numbered"):
            tamper(
                owner,
                f"UPDATE {ENTRY} SET sequence = {sequence}"
                f" WHERE wallet_id = '{wallet}' AND sequence = 4",
            )
            named = [str(breach) for breach in breaches()]
        assert any(line.endswith("has no proper number") for line in named)

    def test_given_no_balance_when_verifying_then_it_is_named(self, owner):
        wallet = story().wallet.pk
        with without(owner, "transactions_ledger_wallet_entries_are_numbered"):
            tamper(
                owner,
                f"UPDATE {ENTRY} SET balance_after = NULL"
                f" WHERE wallet_id = '{wallet}' AND sequence = 4",
            )
            named = [str(breach) for breach in breaches()]
        expected = f"invariant 3: wallet {wallet}, entry 4: balance  does not follow from 56.00"
        assert any(line.startswith(expected[:50]) for line in named)


@pytest.mark.usefixtures("chunk")
def test_given_money_that_moves_meanwhile_when_verifying_then_one_moment_is_seen():
    alice = story()
    bob = person()
    steps = verify()
    seen = [next(steps), next(steps)]
    assert [answer.status for answer in at_once(lambda: send(alice, bob, "1.00"))] == [201]
    seen += steps
    assert [breach for step in seen for breach in step.breaches] == []
    assert breaches() == []
