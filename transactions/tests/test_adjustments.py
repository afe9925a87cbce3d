"""Adjustments: four eyes, in Python, in the admin and in PostgreSQL."""

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from rest_framework.exceptions import PermissionDenied, ValidationError
from uuid_utils.compat import uuid7

from fintech_core.database import database_time
from fintech_core.exceptions import InvalidState
from transactions.exceptions import NotFound
from transactions.models import Account, Adjustment, Transaction, TransactionLedger
from transactions.posting import Posting, post
from transactions.services import Proposal, TransactionService
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    client_of,
    close,
    freeze,
    fund,
    person,
    reserve,
    send,
)
from users.models import User
from users.tests.factories import StaffFactory
from users.tests.helpers import refused_by
from wallet.exceptions import InsufficientFunds, WalletClosed, WalletFrozen
from wallet.locking import lock_wallets

CREDIT, DEBIT = TransactionLedger.EntryType.CREDIT, TransactionLedger.EntryType.DEBIT
POWERS = ["transactions.propose_adjustment", "transactions.approve_adjustment"]
pytestmark = pytest.mark.django_db(transaction=True)


def staff(*permissions: str) -> User:
    view = "transactions.view_adjustment"
    return StaffFactory(permissions=[view, *(permissions or POWERS)])


def propose(
    user: User,
    amount: str = "10.00",
    direction: Any = CREDIT,
    by: User | None = None,
    form_id: UUID | None = None,
) -> Adjustment:
    proposal = Proposal(
        wallet_id=user.wallet.pk,
        direction=direction,
        amount=Decimal(amount),
        reason="Charged twice on 3 November",
        form_id=form_id,
    )
    return TransactionService.propose_adjustment(proposer=by or staff(), proposal=proposal)


def approve(adjustment: Adjustment, by: User | None = None) -> Adjustment:
    return TransactionService.approve_adjustment(
        approver=by or staff(), adjustment_id=adjustment.pk
    )


def reject(adjustment: Adjustment, by: User | None = None, reason: str = "No.") -> Adjustment:
    return TransactionService.reject_adjustment(
        decider=by or staff(), adjustment_id=adjustment.pk, reason=reason
    )


def status_of(adjustment: Adjustment) -> str:
    return Adjustment.objects.get(pk=adjustment.pk).status


def posted() -> int:
    return Transaction.objects.filter(type="adjustment").count()


class TestProposing:
    def test_given_a_proposal_when_made_then_it_is_written_down_and_nothing_moves(self):
        alice, proposer = person("5.00"), staff()
        adjustment = propose(alice, by=proposer)
        adjustment.refresh_from_db()
        assert adjustment.status == "proposed"
        assert adjustment.proposed_by == proposer
        assert adjustment.currency == "USD"
        assert balance(alice) == Decimal("5.00")
        assert posted() == 0

    @pytest.mark.parametrize("powers", [["users.review_kyc"], ["transactions.approve_adjustment"]])
    def test_given_no_permission_when_proposing_then_refused(self, powers):
        with pytest.raises(PermissionDenied):
            propose(person(), by=staff(*powers))

    def test_given_a_customer_when_proposing_then_refused(self):
        with pytest.raises(PermissionDenied):
            propose(person(), by=person())

    def test_given_ones_own_wallet_when_proposing_then_refused(self):
        proposer = staff()
        with pytest.raises(PermissionDenied):
            propose(proposer, by=proposer)
        assert Adjustment.objects.count() == 0

    @pytest.mark.parametrize("amount", ["0", "-1", "0.001", "NaN", "10000000000000"])
    def test_given_an_amount_that_is_none_when_proposing_then_refused(self, amount):
        with pytest.raises(ValidationError):
            propose(person(), amount)

    def test_given_no_reason_when_proposing_then_refused(self):
        proposal = Proposal(
            wallet_id=person().wallet.pk, direction=CREDIT, amount=Decimal(1), reason="  "
        )
        with pytest.raises(ValidationError):
            TransactionService.propose_adjustment(proposer=staff(), proposal=proposal)

    def test_given_no_such_wallet_when_proposing_then_not_found(self):
        proposal = Proposal(wallet_id=uuid4(), direction=CREDIT, amount=Decimal(1), reason="x")
        with pytest.raises(NotFound):
            TransactionService.propose_adjustment(proposer=staff(), proposal=proposal)

    def test_given_a_form_sent_twice_when_proposing_then_there_is_one_proposal(self):
        alice, one, form_id = person(), staff(), uuid4()
        propose(alice, by=one, form_id=form_id)
        with pytest.raises(InvalidState, match="proposed already"):
            propose(alice, by=one, form_id=form_id)
        assert Adjustment.objects.count() == 1
        propose(alice, by=one, form_id=uuid4())
        assert Adjustment.objects.count() == 2

    def test_given_a_form_sent_twice_at_once_when_proposing_then_there_is_one_proposal(self):
        alice, one, form_id = person(), staff(), uuid4()
        outcomes = at_once(*[lambda: propose(alice, by=one, form_id=form_id)] * 4)
        assert sum(isinstance(outcome, Adjustment) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, InvalidState) for outcome in outcomes) == 3


class TestApproving:
    def test_given_a_credit_when_approved_then_posted_against_adjustments(self):
        alice, approver = person("5.00"), staff()
        adjustment = approve(propose(alice, "10.00"), by=approver)
        assert balance(alice) == Decimal("15.00")
        made = Transaction.objects.get(type="adjustment")
        assert (made.to_user, made.from_user, made.amount) == (alice, None, Decimal("10.00"))
        assert made.description == "Charged twice on 3 November"
        assert made.effect_key == f"adjustment:{adjustment.pk}"
        assert set(made.entries.values_list("account", "entry_type")) == {
            ("adjustments", "debit"),
            ("wallet", "credit"),
        }
        adjustment.refresh_from_db()
        assert (adjustment.status, adjustment.decided_by) == ("approved", approver)
        assert (adjustment.transaction, adjustment.decided_at) == (made, made.created_at)
        assert breaches() == []

    def test_given_a_debit_when_approved_then_the_money_leaves_the_wallet(self):
        alice = person("15.00")
        approve(propose(alice, "15.00", DEBIT))
        assert balance(alice) == Decimal("0.00")
        assert Transaction.objects.get(type="adjustment").from_user == alice
        assert breaches() == []

    def test_given_an_adjustment_when_approved_then_the_customer_reads_why(self):
        alice = person()
        approve(propose(alice, "10.00"))
        (line,) = client_of(alice).get("/api/v1/transactions/history/").json()["results"]
        assert (line["type"], line["amount"]) == ("adjustment", "10.00")
        assert line["description"] == "Charged twice on 3 November"

    def test_given_ones_own_proposal_when_approving_then_refused(self):
        alice, proposer = person(), staff()
        adjustment = propose(alice, by=proposer)
        with pytest.raises(PermissionDenied):
            approve(adjustment, by=proposer)
        assert (balance(alice), status_of(adjustment)) == (Decimal("0.00"), "proposed")

    def test_given_ones_own_wallet_when_approving_then_refused(self):
        approver = staff()
        adjustment = propose(approver)
        with pytest.raises(PermissionDenied):
            approve(adjustment, by=approver)

    @pytest.mark.parametrize("powers", [["users.review_kyc"], ["transactions.propose_adjustment"]])
    def test_given_no_permission_when_approving_then_refused(self, powers):
        with pytest.raises(PermissionDenied):
            approve(propose(person()), by=staff(*powers))

    def test_given_a_deactivated_colleague_when_approving_then_refused(self):
        approver = staff()
        User.objects.filter(pk=approver.pk).update(is_active=False)
        with pytest.raises(PermissionDenied):
            approve(propose(person()), by=approver)

    @pytest.mark.parametrize("loss", ["permission", "staff", "active"])
    def test_given_a_proposer_who_may_no_more_when_approving_then_refused(self, loss):
        alice, one = person(), staff()
        adjustment = propose(alice, by=one)
        if loss == "permission":
            one.user_permissions.clear()
        else:
            User.objects.filter(pk=one.pk).update(**{f"is_{loss}": False})
        with pytest.raises(InvalidState, match="may propose no more"):
            approve(adjustment)
        assert balance(alice) == Decimal("0.00")
        assert status_of(reject(adjustment)) == "rejected"

    def test_given_more_than_a_wallet_can_hold_when_approving_then_refused_kindly(self):
        alice = person("1.00")
        adjustment = propose(alice, "9999999999999.99")
        with pytest.raises(InvalidState, match="No wallet can hold"):
            approve(adjustment)
        assert status_of(adjustment) == "proposed"
        approve(propose(alice, "9999999999998.99"))
        assert balance(alice) == Decimal("9999999999999.99")

    def test_given_a_debit_above_what_is_available_when_approving_then_refused_kindly(self):
        alice, bob = person("20.00"), person()
        reserve(alice, bob, "15.00")
        adjustment = propose(alice, "5.01", DEBIT)
        with pytest.raises(InsufficientFunds, match=r"Only 5\.00 USD is available"):
            approve(adjustment)
        assert (balance(alice), status_of(adjustment)) == (Decimal("20.00"), "proposed")
        approve(propose(alice, "5.00", DEBIT))
        assert breaches() == []

    def test_given_a_frozen_wallet_when_approving_then_credits_arrive_and_debits_do_not(self):
        alice = person("20.00")
        freeze(alice)
        with pytest.raises(WalletFrozen):
            approve(propose(alice, "1.00", DEBIT))
        approve(propose(alice, "1.00"))
        assert balance(alice) == Decimal("21.00")

    def test_given_a_closed_wallet_when_proposing_or_approving_then_refused(self):
        alice = person()
        adjustment = propose(alice)
        close(alice)
        with pytest.raises(WalletClosed):
            approve(adjustment)
        with pytest.raises(WalletClosed):
            propose(alice)
        assert status_of(adjustment) == "proposed"

    def test_given_a_decided_one_when_deciding_again_then_refused(self):
        alice = person()
        adjustment = approve(propose(alice))
        for decide in (approve, reject):
            with pytest.raises(InvalidState):
                decide(adjustment)
        rejected = reject(propose(alice))
        with pytest.raises(InvalidState):
            approve(rejected)
        assert balance(alice) == Decimal("10.00")

    def test_given_no_such_adjustment_when_approving_then_not_found(self):
        with pytest.raises(NotFound):
            TransactionService.approve_adjustment(approver=staff(), adjustment_id=uuid7())


class TestRejecting:
    def test_given_a_proposal_when_rejected_then_nothing_moves_and_why_is_kept(self):
        alice, decider = person("5.00"), staff()
        adjustment = reject(propose(alice), by=decider, reason=" Not twice. ")
        adjustment.refresh_from_db()
        assert (adjustment.status, adjustment.decided_by) == ("rejected", decider)
        assert adjustment.rejection_reason == "Not twice."
        assert (posted(), balance(alice)) == (0, Decimal("5.00"))

    def test_given_ones_own_proposal_when_rejecting_then_it_is_withdrawn(self):
        proposer = staff("transactions.propose_adjustment")
        assert reject(propose(person(), by=proposer), by=proposer).status == "rejected"

    def test_given_a_debit_of_ones_own_wallet_when_rejecting_then_refused(self):
        mallory = staff()
        fund(mallory, "100.00")
        adjustment = propose(mallory, "100.00", DEBIT)
        with pytest.raises(PermissionDenied, match="their own wallet"):
            reject(adjustment, by=mallory)
        assert status_of(adjustment) == "proposed"

    @pytest.mark.parametrize("kept", POWERS)
    def test_given_one_of_both_permissions_when_withdrawing_ones_own_then_it_is_withdrawn(
        self, kept
    ):
        one = staff()
        adjustment = propose(person(), by=one)
        one.user_permissions.set(Permission.objects.filter(codename=kept.split(".")[1]))
        reject(adjustment, by=one)
        assert status_of(adjustment) == "rejected"

    def test_given_neither_permission_when_withdrawing_ones_own_then_refused(self):
        one = staff()
        adjustment = propose(person(), by=one)
        one.user_permissions.clear()
        with pytest.raises(PermissionDenied):
            reject(adjustment, by=one)

    def test_given_no_permission_when_rejecting_anothers_then_refused(self):
        with pytest.raises(PermissionDenied):
            reject(propose(person()), by=staff("transactions.propose_adjustment"))

    def test_given_no_reason_when_rejecting_then_refused(self):
        with pytest.raises(ValidationError):
            reject(propose(person()), reason=" ")


class TestRaces:
    def test_given_two_approvers_when_at_once_then_one_posts(self):
        alice = person()
        adjustment = propose(alice, "10.00")
        first, second = staff(), staff()
        results = at_once(lambda: approve(adjustment, first), lambda: approve(adjustment, second))
        assert sorted(type(result).__name__ for result in results) == [
            "Adjustment",
            "InvalidState",
        ]
        assert (posted(), balance(alice)) == (1, Decimal("10.00"))
        assert breaches() == []

    def test_given_approval_and_rejection_when_at_once_then_one_wins(self):
        alice = person()
        for _ in range(5):
            adjustment = propose(alice, "1.00")
            one, other = staff(), staff()
            results = at_once(
                lambda a=adjustment, s=one: approve(a, s),
                lambda a=adjustment, s=other: reject(a, s),
            )
            assert sum(isinstance(result, InvalidState) for result in results) == 1
        assert balance(alice) == Decimal(posted())
        assert breaches() == []

    def test_given_debits_and_a_transfer_when_at_once_then_never_below_available(self):
        alice, bob = person("10.00"), person()
        adjustments = [propose(alice, "6.00", DEBIT) for _ in range(3)]
        people = [staff() for _ in adjustments]
        results = at_once(
            *(lambda a=a, s=s: approve(a, s) for a, s in zip(adjustments, people, strict=True)),
            lambda: send(alice, bob, "6.00"),
        )
        refused = [
            result
            for result in results
            if isinstance(result, InsufficientFunds) or getattr(result, "status", 0) == 422
        ]
        assert len(refused) == 3
        assert balance(alice) == Decimal("4.00")
        assert breaches() == []


def insert(**facts: Any) -> None:
    row = {
        "id": str(uuid7()),
        "status": "proposed",
        "direction": "credit",
        "amount": "10.00",
        "currency": "USD",
        "reason": "x",
        "rejection_reason": "",
        **{name: str(value) for name, value in facts.items()},
    }
    names, values = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO transactions_adjustment ({names}) VALUES ({values})", row)


def change(adjustment: Adjustment, assignments: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE transactions_adjustment SET {assignments} WHERE id = %s",
            [*(str(value) for value in values), str(adjustment.pk)],
        )


def post_by_hand(user: User, amount: str = "10.00", **facts: Any) -> Transaction:
    wallet = lock_wallets(user.wallet.pk)[user.wallet.pk]
    posting = Posting(
        **{
            "kind": Transaction.Type.ADJUSTMENT,
            "debit": Account.ADJUSTMENTS,
            "credit": wallet,
            "amount": Decimal(amount),
            "currency": "USD",
            **facts,
        }
    )
    return post(posting)


REJECTED = "status = 'rejected', rejection_reason = 'x', decided_by_id = %s, decided_at = now()"
APPROVED = "status = 'approved', decided_by_id = %s, decided_at = now(), transaction_id = %s"


class TestRawSQL:
    """What the serving role finds refused, whatever tool it uses."""

    def test_given_ones_own_proposal_when_approving_by_hand_then_refused(self):
        alice, proposer = person(), staff()
        adjustment = propose(alice, by=proposer)
        with refused_by("transactions_adjustment_two_people"):
            made = post_by_hand(alice, effect_key=f"adjustment:{adjustment.pk}")
            change(adjustment, APPROVED, proposer.pk, made.pk)
        assert balance(alice) == Decimal("0.00")

    def test_given_a_wallets_owner_when_deciding_by_hand_then_refused(self):
        owner = staff()
        adjustment = propose(owner)
        with refused_by("transactions_adjustment_not_ones_own_wallet"):
            made = post_by_hand(owner, effect_key=f"adjustment:{adjustment.pk}")
            change(adjustment, APPROVED, owner.pk, made.pk)
        with refused_by("transactions_adjustment_not_ones_own_wallet"):
            change(adjustment, REJECTED, owner.pk)
        with refused_by("transactions_adjustment_not_ones_own_wallet"):
            insert(wallet_id=owner.wallet.pk, proposed_by_id=owner.pk)

    def test_given_nobodys_approval_when_posting_an_adjustment_then_refused_at_commit(self):
        alice = person()
        with refused_by("transactions_adjustment_is_approved"):
            post_by_hand(alice)
        with refused_by("transactions_adjustment_is_approved"):
            post_by_hand(alice, debit=Account.FEES)
        with refused_by("transactions_adjustment_is_approved"):
            post_by_hand(alice, kind=Transaction.Type.DEPOSIT)
        assert balance(alice) == Decimal("0.00")

    def test_given_another_effect_when_approving_by_hand_then_refused(self):
        alice, bob, approver = person(), person(), staff()
        adjustment = propose(alice, "10.00")
        key = f"adjustment:{adjustment.pk}"
        for user, amount, effect_key in (
            (bob, "10.00", key),
            (alice, "10.01", key),
            (alice, "10.00", "adjustment:x"),
        ):
            with refused_by("transactions_adjustment_effect_is_its_own"):
                made = post_by_hand(user, amount, effect_key=effect_key)
                change(adjustment, APPROVED, approver.pk, made.pk)
        fund(alice, "50.00")
        with refused_by("transactions_adjustment_effect_is_its_own"):
            wallet = lock_wallets(alice.wallet.pk)[alice.wallet.pk]
            made = post_by_hand(alice, debit=wallet, credit=Account.ADJUSTMENTS, effect_key=key)
            change(adjustment, APPROVED, approver.pk, made.pk)

    def test_given_no_transaction_when_approving_by_hand_then_refused(self):
        adjustment, approver = propose(person()), staff()
        with refused_by("transactions_adjustment_effect_is_its_own"):
            change(adjustment, "status = 'approved', decided_by_id = %s", approver.pk)

    @pytest.mark.parametrize(
        ("assignment", "constraint"),
        [
            ("amount = 11", "transactions_adjustment_is_frozen"),
            ("direction = 'debit'", "transactions_adjustment_is_frozen"),
            ("reason = 'y'", "transactions_adjustment_is_frozen"),
            ("created_at = now()", "transactions_adjustment_is_frozen"),
            ("decided_at = now()", "transactions_adjustment_decided_means_by_whom"),
            ("rejection_reason = 'y'", "transactions_adjustment_decided_means_by_whom"),
            ("status = 'rejected'", "transactions_adjustment_decided_means_by_whom"),
            ("status = 'lost'", "transactions_adjustment_decided_means_by_whom"),
        ],
    )
    def test_given_a_proposal_when_changed_by_hand_then_refused(self, assignment, constraint):
        adjustment = propose(person())
        with refused_by(constraint):
            change(adjustment, assignment)

    def test_given_a_decision_when_changed_by_hand_then_refused(self):
        approved, rejected = approve(propose(person())), reject(propose(person()))
        for adjustment in (approved, rejected):
            with refused_by("transactions_adjustment_decided_once"):
                change(
                    adjustment,
                    "status = 'proposed', decided_by_id = NULL, decided_at = NULL,"
                    " transaction_id = NULL, rejection_reason = ''",
                )

    @pytest.mark.parametrize(
        ("facts", "constraint"),
        [
            ({"amount": "0"}, "transactions_adjustment_amount_positive"),
            ({"amount": "NaN"}, "transactions_adjustment_amount_positive"),
            ({"direction": "up"}, "transactions_adjustment_direction_known"),
            ({"reason": ""}, "transactions_adjustment_says_why"),
            ({"reason": " "}, "transactions_adjustment_says_why"),
            ({"currency": "EUR"}, "transactions_adjustment_currency_is_the_wallets"),
            ({"status": "approved"}, "transactions_adjustment_begins_proposed"),
        ],
    )
    def test_given_a_row_that_is_none_when_inserted_by_hand_then_refused(self, facts, constraint):
        alice, proposer = person(), staff()
        with refused_by(constraint):
            insert(wallet_id=alice.wallet.pk, proposed_by_id=proposer.pk, **facts)

    def test_given_no_reason_when_rejecting_by_hand_then_refused(self):
        adjustment = propose(person())
        with refused_by("transactions_adjustment_decided_means_by_whom"):
            change(adjustment, REJECTED.replace("'x'", "' '"), staff().pk)

    @pytest.mark.parametrize("moment", ["'2001-01-01'", "now() + interval '1 hour'", "'infinity'"])
    def test_given_another_moment_when_deciding_by_hand_then_refused(self, moment):
        alice, approver = person(), staff()
        adjustment = propose(alice)
        with refused_by("transactions_adjustment_decided_now"):
            change(adjustment, REJECTED.replace("now()", moment), approver.pk)
        with refused_by("transactions_adjustment_decided_now"):
            made = post_by_hand(alice, effect_key=f"adjustment:{adjustment.pk}")
            change(adjustment, APPROVED.replace("now()", moment), approver.pk, made.pk)

    def test_given_another_moment_when_proposing_by_hand_then_it_is_overwritten(self):
        alice, proposer, before = person(), staff(), database_time()
        insert(wallet_id=alice.wallet.pk, proposed_by_id=proposer.pk, created_at="2001-01-01")
        assert before < Adjustment.objects.get().created_at < database_time()

    def test_given_two_sides_that_were_not_approved_when_posting_then_refused(self):
        alice, victim, approver = person(), person("50.00"), staff()
        adjustment = propose(alice, "10.00")
        with refused_by("transactions_transaction_moves_its_parties"), transaction.atomic():
            locked = lock_wallets(alice.wallet.pk, victim.wallet.pk)
            made = post(
                Posting(
                    kind=Transaction.Type.ADJUSTMENT,
                    debit=locked[victim.wallet.pk],
                    credit=locked[alice.wallet.pk],
                    amount=Decimal("10.00"),
                    currency="USD",
                    effect_key=f"adjustment:{adjustment.pk}",
                )
            )
            change(adjustment, APPROVED, approver.pk, made.pk)
        with refused_by("transactions_transaction_moves_its_parties"), transaction.atomic():
            key = f"adjustment:{adjustment.pk}"
            made = post_by_hand(alice, debit=Account.FEES, effect_key=key)
            change(adjustment, APPROVED, approver.pk, made.pk)
        assert (balance(alice), balance(victim)) == (Decimal("0.00"), Decimal("50.00"))

    def test_given_a_proposal_when_deleted_by_anybody_then_refused(self, owner):
        adjustment = propose(person())
        from django.db import ProgrammingError
        from psycopg2.errors import CheckViolation

        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            Adjustment.objects.filter(pk=adjustment.pk).delete()
        for statement in (
            "DELETE FROM transactions_adjustment",
            "TRUNCATE transactions_adjustment",
        ):
            with pytest.raises(CheckViolation):
                owner.execute(statement)


# --- In the admin --------------------------------------------------------------------------------


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:transactions_adjustment_{name}", args=args)


def admin_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def messages_of(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


class TestAdmin:
    def propose(self, client: Client, **answers: str) -> Any:
        form = {"direction": "credit", "amount": "10.00", "reason": "Charged twice"}
        return client.post(page("add"), {"form_id": uuid4(), **form, **answers}, follow=True)

    def test_given_two_colleagues_when_one_proposes_and_the_other_approves_then_it_moves(self):
        alice, one, other = person(), staff(), staff()
        assert admin_of(one).get(page("add")).status_code == 200

        proposed = self.propose(admin_of(one), wallet=alice.email.upper())
        adjustment = Adjustment.objects.get()
        assert "Somebody else has to approve it" in messages_of(proposed)
        assert balance(alice) == Decimal("0.00")

        shown = admin_of(other).get(page("change", adjustment.pk))
        assert "Approve" in shown.content.decode()
        done = admin_of(other).post(page("approve", adjustment.pk), follow=True)
        assert "Approved: TX-" in messages_of(done)
        assert balance(alice) == Decimal("10.00")
        log = LogEntry.objects.order_by("pk")
        assert [entry.user for entry in log] == [one, other]

    def test_given_ones_own_proposal_when_opened_then_only_withdrawal_is_offered(self):
        one = staff()
        adjustment = propose(person(), by=one)
        html = admin_of(one).get(page("change", adjustment.pk)).content.decode()
        assert page("approve", adjustment.pk) not in html
        assert page("reject", adjustment.pk) in html
        response = admin_of(one).post(page("approve", adjustment.pk), follow=True)
        assert "Somebody else has to approve" in messages_of(response)
        assert status_of(adjustment) == "proposed"

    @pytest.mark.parametrize("decision", ["approve", "reject"])
    def test_given_a_proposal_when_deciding_then_whose_money_and_why_is_before_ones_eyes(
        self, decision
    ):
        alice, one = person(), staff()
        adjustment = propose(alice, by=one)
        html = admin_of(staff()).get(page(decision, adjustment.pk)).content.decode()
        assert f"for {alice.email}" in html
        assert f"{one.email} wrote: {adjustment.reason}" in html

    def test_given_a_proposal_when_rejected_then_the_reason_is_on_its_page(self):
        adjustment = propose(person())
        response = admin_of(staff()).post(
            page("reject", adjustment.pk), {"reason": "It was once."}, follow=True
        )
        assert "It was once." in response.content.decode()
        assert status_of(adjustment) == "rejected"

    def test_given_too_little_money_when_approving_then_a_message(self):
        alice = person("1.00")
        adjustment = propose(alice, "2.00", DEBIT)
        response = admin_of(staff()).post(page("approve", adjustment.pk), follow=True)
        assert "Only 1.00 USD is available" in messages_of(response)

    @pytest.mark.parametrize(
        "answers",
        [
            {"wallet": "nobody@example.com"},
            {"wallet": str(uuid4())},
            {"wallet": ""},
            {"amount": "0"},
            {"amount": "1e3"},
            {"amount": "-5"},
            {"amount": "1.001"},
            {"direction": "sideways"},
            {"reason": " "},
            {"reason": "x" * 256},
        ],
    )
    def test_given_nonsense_when_proposing_then_asked_again(self, answers):
        alice = person()
        response = self.propose(admin_of(staff()), **{"wallet": alice.email, **answers})
        assert response.status_code == 200
        assert response.context["form"].errors
        assert Adjustment.objects.count() == 0

    def test_given_a_double_click_when_proposing_then_there_is_one_proposal(self):
        alice, client = person(), admin_of(staff())
        form_id = client.get(page("add")).context["form"]["form_id"].initial
        answers = {"wallet": alice.email, "form_id": str(form_id)}
        self.propose(client, **answers)
        again = self.propose(client, **answers)
        assert "This was proposed already" in messages_of(again)
        assert Adjustment.objects.count() == LogEntry.objects.count() == 1
        assert client.get(page("add")).context["form"]["form_id"].initial != form_id

    def test_given_a_credit_too_large_when_approving_then_a_message(self):
        adjustment = propose(person("1.00"), "9999999999999.99")
        response = admin_of(staff()).post(page("approve", adjustment.pk), follow=True)
        assert "No wallet can hold as much" in messages_of(response)

    def test_given_ones_own_wallet_when_opened_then_no_decision_is_offered(self):
        mallory = staff()
        adjustment = propose(mallory)
        html = admin_of(mallory).get(page("change", adjustment.pk)).content.decode()
        for decision in ("approve", "reject"):
            assert page(decision, adjustment.pk) not in html

    def test_given_a_refusal_when_proposing_then_a_message_and_the_form_again(self):
        one = staff()
        response = self.propose(admin_of(one), wallet=one.email)
        assert "Nobody adjusts their own wallet" in response.content.decode()
        assert response.context["form"].data["amount"] == "10.00"

    def test_given_a_wallet_in_the_link_when_proposing_then_it_is_filled_in(self):
        alice = person()
        shown = admin_of(staff()).get(page("add"), {"wallet": str(alice.wallet.pk)})
        assert str(alice.wallet.pk) in shown.content.decode()

    @pytest.mark.parametrize("permission", ["view_adjustment", "approve_adjustment"])
    def test_given_no_permission_when_proposing_then_403(self, permission):
        client = admin_of(StaffFactory(permissions=[f"transactions.{permission}"]))
        assert client.get(page("add")).status_code == 403
        assert self.propose(client, wallet=person().email).status_code == 403

    def test_given_no_permission_when_approving_then_403_and_nothing_moves(self):
        adjustment = propose(person())
        client = admin_of(StaffFactory(permissions=["transactions.view_adjustment"]))
        for name in ("approve", "reject"):
            assert client.post(page(name, adjustment.pk), {"reason": "x"}).status_code == 403
        assert status_of(adjustment) == "proposed"

    def test_given_a_superuser_when_changing_or_deleting_a_row_then_403(self):
        adjustment = approve(propose(person()))
        root = admin_of(person(is_staff=True, is_superuser=True))
        assert root.post(page("change", adjustment.pk), {"amount": "1"}).status_code == 403
        assert root.post(page("delete", adjustment.pk), {"post": "yes"}).status_code == 403

    def test_given_adjustments_when_listed_and_searched_then_found_without_counting(
        self, django_assert_max_num_queries
    ):
        alice = person(email="alice-only@example.com")
        adjustment = approve(propose(alice))
        propose(person())
        client = admin_of(staff())
        for text in ("alice-only", str(alice.wallet.pk), str(adjustment.pk)):
            with django_assert_max_num_queries(20):
                response = client.get(page("changelist"), {"q": text})
            assert list(response.context["cl"].result_list) == [adjustment]
        waiting = client.get(page("changelist"), {"status__exact": "proposed"})
        assert len(waiting.context["cl"].result_list) == 1

    def test_given_proposals_when_opening_the_overview_then_they_wait_there(self):
        propose(person())
        html = admin_of(staff()).get("/admin/").content.decode()
        assert "Adjustments to decide" in html
