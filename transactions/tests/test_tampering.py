"""A superuser with every trigger off: whatever he changes is found and named, twice.

Once by `verify_ledger`, which trusts the program but not the data, and once by the stand-alone
verifier on an export, which trusts neither.
"""

import importlib
import re

import pytest
from django.core.management import CommandError, call_command

from transactions import checkpoints
from transactions.models import Transaction, TransactionLedger
from transactions.tests.helpers import breaches, client_of, fund, person, send
from transactions.tests.proofs import checkpoint, export, outside, tamper, verifier

pytestmark = pytest.mark.django_db(transaction=True)

SEAL_EVERYTHING = importlib.import_module("transactions.migrations.0004_seals").SEAL_WHAT_IS_THERE
NO_SEALS = "DELETE FROM transactions_ledgerseal"


class Scene:
    """Alice has five entries, the last one after the checkpoint; Bob and Carol have some."""

    def __init__(self) -> None:
        self.alice, self.bob, self.carol = person("100.00"), person("20.00"), person()
        self.ids = [
            send(self.alice, self.bob, "40.00").content["id"],
            send(self.bob, self.alice, "10.00").content["id"],
            send(self.alice, self.carol, "5.00").content["id"],
        ]
        self.outside = outside("3.00").pk
        checkpoint()

    @property
    def wallet(self) -> str:
        return str(self.alice.wallet.pk)

    def names(self) -> dict[str, str]:
        """What the statements and the findings below call things."""
        return {
            "alice": self.wallet,
            "bob": str(self.bob.wallet.pk),
            "carol": str(self.carol.wallet.pk),
            "first": self.ids[0],
            "second": self.ids[1],
            "third": self.ids[2],
            "outside": str(self.outside),
        }


@pytest.fixture
def scene():
    return Scene()


def in_the_ledger():
    return [str(breach) for breach in breaches()]


def in_the_export(folder):
    checked = verifier(export(folder))
    found = checked.stdout.splitlines()
    assert checked.returncode == (0 if found[-1].endswith("sound") else 1), checked.stderr
    beside = re.compile(r"The keys are those|\d+ of \d+ entries are signed")
    return [line for line in found[:-1] if not beside.match(line)]


ENTRY = "transactions_transactionledger"
OF_ALICE = "wallet_id = '{alice}' AND sequence ="

# What is done, what verify_ledger says about it, and what the verifier says.
TAMPERINGS = {
    "an amount": (
        [f"UPDATE {ENTRY} SET amount = 41 WHERE {OF_ALICE} 2"],
        "invariant 1: transaction {first}: 2 entries, debits 41.00, credits 40.00",
        "transaction {first}: debits 41.00 and credits 40.00 do not balance",
    ),
    "all amounts of one transaction": (
        [
            f"UPDATE {ENTRY} SET amount = 41 WHERE transaction_id = '{{first}}'",
            "UPDATE transactions_transaction SET amount = 41 WHERE id = '{first}'",
        ],
        "invariant 3: wallet {alice}, entry 2: balance 60.00 does not follow from 100.00",
        "wallet {alice}, entry 2: balance 60.00, should be 59.00",
    ),
    "a middle entry deleted": (
        [f"DELETE FROM {ENTRY} WHERE {OF_ALICE} 2"],
        "invariant 3: wallet {alice}, entry 3: there is no entry 2: entries are missing",
        "wallet {alice}: entry 2 is missing, later ones are there",
    ),
    "a middle transaction deleted": (
        [
            f"DELETE FROM {ENTRY} WHERE transaction_id = '{{second}}'",
            "DELETE FROM transactions_transaction WHERE id = '{second}'",
        ],
        "invariant 3: wallet {alice}, entry 4: there is no entry 3: entries are missing",
        "wallet {alice}: entry 3 is missing, later ones are there",
    ),
    "the newest entry deleted": (
        [f"DELETE FROM {ENTRY} WHERE {OF_ALICE} 4"],
        "invariant 3: wallet {alice}: counts 4 entries, its newest is number 3",
        "wallet {alice}: says balance 65.00 after 4 entries; its entries say 70.00 after 3",
    ),
    "two entries swapped": (
        [
            f"UPDATE {ENTRY} SET sequence = 99 WHERE {OF_ALICE} 2",
            f"UPDATE {ENTRY} SET sequence = 2 WHERE {OF_ALICE} 3",
            f"UPDATE {ENTRY} SET sequence = 3 WHERE {OF_ALICE} 99",
        ],
        "invariant 7: wallet {alice}, entry 2: its seal does not fit",
        "wallet {alice}, entry 2: its seal does not fit",
    ),
    "two entries swapped, their balances made to fit": (
        [
            f"UPDATE {ENTRY} SET sequence = 99 WHERE {OF_ALICE} 2",
            f"UPDATE {ENTRY} SET sequence = 2, balance_after = 110 WHERE {OF_ALICE} 3",
            f"UPDATE {ENTRY} SET sequence = 3, balance_after = 70 WHERE {OF_ALICE} 99",
        ],
        "invariant 7: wallet {alice}, entry 2: its seal does not fit",
        "wallet {alice}, entry 2: its seal does not fit",
    ),
    "the time of everything": (
        [
            f"UPDATE {ENTRY} SET created_at = created_at - interval '1 year'",
            "UPDATE transactions_transaction SET created_at = created_at - interval '1 year',"
            " completed_at = completed_at - interval '1 year'",
            "UPDATE wallet_wallet SET last_entry_at = last_entry_at - interval '1 year'",
        ],
        "invariant 7: wallet {alice}, entry 1: its seal does not fit",
        "wallet {alice}, entry 1: its seal does not fit",
    ),
    "a balanced pair forged into a transaction": (
        [
            f"INSERT INTO {ENTRY} (id, transaction_id, account, entry_type, amount, currency,"
            " created_at) SELECT gen_random_uuid(), id, 'fees', side, 1, currency, created_at"
            " FROM transactions_transaction, (VALUES ('debit'), ('credit')) sides (side)"
            " WHERE id = '{second}'"
        ],
        "invariant 7: wallet {alice}, entry 3: its seal does not fit",
        "wallet {alice}, entry 3: its seal does not fit",
    ),
    "a whole deposit forged": (
        [
            "INSERT INTO transactions_transaction (id, reference_id, type, status, amount,"
            " currency, fee, refunded_amount, to_user_id, description, metadata, created_at,"
            " completed_at) SELECT '01990000-0000-7000-8000-000000000001', 'TX-FORGED', 'deposit',"
            " 'completed', 5, 'USD', 0, 0, user_id, '', '{{}}', last_entry_at, last_entry_at"
            " FROM wallet_wallet WHERE id = '{alice}'",
            f"INSERT INTO {ENTRY} (id, transaction_id, account, wallet_id, sequence, entry_type,"
            " amount, currency, balance_after, created_at)"
            " SELECT gen_random_uuid(), '01990000-0000-7000-8000-000000000001', side.account,"
            " side.wallet, side.sequence, side.entry_type, 5, 'USD', side.balance, last_entry_at"
            " FROM wallet_wallet, (VALUES ('gateway_clearing', NULL, NULL, 'debit', NULL),"
            " ('wallet', '{alice}'::uuid, 5, 'credit', 70))"
            " side (account, wallet, sequence, entry_type, balance) WHERE id = '{alice}'",
            "UPDATE wallet_wallet SET balance = 70, entry_count = 5 WHERE id = '{alice}'",
        ],
        "invariant 7: wallet {alice}, entry 5: has no seal",
        "wallet {alice}, entry 5: its seal does not fit",
    ),
    "a balance": (
        ["UPDATE wallet_wallet SET balance = 1000 WHERE id = '{alice}'"],
        "invariant 3: wallet {alice}: balance 1000.00, its newest entry says 65.00",
        "wallet {alice}: says balance 1000.00 after 4 entries; its entries say 65.00 after 4",
    ),
    "a balance and what the newest entry says": (
        [
            "UPDATE wallet_wallet SET balance = 1000 WHERE id = '{alice}'",
            f"UPDATE {ENTRY} SET balance_after = 1000 WHERE {OF_ALICE} 4",
        ],
        "invariant 3: wallet {alice}, entry 4: balance 1000.00 does not follow from 70.00",
        "wallet {alice}, entry 4: balance 1000.00, should be 65.00",
    ),
    "a description": (
        ["UPDATE transactions_transaction SET description = 'rent' WHERE id = '{first}'"],
        "invariant 7: wallet {bob}, entry 2: its seal does not fit",
        "wallet {bob}, entry 2: its seal does not fit",
    ),
    "metadata": (
        ["UPDATE transactions_transaction SET metadata = '{{\"a\": \"b\"}}' WHERE id = '{third}'"],
        "invariant 7: wallet {carol}, entry 1: its seal does not fit",
        "wallet {carol}, entry 1: its seal does not fit",
    ),
    "a cause": (
        [
            "UPDATE transactions_transaction SET effect_key = 'other' WHERE to_user_id IS NOT NULL"
            " AND from_user_id IS NULL AND amount = 20"
        ],
        "invariant 7: wallet {bob}, entry 1: its seal does not fit",
        "wallet {bob}, entry 1: its seal does not fit",
    ),
    "who paid": (
        ["UPDATE transactions_transaction SET from_user_id = NULL WHERE id = '{third}'"],
        "invariant 2: wallet {alice}, entry 4: its owner is not a party to transaction {third}",
        "wallet {alice}, entry 4: its seal does not fit",
    ),
    "the account of the outside": (
        [f"UPDATE {ENTRY} SET account = 'fees' WHERE account = 'gateway_clearing'"],
        "invariant 7: wallet {alice}, entry 1: its seal does not fit",
        "wallet {alice}, entry 1: its seal does not fit",
    ),
    "a transaction outside all wallets": (
        ["UPDATE transactions_transaction SET description = 'x' WHERE id = '{outside}'"],
        "invariant 7: transaction {outside}: its seal does not fit",
        "transactions outside all wallets, entry 1: its seal does not fit",
    ),
    "a transaction outside all wallets deleted": (
        [
            f"DELETE FROM {ENTRY} WHERE transaction_id = '{{outside}}'",
            "DELETE FROM transactions_transaction WHERE id = '{outside}'",
            "DELETE FROM transactions_outsideseal",
        ],
        "invariant 7: transactions outside all wallets: checkpoint 1 signed 1 entries, and that",
        "transactions outside all wallets: checkpoint 1 signed 1 entries, and that one is gone",
    ),
    "a seal": (
        ["UPDATE transactions_ledgerseal SET seal = sha256('') WHERE " + OF_ALICE + " 2"],
        "invariant 7: wallet {alice}, entry 3: its seal does not fit",
        "wallet {alice}, entry 3: its seal does not fit",
    ),
    "a seal deleted": (
        ["DELETE FROM transactions_ledgerseal WHERE " + OF_ALICE + " 4"],
        "invariant 7: wallet {alice}: has 3 seals and 4 entries",
        "wallet {alice}, entry 4: its seal does not fit",
    ),
    "a refund that was not": (
        ["UPDATE transactions_transaction SET refunded_amount = 40 WHERE id = '{first}'"],
        "invariant 4: transaction {first}: what was refunded is not the sum of the refunds",
        "transaction {first}: its refunds are not what it says",
    ),
    "a wallet deleted": (
        ["DELETE FROM wallet_wallet WHERE id = '{carol}'"],
        "invariant 2: wallet {carol}, entry 1: its wallet is gone",
        "wallet {carol}: has entries, but is not in the export",
    ),
    "a checkpoint": (
        ["UPDATE transactions_ledgercheckpoint SET payload = replace(payload, '2026', '2027')"],
        "invariant 7: checkpoint 1: is not what was signed",
        "checkpoint 1: its signature is wrong",
    ),
    "what a checkpoint counts": (
        ["UPDATE transactions_checkpointleaf SET entry_count = 3 WHERE wallet_id = '{alice}'"],
        "invariant 7: wallet {alice}: its first 3 entries are not those that checkpoint 1 signed",
        "wallet {alice}, entry 3: checkpoint 1 signed another seal: history was rewritten",
    ),
    "a leaf deleted": (
        ["DELETE FROM transactions_checkpointleaf WHERE wallet_id = '{alice}'"],
        "invariant 7: checkpoint 1: signed root",
        "checkpoint 1: signed root",
    ),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_given_a_superuser_who_changes_it_when_verifying_then_it_is_named_twice(
    scene, owner, tmp_path, kind
):
    statements, in_ledger, in_export = TAMPERINGS[kind]
    assert in_the_ledger() == []
    assert in_the_export(tmp_path) == []
    tamper(owner, *[statement.format(**scene.names()) for statement in statements])
    assert any(line.startswith(in_ledger.format(**scene.names())) for line in in_the_ledger())
    assert any(
        line.startswith(in_export.format(**scene.names())) for line in in_the_export(tmp_path)
    )


class TestOnlyTheCheckpointTells:
    """Everything made to fit, seals included: without a checkpoint nobody could know."""

    def cut_the_tail(self, owner, scene):
        """The transfer to Carol never was: entries, seals, balances, counts and times agree."""
        tamper(
            owner,
            "DELETE FROM transactions_ledgerseal seal USING transactions_transactionledger entry"
            " WHERE seal.wallet_id = entry.wallet_id AND seal.sequence = entry.sequence"
            f" AND entry.transaction_id = '{scene.ids[2]}'",
            f"DELETE FROM {ENTRY} WHERE transaction_id = '{scene.ids[2]}'",
            f"DELETE FROM transactions_transaction WHERE id = '{scene.ids[2]}'",
            "UPDATE wallet_wallet SET (balance, entry_count, last_entry_at) ="
            " (SELECT coalesce(max(balance_after) FILTER (WHERE sequence = n.last), 0),"
            "  coalesce(max(sequence), 0), max(created_at) FROM transactions_transactionledger,"
            "  (SELECT max(sequence) AS last FROM transactions_transactionledger"
            "    WHERE wallet_id = wallet_wallet.id) n WHERE wallet_id = wallet_wallet.id)",
        )

    def test_given_a_cut_tail_when_verifying_then_the_checkpoint_tells(
        self, scene, owner, tmp_path
    ):
        self.cut_the_tail(owner, scene)
        cut = "checkpoint 1 signed {} entries, and that one is gone: a tail was cut"
        expected = {
            f"wallet {scene.wallet}: {cut.format(4)}",
            f"wallet {scene.carol.wallet.pk}: {cut.format(1)}",
        }
        assert set(in_the_ledger()) == {f"invariant 7: {line}" for line in expected}
        assert set(in_the_export(tmp_path)) == expected

    def test_given_a_cut_tail_that_grows_again_when_verifying_then_the_checkpoint_tells(
        self, scene, owner, tmp_path
    ):
        self.cut_the_tail(owner, scene)
        send(scene.alice, scene.carol, "4.00")
        assert any("history was rewritten" in line for line in in_the_ledger())
        assert any("history was rewritten" in line for line in in_the_export(tmp_path))

    def rewrite(self, owner, scene):
        """Alice's first deposit was 1000.00, and ever since she had so much more."""
        first = TransactionLedger.objects.get(wallet=scene.alice.wallet, sequence=1)
        tamper(
            owner,
            f"UPDATE {ENTRY} SET amount = 1000 WHERE transaction_id = '{first.transaction_id}'",
            "UPDATE transactions_transaction SET amount = 1000"
            f" WHERE id = '{first.transaction_id}'",
            f"UPDATE {ENTRY} SET balance_after = balance_after + 900"
            f" WHERE wallet_id = '{scene.wallet}'",
            f"UPDATE wallet_wallet SET balance = balance + 900 WHERE id = '{scene.wallet}'",
            NO_SEALS,
            "DELETE FROM transactions_outsideseal",
            SEAL_EVERYTHING,
        )

    def test_given_a_rewritten_history_when_verifying_then_the_checkpoint_tells(
        self, scene, owner, tmp_path
    ):
        self.rewrite(owner, scene)
        # Bob's and Carol's seals cover the transactions that they share with Alice.
        rewritten = {scene.alice: 4, scene.bob: 3, scene.carol: 1}
        assert set(in_the_ledger()) == {
            f"invariant 7: wallet {user.wallet.pk}: its first {count} entries are not those that"
            " checkpoint 1 signed: history was rewritten"
            for user, count in rewritten.items()
        }
        assert set(in_the_export(tmp_path)) == {
            f"wallet {user.wallet.pk}, entry {count}: checkpoint 1 signed another seal:"
            " history was rewritten"
            for user, count in rewritten.items()
        }

    def test_given_rewritten_leaves_too_when_verifying_then_the_signed_root_tells(
        self, scene, owner, tmp_path
    ):
        self.rewrite(owner, scene)
        tamper(
            owner,
            "UPDATE transactions_checkpointleaf leaf SET seal = now.seal"
            " FROM transactions_ledgerseal now"
            " WHERE now.wallet_id = leaf.wallet_id AND now.sequence = leaf.entry_count",
        )
        assert any("checkpoint 1: signed root" in line for line in in_the_ledger())
        assert any("checkpoint 1: signed root" in line for line in in_the_export(tmp_path))
        fund(scene.alice, "1.00")
        with pytest.raises(checkpoints.CheckpointRefused):
            checkpoints.take()

    def test_given_no_checkpoint_kept_outside_when_they_are_gone_too_then_nobody_can_tell(
        self, scene, owner, tmp_path
    ):
        """What the proof cannot do; whoever kept a copy outside still can."""
        page = client_of(scene.alice).get("/api/v1/transactions/checkpoints/").content
        kept = tmp_path / "kept.json"
        kept.write_bytes(page)
        self.rewrite(owner, scene)
        tamper(
            owner,
            "DELETE FROM transactions_ledgercheckpoint",
            "DELETE FROM transactions_checkpointleaf",
            "DELETE FROM transactions_checkpointnode",
        )
        assert in_the_ledger() == []
        assert in_the_export(tmp_path) == []
        found = verifier(export(tmp_path), "--checkpoint", kept)
        assert "checkpoint 1: is not the one that you kept" in found.stdout


def test_given_an_old_head_that_the_newest_checkpoint_hides_when_verifying_then_it_is_named(
    scene, owner, tmp_path
):
    """Rewritten, and then signed again with the real key: the older checkpoint's root tells."""
    fund(scene.alice, "1.00")
    TestOnlyTheCheckpointTells().rewrite(owner, scene)
    tamper(
        owner,
        "UPDATE transactions_checkpointleaf leaf SET seal = now.seal"
        " FROM transactions_ledgerseal now"
        " WHERE now.wallet_id = leaf.wallet_id AND now.sequence = leaf.entry_count",
    )
    found = in_the_export(tmp_path)
    assert [line.split(",")[0] for line in found] == [found[0].split(",")[0]]
    assert found[0].startswith("checkpoint 1: signed root")


def test_given_a_breach_when_running_the_command_then_it_exits_1_and_names_it(scene, owner, capsys):
    tamper(owner, f"UPDATE wallet_wallet SET balance = 6 WHERE id = '{scene.wallet}'")
    with pytest.raises(CommandError, match="breaches found") as failure:
        call_command("verify_ledger", "--no-progress")
    assert failure.value.returncode == 1
    assert f"invariant 3: wallet {scene.wallet}: balance 6.00" in capsys.readouterr().err
    assert Transaction.objects.exists()
