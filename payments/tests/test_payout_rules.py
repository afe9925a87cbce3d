"""What PostgreSQL refuses of payouts, withdrawals, reversals and suspense, and what `verify_ledger`
finds where it could not. As the serving role, whose rights production has."""

from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction

from payments import payouts
from payments.models import Payout, SuspendedDeposit
from payments.tests.factories import PaymentIntentFactory, PayoutFactory, pay_out, settle
from transactions import posting
from transactions.models import Account, Transaction
from transactions.posting import Posting, post
from transactions.services import TransactionService, Withdrawal
from transactions.tests.helpers import breaches, close, person, refused_by
from transactions.tests.proofs import tamper
from users.tests.factories import StaffFactory
from wallet.locking import lock_wallets
from wallet.models import Wallet

pytestmark = pytest.mark.django_db(transaction=True)


def run(statement, **parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def update(row, **changes):
    with transaction.atomic():
        type(row).objects.filter(pk=row.pk).update(**changes)


def reverse(payout, **changes):
    """A reversal past the service."""
    wallet = lock_wallets(payout.wallet_id)[payout.wallet_id]
    facts = {
        "kind": Transaction.Type.REVERSAL,
        "debit": Account.PAYOUT_CLEARING,
        "credit": wallet,
        "amount": payout.amount,
        "currency": "USD",
        "parent": payout.transaction,
    }
    return post(Posting(**facts | changes))


def unsent():
    """A payout without a reference."""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(payouts, "ask", lambda _: "")
        return pay_out(person("100.00"))


def divert(monkeypatch):
    """From now on all but 1.00 of the side outside wallets is with `fees`."""
    enter = posting.Journal._enter_side

    def divided(journal, made, side, entry_type):
        enter(journal, made, side, entry_type)
        entry = journal._entries[-1]
        if "wallet_id" not in entry:
            rest = {**entry, "id": uuid4(), "account": Account.FEES, "amount": made.amount - 1}
            entry["amount"] = Decimal("1.00")
            journal._entries.append(rest)

    monkeypatch.setattr(posting.Journal, "_enter_side", divided)


class TestPayout:
    @pytest.mark.parametrize(
        "column", ["user_id", "wallet_id", "amount", "currency", "gateway", "iban", "created_at"]
    )
    def test_given_a_payout_when_its_terms_change_then_refused(self, column):
        payout, other = PayoutFactory(), PayoutFactory(amount="41.00")
        value = {"currency": "EUR", "gateway": "other"}.get(column, getattr(other, column))
        with refused_by("payments_payout_is_frozen"):
            update(payout, **{column: value})

    def test_given_an_account_in_the_clear_when_written_then_refused(self, owner):
        payout = PayoutFactory()
        owner.execute("ALTER TABLE payments_payout DISABLE TRIGGER payments_payout_guard")
        try:
            with refused_by("payments_payout_destination_is_encrypted"), transaction.atomic():
                run("UPDATE payments_payout SET iban = 'DE89' WHERE id = %(id)s", id=payout.pk)
        finally:
            owner.execute("ALTER TABLE payments_payout ENABLE TRIGGER payments_payout_guard")

    def test_given_a_reference_when_it_changes_then_refused(self):
        for value in ("sbx_other", None):
            with refused_by("payments_payout_reference_set_once"):
                update(PayoutFactory(), gateway_reference=value)

    def test_given_a_reference_of_the_gateways_when_said_to_be_named_by_staff_then_refused(self):
        for status in ("pending", "paid"):
            with refused_by("payments_payout_reference_set_once"):
                update(PayoutFactory(status=status), named_by_staff=True)

    def test_given_a_reference_that_staff_named_when_settled_then_it_stays(self):
        payout = unsent()
        update(payout, gateway_reference="sbx_a", named_by_staff=True)
        update(payout, gateway_reference="sbx_b")
        payout.refresh_from_db()
        settle(payout, "payout.paid")
        with refused_by("payments_payout_reference_set_once"):
            update(payout, gateway_reference="sbx_c")

    def test_given_a_first_question_when_it_is_moved_or_taken_back_then_refused(self):
        payout = PayoutFactory()
        assert payout.asked_at is not None
        for value in (payout.created_at, None):
            with refused_by("payments_payout_first_asked_once"):
                update(payout, asked_at=value)

    def test_given_a_second_question_when_it_is_taken_back_then_refused(self):
        payout = PayoutFactory()
        update(payout, asked_again=True)
        with refused_by("payments_payout_asked_again_for_good"):
            update(payout, asked_again=False)

    def test_given_a_pending_one_when_it_claims_to_be_paid_then_refused(self):
        payout = PayoutFactory()
        with refused_by("payments_payout_agrees_with_its_withdrawal"):
            update(payout, status="paid", completed_at=payout.created_at, next_poll_at=None)

    def test_given_somebody_elses_reversal_when_claimed_then_refused(self):
        payout, other = PayoutFactory(), PayoutFactory(status="failed")
        with refused_by("payments_payout_reversal_is_its_own"):
            update(
                payout,
                status="failed",
                completed_at=payout.created_at,
                failure_code="x",
                reversal=other.reversal,
                next_poll_at=None,
            )

    @pytest.mark.parametrize("status", ["paid", "failed"])
    def test_given_a_settled_one_when_it_changes_then_refused(self, status):
        payout = PayoutFactory(status=status)
        with refused_by("payments_payout_settled_once"):
            update(payout, status="pending")
        with refused_by("payments_payout_settled_once"):
            update(payout, completed_at=payout.created_at)

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            ({"next_poll_at": None}, "payments_payout_asked_about_while_pending"),
            ({"failure_code": "x"}, "payments_payout_failed_iff_reversed"),
        ],
    )
    def test_given_a_pending_one_when_half_settled_then_refused(self, changes, rule):
        with refused_by(rule):
            update(PayoutFactory(), **changes)

    def test_given_a_second_payout_when_it_claims_a_withdrawal_then_refused(self):
        payout = PayoutFactory()
        for facts in ({"status": "paid"}, {}):
            names = {"status": "payments_payout_begins_pending"}
            rule = names.get("".join(facts), "payments_payout_withdrawal_is_its_own")
            with refused_by(rule), transaction.atomic():
                Payout.objects.create(
                    user=payout.user,
                    wallet=payout.wallet,
                    amount=payout.amount,
                    currency="USD",
                    gateway="sandbox",
                    iban="x",
                    holder="x",
                    transaction=payout.transaction,
                    next_poll_at=payout.created_at,
                    **facts,
                )

    @pytest.mark.parametrize("table", ["payments_payout", "payments_suspendeddeposit"])
    def test_given_rows_when_removed_then_refused(self, owner, table):
        PayoutFactory()
        suspended()
        for verb in ("DELETE FROM", "TRUNCATE"):
            with pytest.raises(DatabaseError, match="permission denied"):
                run(f"{verb} {table}")
        with pytest.raises(Exception, match="is never deleted"):
            owner.execute(f"DELETE FROM {table}")
        with pytest.raises(Exception, match="is never deleted"):
            owner.execute(f"TRUNCATE {table} CASCADE")


class TestWithdrawal:
    def test_given_no_payout_when_money_is_withdrawn_then_refused(self):
        asked = Withdrawal(amount=Decimal("1.00"), currency="USD", effect_key="payout:none")
        with refused_by("transactions_transaction_withdrawal_has_its_payout"):
            TransactionService.withdraw(owner=person("5.00"), withdrawal=asked)

    @pytest.mark.parametrize(
        "changes",
        [{"credit": Account.SUSPENSE}, {"status": Transaction.Status.COMPLETED}],
    )
    def test_given_another_account_or_no_wait_when_withdrawn_then_refused(self, changes):
        alice = person("5.00")
        facts = {
            "kind": Transaction.Type.WITHDRAWAL,
            "status": Transaction.Status.PENDING,
            "credit": Account.PAYOUT_CLEARING,
            "amount": Decimal("1.00"),
            "currency": "USD",
        }
        with refused_by("transactions_transaction_withdrawal_fits"), transaction.atomic():
            wallet = lock_wallets(alice.wallet.pk)[alice.wallet.pk]
            post(Posting(debit=wallet, **facts | changes))

    def test_given_a_part_that_goes_elsewhere_when_withdrawn_then_refused(self, monkeypatch):
        alice = person("5.00")
        divert(monkeypatch)
        with refused_by("transactions_transaction_withdrawal_fits"):
            pay_out(alice, "2.00")
        assert breaches() == []

    def test_given_a_pending_one_when_it_fails_alone_then_refused(self):
        payout = PayoutFactory()
        with refused_by("transactions_transaction_withdrawal_has_its_payout"):
            update(payout.transaction, status="failed")

    def test_given_a_pending_one_when_completed_alone_or_at_another_time_then_refused(self):
        payout = PayoutFactory()
        run_at = (
            "UPDATE transactions_transaction SET status = 'completed', completed_at = {}"
            " WHERE id = %(id)s"
        )
        with refused_by("transactions_transaction_withdrawal_has_its_payout"):
            run(run_at.format("clock_timestamp()"), id=payout.transaction_id)
        for moment in ("clock_timestamp() + interval '1 day'", "created_at"):
            with refused_by("transactions_transaction_completes_now"):
                run(run_at.format(moment), id=payout.transaction_id)

    @pytest.mark.parametrize("status", ["paid", "failed"])
    def test_given_a_settled_one_when_it_changes_then_refused(self, status):
        payout = PayoutFactory(status=status)
        with refused_by("transactions_transaction_status_forward"):
            update(payout.transaction, status="pending", completed_at=None)

    def test_given_a_wallet_when_closed_before_its_withdrawal_settles_then_refused(self):
        payout = PayoutFactory(amount="100.00")
        with refused_by("wallet_wallet_closes_when_settled"), transaction.atomic():
            Wallet.objects.filter(pk=payout.wallet_id).update(status="closed")


class TestReversal:
    def test_given_no_rule_of_payouts_when_a_withdrawal_fails_without_its_money_then_refused(
        self, owner
    ):
        """The ledger itself insists, whatever the app beside it has forgotten."""
        payout = PayoutFactory()
        other = "transactions_transaction_withdrawal_has_its_payout"
        owner.execute(f"ALTER TABLE transactions_transaction DISABLE TRIGGER {other}")
        try:
            with refused_by("transactions_transaction_withdrawal_undone"):
                run(
                    "UPDATE transactions_transaction SET status = 'failed' WHERE id = %(id)s",
                    id=payout.transaction_id,
                )
        finally:
            owner.execute(f"ALTER TABLE transactions_transaction ENABLE TRIGGER {other}")

    def test_given_a_failed_withdrawal_when_undone_again_then_refused(self):
        payout = PayoutFactory(status="failed")
        with refused_by("transactions_transaction_undone_once"), transaction.atomic():
            reverse(payout)

    @pytest.mark.parametrize("status", ["pending", "paid"])
    def test_given_a_withdrawal_that_did_not_fail_when_undone_then_refused(self, status):
        payout = PayoutFactory(status=status)
        with refused_by("transactions_transaction_undoes_its_parent"), transaction.atomic():
            reverse(payout)

    @pytest.mark.parametrize(
        "changes",
        [
            {"amount": Decimal("39.99")},
            {"amount": Decimal("40.01")},
            {"debit": Account.GATEWAY_CLEARING},
            {"parent": None},
            {"credit": "another"},
            {"credit": Account.SUSPENSE},
        ],
    )
    def test_given_a_failing_one_when_undone_otherwise_then_refused(self, changes):
        payout = PayoutFactory()
        with refused_by("transactions_transaction_undoes_its_parent"), transaction.atomic():
            if changes.get("credit") == "another":
                other = person().wallet.pk
                changes = {"credit": lock_wallets(other)[other]}
            reverse(payout, **changes)
            Transaction.objects.filter(pk=payout.transaction_id).update(status="failed")
        assert breaches() == []

    def test_given_a_failing_one_when_only_a_part_comes_from_clearing_then_refused(
        self, monkeypatch
    ):
        payout = PayoutFactory()
        divert(monkeypatch)
        with refused_by("transactions_transaction_undoes_its_parent"), transaction.atomic():
            reverse(payout)
            Transaction.objects.filter(pk=payout.transaction_id).update(status="failed")
        assert breaches() == []

    def test_given_a_deposit_when_undone_then_refused(self):
        alice = person("5.00")
        made = Transaction.objects.get(to_user=alice)
        with refused_by("transactions_transaction_undoes_its_parent"), transaction.atomic():
            wallet = lock_wallets(alice.wallet.pk)[alice.wallet.pk]
            post(
                Posting(
                    kind=Transaction.Type.REVERSAL,
                    debit=wallet,
                    credit=Account.GATEWAY_CLEARING,
                    amount=made.amount,
                    currency="USD",
                    parent=made,
                )
            )

    def test_given_a_withdrawal_when_it_fails_without_its_reversal_then_refused(self):
        payout = PayoutFactory()
        with refused_by("transactions_transaction_withdrawal_has_its_payout"), transaction.atomic():
            run(
                "UPDATE transactions_transaction SET status = 'failed' WHERE id = %(id)s",
                id=payout.transaction_id,
            )


def suspended():
    intent = PaymentIntentFactory()
    close(intent.user)
    settle(intent)
    return SuspendedDeposit.objects.get(intent=intent)


class TestSuspense:
    def test_given_an_open_wallet_when_its_money_is_suspended_then_refused(self):
        intent = PaymentIntentFactory()
        with refused_by("payments_suspense_is_the_intents"), transaction.atomic():
            made = TransactionService.suspend_money(
                amount=intent.amount, currency="USD", effect_key=f"payment_intent:{intent.pk}"
            )
            SuspendedDeposit.objects.create(intent=intent, transaction=made)

    def test_given_an_intent_when_credited_to_nobody_without_a_record_then_refused(self):
        intent = PaymentIntentFactory()
        with refused_by("payments_paymentintent_credit_is_its_own"), transaction.atomic():
            made = TransactionService.suspend_money(
                amount=intent.amount, currency="USD", effect_key=f"payment_intent:{intent.pk}"
            )
            update(intent, status="succeeded", transaction=made)

    @pytest.mark.parametrize(
        ("debit", "credit"),
        [
            (Account.GATEWAY_CLEARING, Account.FEES),
            (Account.PAYOUT_CLEARING, Account.SUSPENSE),
            (Account.SUSPENSE, Account.GATEWAY_CLEARING),
        ],
    )
    def test_given_a_deposit_for_nobody_when_not_to_suspense_then_refused(self, debit, credit):
        with refused_by("transactions_transaction_moves_its_parties"), transaction.atomic():
            post(
                Posting(
                    kind=Transaction.Type.DEPOSIT,
                    debit=debit,
                    credit=credit,
                    amount=Decimal("1.00"),
                    currency="USD",
                )
            )

    def test_given_one_when_resolved_by_its_owner_or_without_a_note_then_refused(self):
        one = suspended()
        facts = {"status": "resolved", "note": "Sent back.", "resolved_at": one.created_at}
        with refused_by("payments_suspense_not_ones_own"):
            update(one, **facts, resolved_by=one.intent.user)
        with refused_by("payments_suspense_resolved_means_by_whom_and_how"):
            update(one, **facts | {"note": " "}, resolved_by=StaffFactory())
        with refused_by("payments_suspense_is_frozen"):
            update(one, created_at=one.intent.created_at)
        update(one, **facts, resolved_by=StaffFactory())
        with refused_by("payments_suspense_resolved_once"):
            update(one, note="Otherwise.")

    @pytest.mark.parametrize(
        ("before", "claimed"), [("requires_payment", "expired"), ("expired", "failed")]
    )
    def test_given_an_intent_when_it_says_wrongly_that_it_was_late_then_refused(
        self, before, claimed
    ):
        intent = PaymentIntentFactory(status=before)
        with (
            refused_by("payments_paymentintent_late_after_what_it_was"),
            transaction.atomic(),
        ):
            made = TransactionService.add_money(
                wallet_id=intent.wallet_id,
                amount=intent.amount,
                currency="USD",
                effect_key=f"payment_intent:{intent.pk}",
            )
            update(intent, status="succeeded", transaction=made, late_after=claimed)


# All but 1.00 of what an entry moves is moved by another one, of `fees`.
PART_OF_IT = "UPDATE transactions_transactionledger SET amount = 1"
THE_REST = """
INSERT INTO transactions_transactionledger
       (id, transaction_id, account, entry_type, amount, currency, created_at)
SELECT gen_random_uuid(), transaction_id, 'fees', entry_type, 39, currency, created_at
  FROM transactions_transactionledger"""


class TestVerification:
    """With every trigger off, as a superuser can: what is then found."""

    @pytest.mark.parametrize(
        ("status", "statement", "found"),
        [
            (
                "failed",
                "UPDATE transactions_transaction SET status = 'pending' WHERE type = 'withdrawal'",
                "it is pending and has 1 reversals",
            ),
            (
                "pending",
                "UPDATE transactions_transaction SET status = 'failed' WHERE type = 'withdrawal'",
                "it is failed and has 0 reversals",
            ),
            (
                "failed",
                "UPDATE transactions_transaction SET parent_id = NULL WHERE type = 'reversal'",
                "it does not undo the transaction that it names",
            ),
            (
                "pending",
                "DELETE FROM payments_payout",
                "there is no payout for it",
            ),
            (
                "paid",
                "UPDATE payments_payout SET status = 'pending', completed_at = NULL,"
                " next_poll_at = now()",
                "is pending, its withdrawal completed",
            ),
            (
                "pending",
                "UPDATE payments_payout SET amount = 39",
                "is not its withdrawal",
            ),
            (
                "failed",
                "UPDATE payments_payout SET reversal_id = transaction_id WHERE status = 'failed'",
                "is not its reversal",
            ),
            (
                "pending",
                "UPDATE transactions_transactionledger SET account = 'fees'"
                " WHERE account = 'payout_clearing'",
                "its money is not in payout_clearing",
            ),
            (
                "pending",
                f"{THE_REST} WHERE account = 'payout_clearing' AND amount = 40;"
                f" {PART_OF_IT} WHERE account = 'payout_clearing' AND amount = 40",
                "its money is not in payout_clearing",
            ),
            (
                "failed",
                f"{THE_REST} WHERE account = 'payout_clearing' AND amount = 40;"
                f" {PART_OF_IT} WHERE account = 'payout_clearing' AND amount = 40;"
                " UPDATE transactions_transactionledger SET amount = 40 - amount"
                " WHERE account IN ('payout_clearing', 'fees') AND entry_type = 'debit'",
                "it does not undo the transaction that it names",
            ),
        ],
    )
    def test_given_tampering_when_verified_then_it_is_named(self, owner, status, statement, found):
        pay_out(PayoutFactory(status=status).user, "1.00")
        assert breaches() == []
        tamper(owner, statement)
        assert any(found in str(breach) for breach in breaches()), [str(b) for b in breaches()]

    def test_given_a_deposit_for_nobody_when_moved_out_of_suspense_then_named(self, owner):
        suspended()
        tamper(
            owner,
            "UPDATE transactions_transactionledger SET account = 'fees' WHERE account = 'suspense'",
        )
        assert any("not in suspense" in str(breach) for breach in breaches())
