"""Signed checkpoints: what they cover, who can have one, and what they refuse to sign."""

import base64
import json
import random
import threading
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction

from transactions import checkpoints, merkle, signing
from transactions.checkpoints import CheckpointInProgress, CheckpointRefused
from transactions.merkle import Leaf
from transactions.models import CheckpointLeaf, CheckpointNode, LedgerCheckpoint
from transactions.seals import seal_of
from transactions.standalone import verify_export
from transactions.tasks import checkpoint_ledger
from transactions.tests.helpers import at_once, breaches, client_of, fund, person, send
from transactions.tests.proofs import checkpoint, outside, tamper
from transactions.tests.test_ledger_rules import run

LIST = "/api/v1/transactions/checkpoints/"
PROOF = "/api/v1/wallets/me/proof/"


def proves(proof, made):
    """As an owner would check it, with the verifier's code instead of ours."""
    root = verify_export.root_from(
        str(proof.leaf.wallet_id), proof.leaf.entry_count, proof.leaf.seal, proof.siblings
    )
    return root == bytes(made.root) == bytes(proof.checkpoint.root)


def counts(made):
    return made.wallet_count, made.entry_count, made.outside_count


def neighbours():
    """Two ids of wallets in the same bucket of the tree."""
    seen = {}
    for number in range(1, 5_000):
        wallet_id = UUID(int=number)
        other = seen.setdefault(merkle.bucket_of(wallet_id), wallet_id)
        if other != wallet_id:
            return other, wallet_id
    raise AssertionError("no two of them meet")


class TestTree:
    """The tree as we compute it, against the one of the verifier, which is written otherwise."""

    @pytest.mark.parametrize("size", [0, 1, 2, 3, 50])
    def test_given_leaves_when_hashing_then_both_agree_and_each_leaf_is_proved(self, size):
        chosen = random.Random(size)
        leaves = [
            Leaf(UUID(int=chosen.getrandbits(128)), number + 1, chosen.randbytes(32))
            for number in range(size)
        ]
        root = merkle.tree(leaves, 0)
        theirs = verify_export.Tree()
        for leaf in leaves:
            theirs.put(str(leaf.wallet_id), 1, bytes(32))  # an older head, which is replaced
        for leaf in reversed(leaves):
            theirs.put(str(leaf.wallet_id), leaf.entry_count, leaf.seal)
        assert root.leaf_count == size
        assert theirs.root() == root.hash
        for leaf in leaves:
            siblings = merkle.siblings_below(leaves, 0, leaf.key)
            assert merkle.root_from(leaf, siblings) == root.hash

    def test_given_a_proof_when_a_leaf_claims_another_count_or_seal_then_it_proves_nothing(self):
        leaves = [Leaf(uuid4(), 1, bytes([number]) * 32) for number in range(8)]
        root, mine = merkle.tree(leaves, 0).hash, leaves[3]
        siblings = merkle.siblings_below(leaves, 0, mine.key)
        for forged in [
            Leaf(mine.wallet_id, 2, mine.seal),
            Leaf(mine.wallet_id, 1, bytes(32)),
            Leaf(leaves[4].wallet_id, 1, mine.seal),
        ]:
            assert merkle.root_from(forged, siblings) != root

    def test_given_a_node_when_it_is_shown_as_a_leaf_then_it_is_none(self):
        """Leaves and nodes are hashed differently, so no leaf can be passed off as a node."""
        leaf = Leaf(uuid4(), 1, bytes(32))
        assert leaf.node().hash != merkle.join(leaf.node(), leaf.node()).hash
        assert merkle.join(merkle.EMPTY, leaf.node()) == leaf.node()
        assert merkle.join(merkle.EMPTY, merkle.EMPTY) == merkle.EMPTY


@pytest.mark.django_db(transaction=True)
class TestTaking:
    def test_given_a_ledger_when_taking_one_then_it_signs_every_head(self):
        alice, bob = person("100.00"), person("5.00")
        person()  # without entries: nothing to sign
        send(alice, bob, "1.00")
        outside("3.00")
        made = checkpoint()
        assert made.number == 1
        assert counts(made) == (2, 4, 1)
        assert bytes(made.previous) == bytes(32)
        for user, entries in ((alice, 2), (bob, 2)):
            proof = checkpoints.prove(user.wallet.pk)
            assert proof.leaf == Leaf(user.wallet.pk, entries, seal_of(user.wallet.pk, entries))
            assert proves(proof, made)

    def test_given_one_when_checking_it_then_the_signature_is_over_what_it_says(self):
        person("100.00")
        made = LedgerCheckpoint.objects.get(pk=checkpoint().pk)
        payload, key = made.payload.encode(), bytes(made.public_key)
        assert verify_export.is_signed(key, bytes(made.signature), payload)
        assert not verify_export.is_signed(key, bytes(made.signature), payload + b" ")
        said = json.loads(made.payload)
        assert said == {
            "format": "fintech-core/checkpoint/1",
            "number": 1,
            "created_at": made.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "wallet_count": 1,
            "entry_count": 1,
            "outside_count": 0,
            "root": bytes(made.root).hex(),
            "previous": "0" * 64,
            "key_id": signing.key_id(signing.public_key()),
        }
        assert checkpoints.is_genuine(made)

    def test_given_nothing_new_when_taking_one_then_there_is_none(self):
        assert checkpoints.take() is None
        person("100.00")
        checkpoint()
        person()
        assert checkpoints.take() is None
        assert LedgerCheckpoint.objects.count() == 1

    def test_given_news_when_taking_the_next_then_it_extends_the_last(self):
        people = [person("100.00") for _ in range(5)]
        chain = [checkpoint()]
        for number in range(3):
            send(people[number], people[number + 1], "1.00")
            chain.append(checkpoint())
        outside("1.00")
        chain.append(checkpoint())
        assert [counts(made) for made in chain] == [
            (5, 5, 0),
            (5, 7, 0),
            (5, 9, 0),
            (5, 11, 0),
            (5, 11, 1),
        ]
        for before, after in pairwise(chain):
            assert bytes(after.previous) == checkpoints.hash_of(before)
        # Only what moved is written down.
        assert CheckpointLeaf.objects.filter(number=2).count() == 2
        for user in people:
            assert proves(checkpoints.prove(user.wallet.pk), chain[-1])
        assert breaches() == []

    def test_given_two_wallets_in_one_bucket_when_taking_then_both_are_proved(self, owner):
        users = [person(), person()]
        for user, wallet_id in zip(users, neighbours(), strict=True):
            tamper(
                owner,
                f"UPDATE wallet_wallet SET id = '{wallet_id}' WHERE user_id = '{user.pk}'",
            )
            user.refresh_from_db()
            fund(user, "10.00")
        made = checkpoint()
        proofs = [checkpoints.prove(user.wallet.pk) for user in users]
        assert all(proves(proof, made) for proof in proofs)
        assert len(proofs[0].siblings) > merkle.BUCKET_DEPTH
        fund(users[0], "1.00")
        made = checkpoint()
        assert proves(checkpoints.prove(users[1].wallet.pk), made)
        assert breaches() == []

    def test_given_money_that_moves_meanwhile_when_taking_then_the_next_one_has_it(self):
        """It began before the checkpoint and committed after it: it must not fall between two."""
        alice, bob = person("100.00"), person("50.00")
        checkpoint()
        posted, go_on = threading.Event(), threading.Event()

        def slowly():
            try:
                with transaction.atomic():
                    fund(alice, "1.00")
                    posted.set()
                    assert go_on.wait(30)
            finally:
                connections.close_all()

        thread = threading.Thread(target=slowly)
        thread.start()
        assert posted.wait(30)
        fund(bob, "1.00")
        during = checkpoint()
        go_on.set()
        thread.join(30)
        assert counts(during) == (2, 3, 0)
        assert counts(checkpoint()) == (2, 4, 0)
        assert checkpoints.take() is None
        assert breaches() == []

    def test_given_several_at_once_when_taking_then_one_is_taken(self):
        person("100.00")
        taken = at_once(*[checkpoints.take] * 4)
        made = [one for one in taken if isinstance(one, LedgerCheckpoint)]
        assert len(made) == 1
        assert [one for one in taken if one is None] == [None] * 3
        assert breaches() == []

    def test_given_another_that_takes_long_when_taking_then_it_gives_up(self, owner):
        person("100.00")
        owner.execute("BEGIN")
        owner.execute("LOCK TABLE transactions_checkpointnode IN SHARE ROW EXCLUSIVE MODE")
        run("SET lock_timeout = 100")
        try:
            with pytest.raises(CheckpointInProgress):
                checkpoints.take()
            checkpoint_ledger()
            with pytest.raises(CommandError, match="being taken"):
                call_command("checkpoint_ledger")
        finally:
            owner.execute("ROLLBACK")
            run("RESET lock_timeout")
        assert checkpoints.take().number == 1

    def test_given_a_database_restored_elsewhere_when_taking_then_nothing_is_overlooked(
        self, owner
    ):
        """Transactions are counted anew there: what the last checkpoint had seen says nothing."""
        alice, bob = person("100.00"), person("50.00")
        checkpoint()
        tamper(owner, "UPDATE transactions_ledgercheckpoint SET cluster = 1, horizon = '99999999'")
        send(alice, bob, "1.00")
        assert counts(checkpoint()) == (2, 4, 0)
        assert breaches() == []

    def test_given_the_task_and_the_command_when_run_then_they_take_one(self, capsys):
        alice = person("100.00")
        checkpoint_ledger()
        assert LedgerCheckpoint.objects.count() == 1
        call_command("checkpoint_ledger")
        fund(alice, "1.00")
        call_command("checkpoint_ledger")
        said = capsys.readouterr().out
        assert "Nothing was posted" in said
        assert "Checkpoint 2: 2 entries of 1 wallets" in said


@pytest.mark.django_db(transaction=True)
class TestKeys:
    def test_given_a_new_key_in_front_when_taking_then_it_signs_and_the_old_is_trusted(
        self, settings
    ):
        alice = person("100.00")
        old = checkpoint()
        settings.LEDGER_SIGNING_KEYS = [b"a new key of 32 bytes, as it is!", *keys(settings)]
        fund(alice, "1.00")
        new = checkpoint()
        assert new.key_id != old.key_id
        assert bytes(new.public_key) == signing.public_key()
        assert breaches() == []

    def test_given_the_old_key_was_thrown_away_when_taking_then_refused(self, settings):
        alice = person("100.00")
        checkpoint()
        settings.LEDGER_SIGNING_KEYS = [b"a new key of 32 bytes, as it is!"]
        fund(alice, "1.00")
        with pytest.raises(CheckpointRefused, match="not in LEDGER_SIGNING_KEY"):
            checkpoints.take()
        assert "not in LEDGER_SIGNING_KEY" in str(breaches())


def keys(settings):
    return settings.LEDGER_SIGNING_KEYS


@pytest.mark.django_db(transaction=True)
class TestRefusing:
    """Who rewrites the past in the database cannot have it signed by the next checkpoint."""

    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            ("UPDATE transactions_ledgercheckpoint SET entry_count = 1", "not what was signed"),
            ("UPDATE transactions_ledgercheckpoint SET root = sha256('')", "not what was signed"),
            (
                "UPDATE transactions_ledgercheckpoint SET signature = sha512('')",
                "not what was signed",
            ),
            (
                "INSERT INTO transactions_checkpointleaf (wallet_id, entry_count, number, seal)"
                " SELECT wallet_id, 99, 2, seal FROM transactions_checkpointleaf LIMIT 1",
                "no checkpoint signed",
            ),
            ("UPDATE transactions_checkpointleaf SET seal = sha256('')", "rewritten"),
            (
                "UPDATE transactions_ledgerseal SET seal = sha256('') WHERE sequence = 1",
                "rewritten",
            ),
            (
                "UPDATE transactions_checkpointnode SET hash = sha256('') WHERE depth = 16",
                "leaves of the last checkpoint were changed",
            ),
            (
                "UPDATE transactions_checkpointnode SET hash = sha256('') WHERE depth = 0",
                "leaves of the last checkpoint were changed",
            ),
            ("DELETE FROM transactions_checkpointnode", "leaves of the last checkpoint"),
            (
                "DELETE FROM transactions_ledgerseal WHERE sequence = 2",
                "newest entry has no seal",
            ),
            ("DELETE FROM transactions_ledgercheckpoint", "no checkpoint signed"),
        ],
    )
    def test_given_a_changed_past_when_taking_the_next_then_refused(self, owner, statement, reason):
        alice, bob = person("100.00"), person("50.00")
        checkpoint()
        send(alice, bob, "1.00")
        tamper(owner, statement)
        before = list(LedgerCheckpoint.objects.values_list("number"))
        with pytest.raises(CheckpointRefused, match=reason):
            checkpoints.take()
        assert list(LedgerCheckpoint.objects.values_list("number")) == before
        assert not CheckpointLeaf.objects.filter(number=2, entry_count=2).exists()
        with pytest.raises(CommandError, match=reason):
            call_command("checkpoint_ledger")

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE transactions_ledgercheckpoint SET number = 2",
            "DELETE FROM transactions_ledgercheckpoint",
            "TRUNCATE transactions_ledgercheckpoint",
            "UPDATE transactions_checkpointleaf SET number = 2",
            "DELETE FROM transactions_checkpointleaf",
            "TRUNCATE transactions_checkpointleaf",
        ],
    )
    def test_given_one_when_changing_it_then_refused_to_everybody(self, owner, statement):
        person("100.00")
        checkpoint()
        with pytest.raises(DatabaseError, match="permission denied"):
            run(statement)
        with pytest.raises(Exception, match="is history"):
            owner.execute(statement)

    def test_given_a_changed_tree_when_proving_then_nothing_false_is_proved(self, owner):
        alice = person("100.00")
        person("50.00")
        checkpoint()
        tamper(owner, "UPDATE transactions_checkpointnode SET hash = sha256('')")
        with pytest.raises(CheckpointRefused, match="does not prove"):
            checkpoints.prove(alice.wallet.pk)


@pytest.mark.django_db(transaction=True)
class TestApi:
    @pytest.mark.parametrize("url", [LIST, PROOF])
    def test_given_nobody_signed_in_when_asking_then_401(self, client, url):
        assert client.get(url).status_code == 401

    def test_given_checkpoints_when_anyone_signed_in_lists_them_then_newest_first(self):
        alice = person("100.00")
        taken = [checkpoint()]
        for _ in range(2):
            fund(alice, "1.00")
            taken.append(checkpoint())
        client = client_of(person())
        page = client.get(LIST, {"page_size": 2}).json()
        assert [item["number"] for item in page["results"]] == [3, 2]
        assert page["public_key"] == base64.b64encode(signing.public_key()).decode()
        assert page["key_id"] == taken[0].key_id
        rest = client.get(page["next"]).json()
        assert [item["number"] for item in rest["results"]] == [1]
        assert rest["next"] is None

    def test_given_a_checkpoint_when_reading_it_then_it_can_be_checked_without_us(self):
        person("100.00")
        made = checkpoint()
        [item] = client_of(person()).get(LIST).json()["results"]
        assert set(item) == {
            "number",
            "created_at",
            "wallet_count",
            "entry_count",
            "outside_count",
            "root",
            "previous",
            "payload",
            "signature",
            "key_id",
            "public_key",
        }
        assert verify_export.is_signed(
            base64.b64decode(item["public_key"]),
            base64.b64decode(item["signature"]),
            item["payload"].encode(),
        )
        said = json.loads(item["payload"])
        assert {name: item[name] for name in said if name != "format"} == {
            name: value for name, value in said.items() if name != "format"
        }
        assert item["root"] == bytes(made.root).hex()

    def test_given_a_cursor_that_is_none_when_listing_then_400(self):
        answer = client_of(person()).get(LIST, {"cursor": "nonsense"})
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")

    def test_given_no_checkpoint_when_asking_for_a_proof_then_404_says_why(self):
        alice = person("100.00")
        answer = client_of(alice).get(PROOF)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "No checkpoint has been taken since" in answer.json()["detail"]

    def test_given_a_checkpoint_when_asking_for_a_proof_then_it_is_ones_own(self, tmp_path):
        alice, bob = person("100.00"), person("50.00")
        checkpoint()
        fund(alice, "1.00")  # after it: not proved yet
        for user in (alice, bob):
            answer = client_of(user).get(PROOF)
            assert answer.status_code == 200
            proof = answer.json()
            assert proof["wallet_id"] == str(user.wallet.pk)
            assert proof["entry_count"] == 1
            assert proof["seal"] == seal_of(user.wallet.pk, 1).hex()
            root = verify_export.root_from(
                proof["wallet_id"],
                1,
                bytes.fromhex(proof["seal"]),
                [bytes.fromhex(sibling) for sibling in proof["siblings"]],
            )
            assert root.hex() == proof["checkpoint"]["root"]

    def test_given_first_entries_after_it_when_asking_for_a_proof_then_404(self):
        person("100.00")
        checkpoint()
        assert client_of(person("5.00")).get(PROOF).status_code == 404

    def test_given_a_long_ledger_when_proving_then_the_queries_do_not_grow(
        self, django_assert_max_num_queries
    ):
        people = [person("10.00") for _ in range(20)]
        checkpoint()
        with django_assert_max_num_queries(4):
            checkpoints.prove(people[0].wallet.pk)
        assert CheckpointNode.objects.filter(depth=0).count() == 1
