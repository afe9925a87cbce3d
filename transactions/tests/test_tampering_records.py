"""A superuser with every trigger off: what he changes in batches, adjustments, refunds is named."""

from dataclasses import replace
from decimal import Decimal

import pytest

from transactions.models import Adjustment, TransactionLedger, TransferBatch
from transactions.serializers import present_batch
from transactions.services import Batch, Proposal, TransactionService, Transfer
from transactions.tests.helpers import breaches, call_by, person, refund, send
from transactions.tests.proofs import tamper
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db(transaction=True)

POWERS = ["transactions.propose_adjustment", "transactions.approve_adjustment"]


def batch(sender, mode, *legs):
    """As a view makes it; each leg is a recipient and an amount."""
    transfers = [Transfer(str(to.pk), Decimal(amount), "USD") for to, amount in legs]
    answer = TransactionService.transfer_batch(
        sender=sender,
        batch=Batch(mode, transfers),
        idempotency=replace(call_by(sender), present=present_batch),
    )
    return TransferBatch.objects.get(pk=answer.content["id"])


class Scene:
    """Alice's batches: three legs or nothing, and two of which only the first went through."""

    def __init__(self) -> None:
        self.alice, self.bob, self.carol = person("100.00"), person(), person()
        self.whole = batch(
            self.alice,
            TransferBatch.Mode.ATOMIC,
            (self.bob, "1.00"),
            (self.carol, "2.00"),
            (self.bob, "3.00"),
        )
        self.partial = batch(
            self.alice,
            TransferBatch.Mode.INDEPENDENT,
            (self.bob, "4.00"),
            (self.carol, "4000.00"),
        )
        self.other = send(self.bob, self.carol, "0.50").content["id"]

    def names(self) -> dict[str, str]:
        return {
            "whole": str(self.whole.pk),
            "partial": str(self.partial.pk),
            "carol": str(self.carol.pk),
            "other": self.other,
        }


LEG = "transactions_transferbatchleg"
ADJUSTMENT = "transactions_adjustment"
BATCH = "transactions_transferbatch"
TABLES = [LEG, BATCH, ADJUSTMENT]

# What is done, and what verify_ledger says about it.
TAMPERINGS = {
    "a leg deleted": (
        f"DELETE FROM {LEG} WHERE batch_id = '{{whole}}' AND index = 1",
        "invariant 5: batch {whole}: 2 legs, 2 of them moved 4.00, it says 3, 3 and 6.00",
    ),
    "the last leg deleted, and counted out": (
        f"DELETE FROM {LEG} WHERE batch_id = '{{whole}}' AND index = 2;"
        f"UPDATE {BATCH} SET count = 2, succeeded = 2 WHERE id = '{{whole}}'",
        "invariant 5: batch {whole}: 2 legs, 2 of them moved 3.00, it says 2, 2 and 6.00",
    ),
    "a leg renumbered": (
        f"UPDATE {LEG} SET index = 7 WHERE batch_id = '{{whole}}' AND index = 0",
        "invariant 5: batch {whole}: its legs are numbered from 1 to 7",
    ),
    "a total": (
        f"UPDATE {BATCH} SET total = 7 WHERE id = '{{whole}}'",
        "invariant 5: batch {whole}: 3 legs, 3 of them moved 6.00, it says 3, 3 and 7.00",
    ),
    "a count of failures": (
        f"UPDATE {BATCH} SET failed = 1 WHERE id = '{{whole}}'",
        "invariant 5: batch {whole}: is completed with 3 that succeeded and 1 that failed, of 3",
    ),
    "a status": (
        f"UPDATE {BATCH} SET status = 'completed' WHERE id = '{{partial}}'",
        "invariant 5: batch {partial}: is completed with 1 that succeeded and 1 that failed, of 2",
    ),
    "an atomic batch that failed in part": (
        f"UPDATE {BATCH} SET mode = 'atomic' WHERE id = '{{partial}}'",
        "invariant 5: batch {partial}: is atomic, and 1 of its legs failed",
    ),
    "a leg that never went through": (
        f"UPDATE {LEG} SET transaction_id = '{{other}}', error_code = ''"
        " WHERE batch_id = '{partial}' AND index = 1;"
        f"UPDATE {BATCH} SET succeeded = 2, failed = 0, status = 'completed', total = 4.5"
        " WHERE id = '{partial}'",
        "invariant 5: batch {partial}, leg 1: transaction {other} is no transfer of its sender",
    ),
    "a leg that points nowhere": (
        f"UPDATE {LEG} SET transaction_id = '01990000-0000-7000-8000-000000000001'"
        " WHERE batch_id = '{whole}' AND index = 0",
        "invariant 5: batch {whole}, leg 0: transaction 01990000-0000-7000-8000-000000000001 is no",
    ),
    "two legs of one transfer": (
        f"UPDATE {LEG} one SET transaction_id = other.transaction_id FROM {LEG} other"
        " WHERE one.batch_id = '{whole}' AND one.index = 0"
        " AND other.batch_id = '{whole}' AND other.index = 1",
        "invariant 5: batch {whole}, leg 0: transaction",
    ),
    "a refusal that was none": (
        f"UPDATE {LEG} SET error_code = '' WHERE batch_id = '{{partial}}' AND index = 1",
        "invariant 5: batch {partial}, leg 1: it neither moved nor was refused, or both",
    ),
    "a sender": (
        f"UPDATE {BATCH} SET user_id = '{{carol}}' WHERE id = '{{whole}}'",
        "invariant 5: batch {whole}, leg 2: transaction",
    ),
    "a time": (
        f"UPDATE {BATCH} SET created_at = created_at - interval '1 s' WHERE id = '{{whole}}'",
        "invariant 5: batch {whole}, leg 2: transaction",
    ),
    "a batch deleted": (
        f"DELETE FROM {BATCH} WHERE id = '{{whole}}'",
        "invariant 5: batch {whole}, leg 2: its batch is gone",
    ),
}


@pytest.fixture
def unchecked(owner):
    """He has taken away the checks and the unique columns as well."""
    owner.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype IN ('c', 'u') AND conrelid = ANY(%s::regclass[])",
        [TABLES],
    )
    found = owner.fetchall()
    for table, name, _definition in found:
        owner.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    yield
    tamper(owner, *[f"DELETE FROM {table}" for table in TABLES])
    for table, name, definition in found:
        owner.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")


def of_rows(found):
    """Without what is said of the constraints that are gone."""
    lines = [str(breach) for breach in found]
    return [line for line in lines if ": constraint " not in line and ": key " not in line]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", TAMPERINGS)
def test_given_a_superuser_who_changes_a_batch_when_verifying_then_it_is_named(owner, kind):
    statement, expected = TAMPERINGS[kind]
    scene = Scene()
    assert of_rows(breaches()) == []
    tamper(owner, statement.format(**scene.names()))
    named = of_rows(breaches())
    assert any(line.startswith(expected.format(**scene.names())) for line in named), named


class TestAdjustments:
    def approved(self) -> Adjustment:
        alice = person("100.00")
        proposal = Proposal(
            wallet_id=alice.wallet.pk,
            direction=TransactionLedger.EntryType.CREDIT,
            amount=Decimal("5.00"),
            reason="Charged twice",
        )
        view = "transactions.view_adjustment"
        one, other = (StaffFactory(permissions=[view, *POWERS]) for _ in range(2))
        made = TransactionService.propose_adjustment(proposer=one, proposal=proposal)
        return TransactionService.approve_adjustment(approver=other, adjustment_id=made.pk)

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ("decided_by_id = proposed_by_id", "only one person decided about it"),
            (
                "proposed_by_id = (SELECT user_id FROM wallet_wallet WHERE id = wallet_id)",
                "somebody adjusted their own wallet",
            ),
            (
                "decided_by_id = (SELECT user_id FROM wallet_wallet WHERE id = wallet_id)",
                "somebody adjusted their own wallet",
            ),
            ("status = 'rejected'", "is rejected, its transaction is {transaction}"),
            ("transaction_id = NULL", "is approved, its transaction is none"),
            ("amount = 6", "transaction {transaction} does not do it"),
            ("direction = 'debit'", "transaction {transaction} does not do it"),
            (
                "wallet_id = (SELECT id FROM wallet_wallet WHERE id <> wallet_id LIMIT 1)",
                "transaction {transaction} does not do it",
            ),
        ],
    )
    def test_given_a_superuser_who_changes_one_when_verifying_then_it_is_named(
        self, owner, change, expected
    ):
        adjustment = self.approved()
        person()
        assert of_rows(breaches()) == []
        tamper(owner, f"UPDATE {ADJUSTMENT} SET {change}")
        detail = expected.format(transaction=adjustment.transaction_id)
        assert f"invariant 5: adjustment {adjustment.pk}: {detail}" in map(str, breaches())

    def test_given_one_that_is_gone_when_verifying_then_its_transaction_is_named(self, owner):
        adjustment = self.approved()
        tamper(owner, f"DELETE FROM {ADJUSTMENT}")
        named = f"invariant 5: transaction {adjustment.transaction_id}: nobody approved this"
        assert any(str(breach).startswith(named) for breach in breaches())

    def test_given_an_entry_moved_to_their_account_when_verifying_then_it_is_named(self, owner):
        person("100.00")
        tamper(
            owner,
            "UPDATE transactions_transactionledger SET account = 'adjustments'"
            " WHERE account = 'gateway_clearing'",
        )
        entry = TransactionLedger.objects.get(account="adjustments")
        assert f"invariant 5: entry {entry.pk}: nobody approved this adjustment" in map(
            str, breaches()
        )


class TestRefunds:
    def test_given_a_refund_of_another_payment_when_verifying_then_it_is_named(self, owner):
        alice, bob, carol = person("100.00"), person(), person("10.00")
        paid = send(alice, bob, "40.00").content["id"]
        other = send(carol, bob, "5.00").content["id"]
        made = refund(bob, paid, "5.00").content["id"]
        assert breaches() == []
        tamper(
            owner,
            f"UPDATE transactions_transaction SET parent_id = '{other}' WHERE id = '{made}'",
            f"UPDATE transactions_transaction SET refunded_amount = 0 WHERE id = '{paid}'",
            f"UPDATE transactions_transaction SET refunded_amount = 5 WHERE id = '{other}'",
        )
        named = f"invariant 5: transaction {made}: it does not undo the transaction that it names"
        assert named in map(str, breaches())
