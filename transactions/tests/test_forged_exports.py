"""Doctored exports and proofs. Sealing needs no key, so seals that fit prove nothing alone."""

import base64
import json
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.management import CommandError

from fintech_core.database import database_time
from transactions import checkpoints, stored_tree
from transactions.models import CheckpointLeaf
from transactions.seals import seal_of
from transactions.standalone import verify_export
from transactions.tests import test_tampering as tampering
from transactions.tests.helpers import client_of, fund, person, send
from transactions.tests.proofs import (
    checkpoint,
    export,
    lines_of,
    tamper,
    verifier,
    write_lines,
)
from transactions.tests.test_export import busy_ledger, public_key

pytestmark = pytest.mark.django_db(transaction=True)

CHECKPOINTS = "/api/v1/transactions/checkpoints/"
NO_CHECKPOINTS = [
    "DELETE FROM transactions_ledgercheckpoint",
    "DELETE FROM transactions_checkpointleaf",
    "DELETE FROM transactions_checkpointnode",
]
LONG_AGO = "2026-01-01T00:00:00.000000Z"


def keep(folder, user, name="kept.json"):
    """The page of checkpoints, as the API gave it."""
    path = folder / name
    path.write_bytes(client_of(user).get(CHECKPOINTS).content)
    return path


def proof_of(folder, user):
    path = folder / "proof.json"
    path.write_bytes(client_of(user).get("/api/v1/wallets/me/proof/").content)
    return path


def trusting(*more):
    return ["--public-key", public_key(), *more]


def deposit(wallet, amount, *, sequence=1, balance=None, previous=bytes(32), time=LONG_AGO):
    """As the export would write it, sealed by whoever writes it."""
    common = {"amount": amount, "currency": "USD", "created_at": time}
    cash = {"account": "gateway_clearing", "wallet_id": None, "sequence": None}
    mine = {"account": "wallet", "wallet_id": wallet["id"], "sequence": sequence}
    made = {
        "kind": "transaction",
        "id": str(uuid4()),
        "reference_id": "TX-FORGED",
        "type": "deposit",
        "fee": "0.00",
        "from_user_id": None,
        "to_user_id": wallet["user_id"],
        "parent_id": None,
        "description": "",
        "metadata": "{}",
        "effect_key": None,
        "status": "completed",
        "completed_at": time,
        "refunded_amount": "0.00",
        "outside": None,
        **common,
        "entries": [
            {"id": str(uuid4()), **cash, "entry_type": "debit", "balance_after": None, **common},
            {"id": str(uuid4()), **mine, "entry_type": "credit", **common},
        ],
    }
    made["entries"][1]["balance_after"] = balance or amount
    return seal(made, previous)


def seal(made, previous=bytes(32)):
    made["entries"][0]["seal"] = None
    made["entries"][1]["seal"] = verify_export.seal_after(
        previous, verify_export.digest_of(made)
    ).hex()
    return made


def wallet_of(lines, user):
    return next(line for line in lines if line.get("user_id") == str(user.pk))


def finish(path, lines):
    """Written as if it were whole."""
    lines[-1] = {"kind": "end", "lines": len(lines)}
    write_lines(path, lines)
    return path


def named(checked, text, code=1):
    assert checked.returncode == code, checked.stdout + checked.stderr
    assert text in (checked.stdout if code == 1 else checked.stderr)
    return True


class TestOrder:
    def test_given_a_second_history_after_a_wallet_when_checking_then_refused(self, tmp_path):
        alice, _bob = busy_ledger()
        path = export(tmp_path)
        *lines, end = lines_of(path)
        wallet = wallet_of(lines, alice)
        forged = deposit(wallet, "1000000.00")
        again = {**wallet, "balance": "1000000.00", "entry_count": 1}
        finish(path, [*lines, forged, again, end])
        assert named(verifier(path), "'transaction' after one of the kind 'wallet'", 2)
        finish(path, [*lines, again, end])
        assert named(verifier(path), "in the order of their ids", 2)

    def test_given_lines_after_the_end_when_checking_then_refused(self, tmp_path):
        busy_ledger()
        path = export(tmp_path)
        lines = lines_of(path)
        write_lines(path, [*lines, lines[-1]])
        assert named(verifier(path), "after one of the kind 'end'", 2)

    def test_given_a_leaf_without_its_checkpoint_when_checking_then_refused(self, tmp_path):
        busy_ledger()
        path = export(tmp_path)
        lines = [line for line in lines_of(path) if line["kind"] != "checkpoint"]
        assert named(verifier(finish(path, lines)), "'leaf' after one of the kind 'header'", 2)


class TestOneWallet:
    def test_given_no_proof_and_another_history_when_checking_then_named(self, tmp_path):
        alice, _bob = busy_ledger()
        path = export(tmp_path, "--wallet", str(alice.wallet.pk))
        lines = lines_of(path)
        wallet = wallet_of(lines, alice)
        kept = [line for line in lines if line["kind"] in ("header", "checkpoint")]
        forged = {**wallet, "balance": "1000000.00", "entry_count": 1}
        finish(path, [*kept, deposit(wallet, "1000000.00"), forged, {}])
        title = f"wallet {wallet['id']}"
        detail = f"has an entry of {LONG_AGO} that checkpoint 2 did not sign"
        assert named(verifier(path), f"{title}: {detail}")
        assert named(verifier(path, *trusting()), "none of its entries is signed")

    def test_given_an_old_proof_and_another_end_when_checking_then_named(self, tmp_path):
        alice = person("100.00")
        checkpoint()
        old = lines_of(export(tmp_path, "--wallet", str(alice.wallet.pk)))
        proof = next(line for line in old if line["kind"] == "proof")
        fund(alice, "1.00")
        checkpoint()
        path = export(tmp_path, "--wallet", str(alice.wallet.pk))
        header, one, two, _proof, first, _second, wallet, end = lines_of(path)
        forged = deposit(
            wallet, "5000.00", sequence=2, balance="5100.00", previous=seal_of(wallet["id"], 1)
        )
        wallet |= {"balance": "5100.00"}
        finish(path, [header, one, two, proof, first, forged, wallet, end])
        assert named(verifier(path), "is not proved in checkpoint 2, the newest")
        finish(path, [header, one, proof, two, first, forged, wallet, end])
        assert named(verifier(path), "'checkpoint' after one of the kind 'proof'", 2)
        proof["number"] = 2
        finish(path, [header, one, two, proof, first, forged, wallet, end])
        assert named(verifier(path), "its proof leads to")

    @pytest.fixture
    def rewritten(self, owner, tmp_path, monkeypatch):
        """The operator gave Alice 1000.00 instead of 100.00, and signed a successor of the kept
        checkpoint over it, with the real key."""
        scene = tampering.Scene()
        kept = keep(tmp_path, scene.alice)
        tampering.TestOnlyTheCheckpointTells().rewrite(owner, scene)
        tamper(owner, *NO_CHECKPOINTS[1:])
        grow = stored_tree.grow
        monkeypatch.setattr(checkpoints, "_horizon_of", lambda previous: None)
        monkeypatch.setattr(stored_tree, "grow", lambda number, **_: grow(number, signed_root=None))
        assert checkpoint().number == 2
        return scene, kept

    def test_given_a_rewritten_history_when_a_checkpoint_was_kept_then_it_takes_a_proof_in_it(
        self, rewritten, tmp_path
    ):
        scene, kept = rewritten
        whole = verifier(export(tmp_path), *trusting("--checkpoint", kept))
        assert named(whole, "checkpoint 1: counts")
        path = export(tmp_path, "--wallet", scene.wallet)
        said = "is not proved in checkpoint 1, the newest that you kept"
        assert named(verifier(path, *trusting("--checkpoint", kept)), said)
        with pytest.raises(CommandError, match="no entry of this wallet"):
            export(tmp_path, "--wallet", scene.wallet, "--checkpoint", "1")

    def test_given_a_forged_proof_in_the_kept_one_when_checking_then_named(
        self, rewritten, tmp_path
    ):
        scene, kept = rewritten
        path = export(tmp_path, "--wallet", scene.wallet)
        lines = lines_of(path)
        proof = next(line for line in lines if line["kind"] == "proof")
        lines.insert(lines.index(proof), {**proof, "number": 1})
        checked = verifier(finish(path, lines), *trusting("--checkpoint", kept))
        assert named(checked, "its proof leads to")

    def test_given_a_proof_in_the_kept_one_when_checking_then_sound(self, tmp_path):
        alice, bob = person("100.00"), person("5.00")
        for _ in range(20):
            person("1.00")
        checkpoint()
        kept = keep(tmp_path, alice)
        for _ in range(3):
            send(alice, bob, "1.00")
            checkpoint()
        fund(alice, "7.00")
        of_alice = ["--wallet", str(alice.wallet.pk)]
        path = export(tmp_path, *of_alice, "--checkpoint", "1", "--checkpoint", "3")
        proofs = [line for line in lines_of(path) if line["kind"] == "proof"]
        assert [(proof["number"], proof["entry_count"]) for proof in proofs] == [
            (1, 1),
            (3, 3),
            (4, 4),
        ]
        checked = verifier(path, *trusting("--checkpoint", kept))
        assert checked.returncode == 0, checked.stdout
        assert "4 of 5 entries are signed, as of checkpoint 4" in checked.stdout

    def test_given_no_such_checkpoint_when_exporting_then_refused(self, tmp_path):
        alice, _bob = busy_ledger()
        with pytest.raises(CommandError, match="Checkpoint 9 has no entry of this wallet"):
            export(tmp_path, "--wallet", str(alice.wallet.pk), "--checkpoint", "9")
        with pytest.raises(CommandError, match="goes with --wallet"):
            export(tmp_path, "--checkpoint", "1")
        assert list(tmp_path.iterdir()) == []

    def test_given_changed_leaves_when_exporting_an_older_proof_then_refused(self, tmp_path, owner):
        alice, _bob = busy_ledger()
        forged = "UPDATE transactions_checkpointleaf SET seal = sha256('') WHERE number = 1"
        tamper(owner, forged)
        assert CheckpointLeaf.objects.filter(number=1).exists()
        with pytest.raises(CommandError, match="does not prove"):
            export(tmp_path, "--wallet", str(alice.wallet.pk), "--checkpoint", "1")


class TestHowMuchIsSigned:
    def test_given_nothing_signed_when_a_key_is_given_then_named(self, tmp_path):
        alice = person("100.00")
        path = export(tmp_path)
        header, *_ = lines = lines_of(path)
        wallet = wallet_of(lines, alice)
        forged = {**wallet, "balance": "1000000.00", "entry_count": 1}
        finish(path, [header, deposit(wallet, "1000000.00"), forged, {}])
        assert named(verifier(path, *trusting()), "none of its entries is signed")
        assert "0 of 1 entries are signed.\n" in verifier(path).stdout

    def test_given_an_entry_from_before_the_last_checkpoint_when_checking_then_named(
        self, tmp_path
    ):
        alice = person("100.00")
        checkpoint()
        path = export(tmp_path)
        lines = lines_of(path)
        wallet = wallet_of(lines, alice)
        forged = deposit(
            wallet,
            "50.00",
            sequence=2,
            balance="150.00",
            previous=seal_of(alice.wallet.pk, 1),
            time=checkpoints.moment_text(database_time() - timedelta(hours=2)),
        )
        made = next(line for line in lines if line["kind"] == "transaction")
        wallet |= {"balance": "150.00", "entry_count": 2}
        lines.insert(lines.index(made) + 1, forged)
        finish(path, lines)
        assert named(verifier(path), "that checkpoint 1 did not sign")

    def test_given_an_entry_that_only_a_later_checkpoint_signed_when_checking_then_named(
        self, tmp_path, monkeypatch
    ):
        """Hidden from the checkpoint that should have had it, and shown to the next one."""
        alice, bob = person("100.00"), person("5.00")
        checkpoint()
        fund(alice, "1.00")
        fund(bob, "1.00")
        with monkeypatch.context() as patched:
            later = database_time() + timedelta(hours=2)
            patched.setattr(checkpoints, "database_time", lambda: later)
            others = f"(SELECT * FROM wallet_wallet WHERE id <> '{alice.wallet.pk}') wallet"
            patched.setattr(checkpoints, "_MOVED", others)
            checkpoint()
        monkeypatch.setattr(checkpoints, "_MOVED", "wallet_wallet wallet")
        checkpoint()
        checked = verifier(export(tmp_path), *trusting())
        assert named(checked, f"wallet {alice.wallet.pk}: has an entry of ")
        assert "that checkpoint 2 did not sign" in checked.stdout


class TestWhatWasKept:
    @pytest.fixture
    def two(self, tmp_path, owner):
        """Number 1 twice: the operator shows one history to some, another one to others."""
        alice = person("100.00")
        checkpoint()
        first = keep(tmp_path, alice, "a.json")
        tamper(owner, *NO_CHECKPOINTS)
        fund(alice, "1.00")
        checkpoint()
        return alice, first, keep(tmp_path, alice, "b.json")

    def test_given_two_of_one_number_when_checking_then_named_in_any_order(self, two, tmp_path):
        _alice, first, second = two
        path = export(tmp_path)
        for pair in ([first, second], [second, first]):
            kept = [word for file in pair for word in ("--checkpoint", file)]
            assert named(verifier(path, *trusting(*kept)), "there are two histories")

    def test_given_another_one_beside_a_proof_when_checking_then_named(self, two, tmp_path):
        alice, first, second = two
        proof = proof_of(tmp_path, alice)
        checked = verifier("--proof", proof, *trusting("--checkpoint", first))
        assert named(checked, "checkpoint 1: is not the one that you kept")
        checked = verifier("--proof", proof, *trusting("--checkpoint", second))
        assert checked.returncode == 0

    def test_given_another_number_beside_a_proof_when_checking_then_refused(self, tmp_path):
        alice = person("100.00")
        checkpoint()
        kept = keep(tmp_path, alice)
        fund(alice, "1.00")
        checkpoint()
        checked = verifier("--proof", proof_of(tmp_path, alice), "--checkpoint", kept)
        assert named(checked, "none of the checkpoints that you kept is number 2", 2)

    def test_given_one_that_nobody_signed_when_checking_then_named(self, two, tmp_path):
        _alice, _first, second = two
        page = json.loads(second.read_text())
        page["results"][0]["signature"] = base64.b64encode(bytes(64)).decode()
        second.write_text(json.dumps(page))
        checked = verifier(export(tmp_path), *trusting("--checkpoint", second))
        assert named(checked, "the kept checkpoint 1: its signature is wrong")

    @pytest.mark.parametrize("text", ["[]", '{"results": []}', "{}", '{"results": 1}', "null"])
    def test_given_a_file_without_any_when_checking_then_refused(self, tmp_path, text):
        kept = tmp_path / "kept.json"
        kept.write_text(text)
        checked = verifier(export(tmp_path), "--checkpoint", kept)
        assert named(checked, "cannot be read", 2)
        assert "Traceback" not in checked.stderr


class TestOwners:
    def test_given_two_wallets_whose_owners_are_swapped_when_checking_then_named(self, tmp_path):
        alice, bob = person("100.00"), person("1.00")
        checkpoint()
        path = export(tmp_path)
        lines = lines_of(path)
        one, other = wallet_of(lines, alice), wallet_of(lines, bob)
        one["user_id"], other["user_id"] = other["user_id"], one["user_id"]
        write_lines(path, lines)
        assert named(verifier(path), f"wallet {one['id']}: is of ")

    def test_given_another_currency_of_a_wallet_when_checking_then_named(self, tmp_path, owner):
        alice = person("100.00")
        checkpoint()
        tamper(owner, f"UPDATE wallet_wallet SET currency = 'KWD' WHERE user_id = '{alice.pk}'")
        assert named(verifier(export(tmp_path)), f"wallet {alice.wallet.pk}: is of ")

    def test_given_an_entry_of_somebody_else_when_checking_then_named(self, tmp_path):
        alice, bob = person("100.00"), person("1.00")
        path = export(tmp_path)
        lines = lines_of(path)
        wallet = wallet_of(lines, alice)
        of_bob = {**wallet, "user_id": str(bob.pk)}
        time = checkpoints.moment_text(database_time())
        forged = deposit(
            of_bob,
            "5.00",
            sequence=2,
            balance="105.00",
            previous=seal_of(alice.wallet.pk, 1),
            time=time,
        )
        wallet |= {"balance": "105.00", "entry_count": 2}
        place = next(i for i, line in enumerate(lines) if line["kind"] == "wallet")
        lines.insert(place, forged)
        finish(path, lines)
        assert named(verifier(path), f"wallet {wallet['id']}, entry 2: is of ")

    def test_given_a_wallets_entry_outside_of_wallets_when_checking_then_named(self, tmp_path):
        alice = person("100.00")
        path = export(tmp_path)
        lines = lines_of(path)
        made = next(line for line in lines if line["kind"] == "transaction")
        next(entry for entry in made["entries"] if entry["wallet_id"])["account"] = "fees"
        write_lines(path, lines)
        assert named(verifier(path), "an entry is in a wallet and in none")
        assert alice


class TestSpelling:
    """Whatever could be read in two ways is not read at all."""

    def forge(self, folder, **changes):
        """A sealed deposit of an entry that says something odd."""
        alice = person("100.00")
        path = export(folder)
        lines = lines_of(path)
        wallet = wallet_of(lines, alice)
        made = deposit(wallet, "1000.00")
        made["entries"][0] |= changes.pop("debit", {})
        made["entries"][1] |= changes.pop("credit", {})
        made |= changes
        finish(path, [lines[0], seal(made), {**wallet, "balance": "1000.00"}, {}])
        return verifier(path)

    @pytest.mark.parametrize(
        "amount",
        [
            "10000000000000.00",  # with enough digits a sum of decimals would lose a cent
            "1_000.00",
            "\uff11\uff10\uff10\uff10.00",
            " 1000.00",
            "1000.00\n",
            "1E+3",
            "\u0663.00",
            "1000",
            "1000.000",
            "+1000.00",
            "NaN",
            "Infinity",
            None,
        ],
    )
    def test_given_an_odd_amount_when_checking_then_refused(self, tmp_path, amount):
        changes = {"amount": amount}
        checked = self.forge(tmp_path, **changes, debit=changes, credit=changes)
        assert named(checked, "is not an amount", 2)

    @pytest.mark.parametrize("held", ["NaN", "-1.00", "100.01", "", 0])
    def test_given_an_odd_amount_held_when_checking_then_not_sound(self, tmp_path, held):
        alice = person("100.00")
        path = export(tmp_path)
        lines = lines_of(path)
        wallet_of(lines, alice)["held"] = held
        write_lines(path, lines)
        assert verifier(path).returncode in (1, 2)

    @pytest.mark.parametrize("number", ["1", 1.0, True, -1, 2**63, None, [1]])
    def test_given_an_odd_number_when_checking_then_refused(self, tmp_path, number):
        assert named(self.forge(tmp_path, credit={"sequence": number}), "is not a count", 2)

    @pytest.mark.parametrize("field", ["id", "from_user_id", "to_user_id", "parent_id"])
    @pytest.mark.parametrize(
        "odd", ["01990000-0000-7000-8000-00000000000A", "01990000000070008000000000000001", "", 7]
    )
    def test_given_an_odd_id_when_checking_then_refused(self, tmp_path, field, odd):
        assert self.forge(tmp_path, **{field: odd}).returncode == 2

    def test_given_the_wallet_that_stands_for_none_when_checking_then_refused(self, tmp_path):
        checked = self.forge(tmp_path, credit={"wallet_id": verify_export.OUTSIDE})
        assert named(checked, "stands for none", 2)

    @pytest.mark.parametrize("moment", [None, "", "-infinity", "0044-03-15T12:00:00.000000Z BC", 1])
    def test_given_no_time_when_checking_then_named(self, tmp_path, moment):
        changes = {"created_at": moment}
        checked = self.forge(tmp_path, **changes, debit=changes, credit=changes)
        assert checked.returncode in (1, 2)
        assert "Traceback" not in checked.stderr
        if checked.returncode == 1:
            assert "has no proper time" in checked.stdout

    def test_given_a_member_twice_when_checking_then_refused(self, tmp_path):
        person("100.00")
        checkpoint()
        path = export(tmp_path)
        said = '"balance" : "100.00"'
        assert said in path.read_text()
        path.write_text(path.read_text().replace(said, f'"balance" : "9999999.00", {said}'))
        assert named(verifier(path), "a JSON object has a member twice", 2)

    @pytest.mark.parametrize(
        "text", ["[" * 200_000, '{"kind": NaN}', "7", '{"kind": [1]}', "\x00", '{"kind": "end"}']
    )
    def test_given_nonsense_when_checking_then_refused_without_a_traceback(self, tmp_path, text):
        path = tmp_path / "file"
        path.write_text(text)
        checked = verifier(path)
        assert named(checked, "cannot be read", 2)
        assert "Traceback" not in checked.stderr

    def test_given_a_name_that_writes_lines_when_checking_then_it_stays_in_one(self, tmp_path):
        alice = person("1.00")
        path = export(tmp_path)
        lines = lines_of(path)
        wallet = wallet_of(lines, alice)
        verdict = "the whole ledger: 10 entries and 2 checkpoints: sound"
        wallet["currency"] = f"USD\x1b[2K\r\n{verdict}\n\u202e"
        write_lines(path, lines)
        checked = verifier(path)
        assert checked.returncode == 1
        assert verdict not in checked.stdout.splitlines()
        assert checked.stdout.isascii()
        assert "\x1b" not in checked.stdout
        wallet["id"] = f"x\x1b[2K\r\n{verdict}\n"
        write_lines(path, lines)
        assert len(verifier(path).stderr.splitlines()) == 1

    def test_given_a_proof_with_shifted_borders_when_checking_then_refused(self, tmp_path):
        """One leaf: the root is its hash, and other lengths of its parts would hash alike."""
        alice = person("100.00")
        checkpoint()
        path = proof_of(tmp_path, alice)
        proof = json.loads(path.read_text())
        leaf = alice.wallet.pk.bytes + (1).to_bytes(8, "big") + bytes.fromhex(proof["seal"])
        proof |= {
            "wallet_id": leaf[:20].hex(),
            "entry_count": int.from_bytes(leaf[20:28], "big"),
            "seal": leaf[28:].hex(),
        }
        path.write_text(json.dumps(proof))
        assert named(verifier("--proof", path, *trusting()), "is not", 2)


class TestRetiredKey:
    def test_given_one_that_signed_again_when_checking_then_named(
        self, tmp_path, settings, monkeypatch
    ):
        alice, [old] = person("100.00"), settings.LEDGER_SIGNING_KEYS
        checkpoint()
        monkeypatch.setattr(checkpoints, "_require_not_retired", lambda previous: None)
        for keys in ([bytes(32), old], [old, bytes(32)]):
            settings.LEDGER_SIGNING_KEYS = keys
            fund(alice, "1.00")
            checkpoint()
        checked = verifier(export(tmp_path))
        assert named(checked, "checkpoint 3: is signed by key")
        assert "which another one had followed" in checked.stdout
