"""Checkpoints by hand, as the serving role: what does not extend the last one is refused."""

import re
from datetime import timedelta
from uuid import uuid4

import psycopg2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.core.management import call_command
from django.db import transaction

from fintech_core.database import database_time
from transactions import checkpoints, merkle, signing, stored_tree
from transactions.checkpoints import CheckpointRefused
from transactions.models import CheckpointLeaf, LedgerCheckpoint
from transactions.tests.helpers import breaches, client_of, fund, person, refused_by
from transactions.tests.proofs import checkpoint, outside, tamper
from transactions.tests.test_ledger_rules import INSERT_TRANSACTION, NIL, run
from users.tests.helpers import refusal

pytestmark = pytest.mark.django_db(transaction=True)

INSERT_LEAF = """
INSERT INTO transactions_checkpointleaf (wallet_id, entry_count, number, seal)
VALUES (%(wallet)s, %(count)s, %(number)s,
        coalesce(%(seal)s, (SELECT seal FROM transactions_ledgerseal
                             WHERE wallet_id = %(wallet)s AND sequence = %(count)s),
                 sha256('')))
"""
# The last one again, but for its number.
INSERT_CHECKPOINT = """
INSERT INTO transactions_ledgercheckpoint
SELECT (jsonb_populate_record(last, jsonb_build_object('number', %(number)s))).*
  FROM transactions_ledgercheckpoint last
"""


def leaf(wallet, count, *, number=2, seal=None):
    run(INSERT_LEAF, wallet=wallet, count=count, number=number, seal=seal)


@pytest.fixture
def alice():
    """Two of her three entries are signed, one is not."""
    alice = person("100.00")
    fund(alice, "1.00")
    outside("1.00")
    checkpoint()
    fund(alice, "2.00")
    return alice


def goes_on():
    """Nothing was left behind, and the next checkpoint is what it would have been."""
    made = checkpoint()
    assert (made.number, made.entry_count) == (2, 3)
    assert breaches() == []
    return True


class TestLeaves:
    @pytest.mark.parametrize(
        "stray",
        [
            {"count": 3, "number": 1},
            {"count": 3, "number": 3},
            {"count": 3, "number": 1_000_000},
            {"count": 3, "seal": b"\x00" * 32},
            {"count": 1},
            {"count": 4},
            {"count": 1_000_000_000},
            {"count": 2, "wallet": NIL},
            {"count": 1, "wallet": "01990000-0000-7000-8000-000000000001"},
        ],
    )
    def test_given_a_leaf_that_is_not_next_when_adding_it_then_refused(self, alice, stray):
        with refused_by("transactions_checkpointleaf_fits"):
            leaf(**{"wallet": alice.wallet.pk, **stray})
        assert goes_on()

    def test_given_the_next_leaf_when_no_checkpoint_signs_it_then_refused_at_commit(self, alice):
        with refused_by("transactions_checkpointleaf_is_signed"):
            leaf(alice.wallet.pk, 3)
        assert goes_on()

    def test_given_two_leaves_of_one_wallet_when_adding_them_at_once_then_refused(self, alice):
        fund(alice, "3.00")
        with refused_by("transactions_checkpointleaf_fits"), transaction.atomic():
            leaf(alice.wallet.pk, 3)
            leaf(alice.wallet.pk, 4)
        assert CheckpointLeaf.objects.filter(wallet_id=alice.wallet.pk).count() == 1

    def test_given_a_wallet_that_was_cut_when_taking_the_next_then_refused(self, alice, owner):
        checkpoint()
        fund(alice, "3.00")
        tamper(owner, f"UPDATE wallet_wallet SET entry_count = 1 WHERE id = '{alice.wallet.pk}'")
        with pytest.raises(CheckpointRefused, match="fewer entries"):
            checkpoints.take()


class TestTree:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE transactions_checkpointnode SET hash = sha256('') WHERE depth = 3",
            "INSERT INTO transactions_checkpointnode VALUES (17, 1, 1, sha256(''))",
        ],
    )
    def test_given_no_new_leaf_when_changing_the_tree_then_refused(self, alice, statement):
        with refused_by("transactions_checkpointnode_fits"):
            run(statement)
        assert goes_on()


class TestCheckpoints:
    @pytest.mark.parametrize("number", [2, 3, 999])
    def test_given_a_copy_under_another_number_when_adding_it_then_refused(self, alice, number):
        with refused_by("transactions_ledgercheckpoint_fits"):
            run(INSERT_CHECKPOINT, number=number)
        page = client_of(alice).get("/api/v1/transactions/checkpoints/").json()
        assert [item["number"] for item in page["results"]] == [1]
        assert goes_on()

    def test_given_another_hash_of_the_last_when_taking_the_next_then_refused(
        self, alice, monkeypatch
    ):
        monkeypatch.setattr(checkpoints, "hash_of", lambda previous: bytes(32))
        self.refused()

    def test_given_another_payload_when_taking_the_next_then_refused(self, alice, monkeypatch):
        payload = checkpoints._payload

        def more(made):
            return payload(made).replace('"entry_count":3', '"entry_count":30')

        monkeypatch.setattr(checkpoints, "_payload", more)
        monkeypatch.setattr(checkpoints, "is_genuine", lambda made: True)
        self.refused()

    def test_given_another_root_when_taking_the_next_then_refused(self, alice, monkeypatch):
        grow = stored_tree.grow

        def other(number, signed_root):
            return merkle.Node(grow(number, signed_root=signed_root).leaf_count, bytes(32))

        monkeypatch.setattr(stored_tree, "grow", other)
        self.refused()

    def refused(self):
        with refused_by("transactions_ledgercheckpoint_fits"):
            checkpoints.take()
        assert LedgerCheckpoint.objects.count() == 1
        assert not CheckpointLeaf.objects.filter(number=2).exists()
        assert breaches() == []


class TestWayBack:
    """A checkpoint by hand that has everything but the right signature stops all later ones."""

    @pytest.fixture
    def forged(self, alice, monkeypatch):
        with monkeypatch.context() as patched:
            stranger = Ed25519PrivateKey.generate()
            patched.setattr(signing, "signing_key", lambda: stranger)
            checkpoint()
        fund(alice, "3.00")
        with pytest.raises(CheckpointRefused, match="not in LEDGER_SIGNING_KEY"):
            checkpoints.take()

    def test_given_a_forged_one_when_the_owner_removes_it_then_they_go_on(
        self, forged, alice, owner, capsys
    ):
        document = (settings.BASE_DIR / "docs" / "ledger-proof.md").read_text()
        [steps] = re.findall(r"```sql\n(.+?)```", document, re.DOTALL)
        owner.execute(steps.replace(":number", "2"))
        with pytest.raises(CheckpointRefused, match="leaves of the last checkpoint were changed"):
            checkpoints.take()
        call_command("checkpoint_ledger", "--rebuild-tree")
        assert "Checkpoint 2: 4 entries of 1 wallets" in capsys.readouterr().out
        assert breaches() == []
        assert client_of(alice).get("/api/v1/wallets/me/proof/").status_code == 200

    def test_given_changed_leaves_when_rebuilding_then_refused(self, alice, owner):
        tamper(
            owner,
            "DELETE FROM transactions_checkpointnode",
            f"UPDATE transactions_checkpointleaf SET seal = sha256('') WHERE wallet_id = '{NIL}'",
        )
        with pytest.raises(CheckpointRefused, match="do not lead to the root"):
            checkpoints.take(rebuild_tree=True)


class TestProof:
    def test_given_a_tree_that_proves_nothing_when_asking_for_a_proof_then_503(self, alice, owner):
        tamper(owner, "UPDATE transactions_checkpointnode SET hash = sha256('')")
        response = client_of(alice).get("/api/v1/wallets/me/proof/")
        assert refusal(response) == (503, "service_unavailable")


class TestRetiredKeys:
    """Rotated away, perhaps because it was stolen: it still proves the past, and signs no more."""

    NEW = b"a new key of 32 bytes, as it is!"

    def by_the_old_key_again(self, settings, monkeypatch):
        """Checkpoint 1 by the old key, 2 by the new one, and 3 by the old one."""
        alice, [old] = person("100.00"), settings.LEDGER_SIGNING_KEYS
        first = checkpoint()
        settings.LEDGER_SIGNING_KEYS = [self.NEW, old]
        fund(alice, "1.00")
        assert checkpoint().key_id != first.key_id
        settings.LEDGER_SIGNING_KEYS = [old, self.NEW]
        fund(alice, "2.00")
        with monkeypatch.context() as patched:
            patched.setattr(checkpoints, "_require_not_retired", lambda previous: None)
            assert checkpoint().key_id == first.key_id
        settings.LEDGER_SIGNING_KEYS = [self.NEW, old]
        fund(alice, "3.00")

    def test_given_the_old_key_in_front_again_when_taking_then_refused(self, settings):
        alice, [old] = person("100.00"), settings.LEDGER_SIGNING_KEYS
        checkpoint()
        settings.LEDGER_SIGNING_KEYS = [self.NEW, old]
        fund(alice, "1.00")
        checkpoint()
        settings.LEDGER_SIGNING_KEYS = [old, self.NEW]
        fund(alice, "1.00")
        with pytest.raises(CheckpointRefused, match="had followed already"):
            checkpoints.take()

    def test_given_one_that_signed_again_when_taking_the_next_then_refused(
        self, settings, monkeypatch
    ):
        self.by_the_old_key_again(settings, monkeypatch)
        with pytest.raises(CheckpointRefused, match="had followed already"):
            checkpoints.take()

    def test_given_one_that_signed_again_when_verifying_then_it_is_named(
        self, settings, monkeypatch
    ):
        self.by_the_old_key_again(settings, monkeypatch)
        [breach] = breaches()
        assert str(breach).startswith("invariant 7: checkpoint 3: is signed by key")
        assert str(breach).endswith("which another one had followed")

    def test_given_keys_that_follow_each_other_when_verifying_then_it_is_sound(self, settings):
        alice = person("100.00")
        checkpoint()
        for number in range(2):
            settings.LEDGER_SIGNING_KEYS = [bytes([number]) * 32, *settings.LEDGER_SIGNING_KEYS]
            fund(alice, "1.00")
            assert bytes(checkpoint().public_key) == signing.public_key()
        assert breaches() == []


class TestOutOfSight:
    """A wallet that the horizon overlooks: nothing else would tell that its tail is not signed."""

    @pytest.fixture
    def hidden(self, owner, monkeypatch):
        """Bob's second entry, two hours older than the checkpoint that overlooks it.

        So is his first: any session of the server, of another test's even, may hold the horizon
        back so far that it would be looked at again.
        """
        alice, bob = person("100.00"), person("20.00")
        checkpoint()
        fund(bob, "1.00")
        tamper(owner, "UPDATE transactions_transaction SET posted_in = '3' WHERE amount IN (1, 20)")
        fund(alice, "2.00")
        assert breaches() == []
        with monkeypatch.context() as patched:
            later = database_time() + timedelta(hours=2)
            patched.setattr(checkpoints, "database_time", lambda: later)
            checkpoint()
        assert not CheckpointLeaf.objects.filter(wallet_id=bob.wallet.pk, number=2).exists()
        return bob

    def test_given_a_wallet_that_no_checkpoint_sees_when_verifying_then_it_is_named(self, hidden):
        [breach] = breaches()
        assert str(breach).startswith(f"invariant 7: wallet {hidden.wallet.pk}: has an entry of ")
        assert str(breach).endswith(" that checkpoint 2 did not sign")

    def test_given_one_that_is_seen_again_when_verifying_then_it_is_still_named(self, hidden):
        fund(hidden, "3.00")
        checkpoint()
        [breach] = breaches()
        assert str(breach).startswith(f"invariant 7: wallet {hidden.wallet.pk}: has an entry of ")

    @pytest.fixture
    def numbered_freely(self, owner):
        """A number may be given twice; whoever looks for one finds the entry that came first."""
        name = "transactions_ledger_one_number_per_wallet"
        ledger = "transactions_transactionledger"
        owner.execute(f"ALTER TABLE {ledger} DROP CONSTRAINT {name}")
        owner.execute(f"CREATE INDEX freely ON {ledger} (wallet_id, sequence)")
        yield
        tamper(owner, f"DELETE FROM {ledger}", "DROP INDEX freely")
        owner.execute(f"ALTER TABLE {ledger} ADD CONSTRAINT {name} UNIQUE (wallet_id, sequence)")

    @pytest.mark.usefixtures("numbered_freely")
    def test_given_a_number_twice_when_either_was_overlooked_then_it_is_named(self, owner):
        alice = person("100.00")
        checkpoint()
        fund(alice, "1.00")
        checkpoint()
        fund(alice, "2.00")
        earlier = (
            "jsonb_build_object('id', gen_random_uuid(), 'transaction_id', gen_random_uuid(),"
            " 'created_at', now() - interval '3h')"
        )
        tamper(
            owner,
            "INSERT INTO transactions_transactionledger"
            f" SELECT (jsonb_populate_record(entry, {earlier})).*"
            "   FROM transactions_transactionledger entry WHERE sequence IN (2, 3)",
        )
        found = [str(breach) for breach in breaches() if "did not sign" in str(breach)]
        assert [line[-25:] for line in found] == [f"checkpoint {n} did not sign" for n in (1, 2)]

    def test_given_what_is_newer_than_the_last_checkpoint_when_verifying_then_it_is_sound(self):
        alice = person("100.00")
        checkpoint()
        fund(alice, "1.00")
        fund(person(), "1.00")
        outside("1.00")
        assert breaches() == []


class TestMoments:
    @pytest.mark.parametrize(
        "moment", ["-infinity", "infinity", "10000-01-01T00:00:00Z", "0044-03-15 12:00:00Z BC"]
    )
    def test_given_what_is_no_moment_when_posting_by_hand_then_refused(self, moment):
        facts = {"id": uuid4(), "amount": "5.00", "user": person().pk, "moment": moment}
        with refused_by("transactions_transaction_has_a_moment"):
            run(INSERT_TRANSACTION.replace("now()", "%(moment)s"), **facts)

    def test_given_a_superuser_when_an_entry_has_no_moment_then_refused(self, owner):
        person("1.00")
        with pytest.raises(psycopg2.IntegrityError, match="transactions_ledger_has_a_moment"):
            tamper(owner, "UPDATE transactions_transactionledger SET created_at = '-infinity'")
