"""The export, and the verifier that checks it with nothing but Python's standard library."""

import ast
import base64
import json
import os
import random
import stat
import sys
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import CommandError, call_command
from django.test.utils import CaptureQueriesContext

from transactions import signing
from transactions.models import LedgerCheckpoint
from transactions.standalone import verify_export
from transactions.tests.helpers import (
    capture,
    client_of,
    fund,
    hold_of,
    person,
    refund,
    reserve,
    send,
)
from transactions.tests.proofs import (
    VERIFIER,
    checkpoint,
    export,
    lines_of,
    outside,
    tamper,
    verifier,
    write_lines,
)

PUBLIC_KEY = "--public-key"


def public_key():
    return base64.b64encode(signing.public_key()).decode()


def busy_ledger():
    """Every kind of transaction, two checkpoints, and something after them."""
    alice, bob = person("100.00"), person()
    sent = send(alice, bob, "40.00").content["id"]
    outside("2.00")
    checkpoint()
    refund(bob, sent, "15.00")
    capture(bob, hold_of(reserve(alice, bob, "10.00")), "4.00")
    checkpoint()
    outside("3.00")
    fund(alice, "0.01")
    return alice, bob


@pytest.mark.django_db(transaction=True)
class TestWholeLedger:
    def test_given_a_sound_ledger_when_checking_its_export_then_it_is_sound(self, tmp_path):
        busy_ledger()
        checked = verifier(export(tmp_path), PUBLIC_KEY, public_key())
        newest = LedgerCheckpoint.objects.latest("number")
        signed_at = newest.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        assert checked.stdout == (
            f"8 of 10 entries are signed, as of checkpoint 2 of {signed_at}.\n"
            "the whole ledger: 10 entries and 2 checkpoints: sound\n"
        )
        assert (checked.returncode, checked.stderr) == (0, "")

    def test_given_an_empty_ledger_when_exporting_then_it_is_sound(self, tmp_path):
        checked = verifier(export(tmp_path))
        assert "0 entries and 0 checkpoints: sound" in checked.stdout
        assert checked.returncode == 0

    def test_given_an_export_when_reading_it_then_it_has_what_the_document_says(self, tmp_path):
        alice, _bob = busy_ledger()
        lines = lines_of(export(tmp_path))
        kinds = [line["kind"] for line in lines]
        assert kinds[0] == "header"
        assert kinds[-1] == "end"
        assert lines[-1]["lines"] == len(lines)
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            "header": 1,
            "checkpoint": 2,
            "leaf": 5,
            "transaction": 7,
            "wallet": 3,
            "end": 1,
        }
        assert kinds.index("transaction") > kinds.index("leaf")
        wallet = next(line for line in lines if line.get("user_id") == str(alice.pk))
        assert (wallet["balance"], wallet["held"]) == ("71.01", "0.00")

    def test_given_any_order_of_transactions_when_checking_then_it_is_sound(self, tmp_path):
        """Ids are made by processes whose clocks differ; an entry may come before the last."""
        busy_ledger()
        path = export(tmp_path)
        lines = lines_of(path)
        made = [line for line in lines if line["kind"] == "transaction"]
        random.Random(1).shuffle(made)
        first = next(i for i, line in enumerate(lines) if line["kind"] == "transaction")
        write_lines(path, [*lines[:first], *made, *lines[first + len(made) :]])
        assert verifier(path).returncode == 0

    def test_given_no_key_when_checking_then_it_says_whose_keys_it_believed(self, tmp_path):
        fund(person(), "1.00")
        checkpoint()
        assert "compare them" in verifier(export(tmp_path)).stdout

    def test_given_the_key_of_another_when_checking_then_it_is_named(self, tmp_path):
        fund(person(), "1.00")
        checkpoint()
        other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        checked = verifier(export(tmp_path), PUBLIC_KEY, base64.b64encode(other).decode())
        assert "checkpoint 1: is signed by a key that is not trusted" in checked.stdout
        assert checked.returncode == 1

    def test_given_a_cut_off_file_when_checking_then_it_is_named(self, tmp_path):
        busy_ledger()
        path = export(tmp_path)
        write_lines(path, lines_of(path)[:-2])
        checked = verifier(path)
        assert "the export: is incomplete" in checked.stdout
        assert checked.returncode == 1

    @pytest.mark.parametrize(
        "text", ["", "nonsense", "[1]", '{"kind": "header", "format": "other/1"}', '{"a": 1}']
    )
    def test_given_something_else_when_checking_then_it_says_so(self, tmp_path, text):
        path = tmp_path / "other"
        path.write_text(text)
        checked = verifier(path)
        assert checked.returncode == 2
        assert "cannot be read" in checked.stderr

    def test_given_no_file_when_checking_then_it_says_so(self, tmp_path):
        assert verifier(tmp_path / "missing").returncode == 2


@pytest.mark.django_db(transaction=True)
class TestKeptCheckpoint:
    """Somebody outside kept an old one: then even the operator, with his key, cannot rewrite."""

    def test_given_a_kept_page_of_checkpoints_when_checking_then_it_is_sound(self, tmp_path):
        alice, _bob = busy_ledger()
        kept = tmp_path / "kept.json"
        kept.write_text(client_of(alice).get("/api/v1/transactions/checkpoints/").content.decode())
        fund(alice, "1.00")
        checkpoint()
        checked = verifier(export(tmp_path), "--checkpoint", kept)
        assert checked.returncode == 0

    def test_given_another_history_with_the_real_key_when_checking_then_the_kept_one_tells(
        self, tmp_path, owner
    ):
        alice = person("100.00")
        checkpoint()
        page = client_of(alice).get("/api/v1/transactions/checkpoints/").json()
        kept = tmp_path / "kept.json"
        kept.write_text(json.dumps(page["results"][0]))
        # The operator throws every checkpoint away and signs anew.
        tamper(
            owner,
            "DELETE FROM transactions_ledgercheckpoint",
            "DELETE FROM transactions_checkpointleaf",
            "DELETE FROM transactions_checkpointnode",
        )
        fund(alice, "1.00")
        checkpoint()
        path = export(tmp_path)
        assert verifier(path).returncode == 0
        checked = verifier(path, "--checkpoint", kept)
        assert "checkpoint 1: is not the one that you kept" in checked.stdout
        assert checked.returncode == 1


@pytest.mark.django_db(transaction=True)
class TestOneWallet:
    def test_given_a_wallet_when_exporting_it_then_only_what_concerns_it_is_there(self, tmp_path):
        alice, bob = busy_ledger()
        carol = person("7.00")
        path = export(tmp_path, "--wallet", str(alice.wallet.pk))
        lines = lines_of(path)
        touched = [line for line in lines if line["kind"] == "transaction"]
        assert len(touched) == 5
        assert [line["id"] for line in lines if line["kind"] == "wallet"] == [str(alice.wallet.pk)]
        assert str(carol.pk) not in path.read_text()
        checked = verifier(path)
        assert f"wallet {alice.wallet.pk}: 5 entries and 2 checkpoints: sound" in checked.stdout
        assert checked.returncode == 0
        assert bob

    def test_given_a_wallet_that_is_in_no_checkpoint_when_exporting_then_it_is_sound(
        self, tmp_path
    ):
        busy_ledger()
        late = person("7.00")
        checked = verifier(export(tmp_path, "--wallet", str(late.wallet.pk)))
        assert "1 entries and 2 checkpoints: sound" in checked.stdout

    def test_given_its_last_signed_entry_is_left_out_when_checking_then_it_is_named(self, tmp_path):
        alice = person("100.00")
        fund(alice, "1.00")
        checkpoint()
        path = export(tmp_path, "--wallet", str(alice.wallet.pk))
        lines = lines_of(path)
        kept = [line for line in lines if line.get("amount") != "1.00"]
        wallet = next(line for line in kept if line["kind"] == "wallet")
        wallet |= {"balance": "100.00", "entry_count": 1}
        kept[-1]["lines"] = len(kept)
        write_lines(path, kept)
        assert "a tail was cut" in verifier(path).stdout

    def test_given_no_such_wallet_when_exporting_then_refused_and_no_file(self, tmp_path):
        with pytest.raises(CommandError, match="no such wallet"):
            export(tmp_path, "--wallet", str(uuid4()))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db(transaction=True)
class TestFile:
    def test_given_an_export_when_it_is_written_then_only_its_owner_can_read_it(self, tmp_path):
        path = export(tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]

    def test_given_a_folder_that_is_not_there_when_exporting_then_it_says_so(self, tmp_path):
        with pytest.raises(CommandError, match="cannot be written"):
            call_command("export_ledger", "--output", str(tmp_path / "none" / "file"))

    @pytest.mark.parametrize("output", ["", ".", "/"])
    def test_given_no_name_of_a_file_when_exporting_then_it_says_so(self, output):
        with pytest.raises(CommandError, match="no name of a file"):
            call_command("export_ledger", "--output", output)

    def test_given_something_else_than_a_file_when_exporting_then_it_stays(self, tmp_path):
        """As root the file would take the place of a device, `/dev/null` for example."""
        pipe, link = tmp_path / "pipe", tmp_path / "link"
        os.mkfifo(pipe)
        link.symlink_to(pipe)
        for output in (pipe, link):
            with pytest.raises(CommandError, match="is no file"):
                call_command("export_ledger", "--output", str(output))
        assert pipe.is_fifo()
        assert link.is_symlink()
        assert sorted(tmp_path.iterdir()) == [link, pipe]

    def test_given_a_failure_half_way_when_exporting_then_the_old_file_stands(
        self, tmp_path, monkeypatch
    ):
        path = export(tmp_path)
        before = path.read_text()

        def fail(wallet_id=None, proved_in=()):
            yield "half"
            raise RuntimeError

        monkeypatch.setattr("transactions.export.lines", fail)
        with pytest.raises(CommandError, match="RuntimeError"):
            export(tmp_path)
        assert path.read_text() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_given_a_long_ledger_when_exporting_then_it_comes_through_a_cursor(self, tmp_path):
        """A cursor on the server hands the rows over in portions; there is one per kind of line."""
        from django.db import connection

        busy_ledger()
        with CaptureQueriesContext(connection) as captured:
            export(tmp_path)
        assert len(captured) < 15


@pytest.mark.django_db(transaction=True)
class TestProof:
    def proof(self, folder):
        alice, _bob = busy_ledger()
        path = folder / "proof.json"
        path.write_text(client_of(alice).get("/api/v1/wallets/me/proof/").content.decode())
        return path

    def test_given_an_owners_proof_when_checking_it_then_it_is_sound(self, tmp_path):
        checked = verifier("--proof", self.proof(tmp_path), PUBLIC_KEY, public_key())
        assert checked.returncode == 0
        assert "checkpoint 2" in checked.stdout
        assert "and so all before it: sound" in checked.stdout

    @pytest.mark.parametrize(
        ("member", "value"), [("entry_count", 99), ("seal", "00" * 32), ("siblings", [])]
    )
    def test_given_a_changed_proof_when_checking_it_then_it_is_named(self, tmp_path, member, value):
        path = self.proof(tmp_path)
        path.write_text(json.dumps({**json.loads(path.read_text()), member: value}))
        checked = verifier("--proof", path)
        assert checked.returncode == 1
        assert "its proof leads to" in checked.stdout

    def test_given_a_changed_checkpoint_when_checking_the_proof_then_it_is_named(self, tmp_path):
        path = self.proof(tmp_path)
        proof = json.loads(path.read_text())
        proof["checkpoint"]["payload"] = proof["checkpoint"]["payload"].replace("2026", "2027")
        path.write_text(json.dumps(proof))
        assert "its signature is wrong" in verifier("--proof", path).stdout


class TestVerifierAlone:
    def test_given_its_source_when_reading_the_imports_then_all_are_pythons_own(self):
        tree = ast.parse(VERIFIER.read_text())
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names

    # RFC 8032, section 7.1.
    @pytest.mark.parametrize(
        ("key", "message", "signature"),
        [
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ],
    )
    def test_given_the_vectors_of_the_standard_when_checking_then_they_are_right(
        self, key, message, signature
    ):
        key, message, signature = (bytes.fromhex(text) for text in (key, message, signature))
        assert verify_export.is_signed(key, signature, message)
        assert not verify_export.is_signed(key, signature, message + b"x")
        assert not verify_export.is_signed(key, signature[:32] + bytes(32), message)

    def test_given_signatures_when_checking_then_it_agrees_with_another_implementation(self):
        chosen = random.Random(7)
        for _ in range(20):
            private = Ed25519PrivateKey.from_private_bytes(chosen.randbytes(32))
            key = private.public_key().public_bytes_raw()
            message = chosen.randbytes(chosen.randrange(100))
            signature = private.sign(message)
            assert verify_export.is_signed(key, signature, message)
            broken = bytearray(signature)
            broken[chosen.randrange(64)] ^= 1 << chosen.randrange(8)
            assert not verify_export.is_signed(key, bytes(broken), message)

    @pytest.mark.parametrize(
        ("key", "signature"),
        [
            (b"", b""),
            (bytes(31), bytes(64)),
            (b"\xff" * 32, bytes(64)),
            (bytes(32), b"\xff" * 64),
            ((2).to_bytes(32, "little"), bytes(64)),
        ],
    )
    def test_given_what_is_no_key_or_signature_when_checking_then_it_is_not_right(
        self, key, signature
    ):
        assert not verify_export.is_signed(key, signature, b"message")

    def test_given_a_signature_with_a_larger_scalar_when_checking_then_refused(self):
        """s + L would pass a careless check: the same message would have two signatures."""
        private = Ed25519PrivateKey.generate()
        signature = private.sign(b"message")
        larger = int.from_bytes(signature[32:], "little") + verify_export._L
        forged = signature[:32] + larger.to_bytes(32, "little")
        key = private.public_key().public_bytes_raw()
        assert not verify_export.is_signed(key, forged, b"message")
