"""Freezing, unfreezing and closing wallets: by whom, from where to where, and against what runs."""

from decimal import Decimal
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse

from fintech_core.database import execute
from fintech_core.exceptions import InvalidState
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    client_of,
    close,
    freeze,
    fund,
    guardian,
    person,
    refused_by,
    reserve,
    send,
    set_limits,
    unfreeze,
)
from transactions.tests.test_transfer import refusal
from users.models import User
from users.tests.factories import StaffFactory, UserFactory
from wallet import services as wallets
from wallet.models import LimitOverride, Wallet, WalletStep

pytestmark = pytest.mark.django_db(transaction=True)

WHY = {"reason": "Reported stolen."}
CALLS = ("freeze", "unfreeze", "close")


@pytest.fixture
def alice():
    return person("100.00")


@pytest.fixture
def empty():
    return person()


def call(actor, name, wallet_id, body=None):
    path = f"/api/v1/wallets/{wallet_id}/{name}/"
    return client_of(actor).post(path, WHY if body is None else body)


def status(user):
    return Wallet.objects.get(user=user).status


class TestCalls:
    def test_given_staff_when_freezing_and_unfreezing_then_the_wallet_and_a_record(self, alice):
        frozen = call(guardian(), "freeze", alice.wallet.pk, {"reason": "  Under review. "})
        assert frozen.status_code == 200
        mine = client_of(alice).get("/api/v1/wallets/me/").json()
        assert frozen.json() == mine
        assert (mine["status"], mine["balance"]) == ("frozen", "100.00")
        assert call(guardian(), "unfreeze", alice.wallet.pk).json()["status"] == "active"
        steps = WalletStep.objects.order_by("pk").values_list(
            "wallet__user", "actor", "from_status", "to_status", "reason"
        )
        by = (alice.pk, guardian().pk)
        assert list(steps) == [
            (*by, "active", "frozen", "Under review."),
            (*by, "frozen", "active", "Reported stolen."),
        ]
        assert breaches() == []

    def test_given_a_frozen_wallet_when_money_moves_then_in_but_not_out(self, alice, empty):
        freeze(alice)
        assert send(alice, empty, "1.00").content["code"] == "wallet_frozen"
        assert reserve(alice, empty, "1.00").content["code"] == "wallet_frozen"
        fund(alice, "5.00")
        unfreeze(alice)
        assert send(alice, empty, "105.00").status == 201

    @pytest.mark.parametrize(
        ("before", "name", "code"),
        [
            ([], "unfreeze", 409),
            ([], "freeze", 200),
            ([], "close", 200),
            ([freeze], "freeze", 409),
            ([freeze], "unfreeze", 200),
            ([freeze], "close", 200),
            ([close], "freeze", 409),
            ([close], "unfreeze", 409),
            ([close], "close", 409),
        ],
    )
    def test_given_a_status_when_calling_then_only_known_steps_are_taken(
        self, empty, before, name, code
    ):
        for step in before:
            step(empty)
        answer = call(guardian(), name, empty.wallet.pk)
        assert answer.status_code == code
        if code == 409:
            assert refusal(answer) == (409, "invalid_state")
        assert WalletStep.objects.count() == len(before) + (code == 200)

    def test_given_money_or_a_hold_when_closing_then_409(self, alice, empty):
        assert refusal(call(guardian(), "close", alice.wallet.pk)) == (409, "invalid_state")
        reserve(alice, empty, "100.00")
        assert refusal(call(guardian(), "close", alice.wallet.pk)) == (409, "invalid_state")
        assert status(alice) == "active"

    @pytest.mark.parametrize("name", CALLS)
    def test_given_anybody_else_when_calling_then_403_whether_it_is_there_or_not(self, alice, name):
        for actor in (alice, person(), StaffFactory(permissions=["wallet.change_limits"])):
            for wallet_id in (alice.wallet.pk, uuid4()):
                assert refusal(call(actor, name, wallet_id)) == (403, "permission_denied")
                assert refusal(call(actor, name, wallet_id, {})) == (403, "permission_denied")
        assert not WalletStep.objects.exists()

    @pytest.mark.parametrize("name", CALLS)
    def test_given_no_wallet_no_session_or_a_wrong_way_when_calling_then_refused(
        self, alice, client, name
    ):
        assert refusal(call(guardian(), name, uuid4())) == (404, "not_found")
        assert refusal(call(guardian(), name, "me")) == (404, "not_found")
        path = f"/api/v1/wallets/{alice.wallet.pk}/{name}/"
        assert refusal(client.post(path, WHY)) == (401, "not_authenticated")
        assert refusal(client_of(guardian()).get(path)) == (405, "method_not_allowed")

    def test_given_ones_own_wallet_when_calling_then_403(self):
        answer = call(guardian(), "freeze", guardian().wallet.pk)
        assert refusal(answer) == (403, "permission_denied")

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"reason": ""},
            {"reason": "  "},
            {"reason": None},
            {"reason": 5},
            {"reason": "a\x00b"},
            {"reason": "x" * 501},
            {"reason": "Why", "status": "active"},
            [],
        ],
    )
    def test_given_no_reason_when_calling_then_400(self, alice, body):
        answer = call(guardian(), "freeze", alice.wallet.pk, body)
        assert refusal(answer) == (400, "validation_error")
        assert status(alice) == "active"

    def test_given_staff_whose_permission_ended_when_the_service_is_asked_then_refused(self, alice):
        actor = guardian()
        User.objects.filter(pk=actor.pk).update(is_active=False)
        with pytest.raises(Exception, match="active member of staff"):
            wallets.freeze(wallet_id=alice.wallet.pk, actor=actor, reason="Why not.")


class TestAtOnce:
    def test_given_a_transfer_when_freezing_at_once_then_one_way_or_the_other(self, empty):
        guardian()
        for _ in range(5):
            payer = person("10.00")
            frozen, sent = at_once(
                lambda payer=payer: freeze(payer), lambda payer=payer: send(payer, empty, "10.00")
            )
            assert frozen is None
            assert status(payer) == "frozen"
            if sent.status == 201:
                assert balance(payer) == 0
            else:
                assert sent.content["code"] == "wallet_frozen"
                assert balance(payer) == Decimal("10.00")
        assert breaches() == []

    def test_given_a_credit_when_closing_at_once_then_it_is_closed_or_credited(self, alice):
        guardian()
        for _ in range(5):
            payee = person()
            closed, sent = at_once(
                lambda payee=payee: close(payee), lambda payee=payee: send(alice, payee, "1.00")
            )
            if sent.status == 201:
                assert isinstance(closed, InvalidState)
                assert (status(payee), balance(payee)) == ("active", Decimal("1.00"))
            else:
                assert sent.content["code"] == "recipient_unavailable"
                assert (closed, status(payee), balance(payee)) == (None, "closed", 0)
        assert breaches() == []

    def test_given_two_of_staff_when_freezing_at_once_then_one_does(self, alice):
        guardian()
        outcomes = at_once(lambda: freeze(alice), lambda: freeze(alice))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == [
            "InvalidState",
            "NoneType",
        ]
        assert WalletStep.objects.count() == 1


STEP = """
WITH step AS (
    INSERT INTO wallet_walletstep (wallet_id, actor_id, from_status, to_status, reason)
    VALUES (%(wallet)s, %(actor)s, %(before)s, %(after)s, %(reason)s)
)
UPDATE wallet_wallet SET status = %(status)s WHERE id = %(wallet)s
"""


class TestRules:
    """The same in raw SQL, as the serving role."""

    @pytest.fixture
    def forge(self, alice):
        def insert(**changes):
            facts = {
                "wallet": alice.wallet.pk,
                "actor": guardian().pk,
                "before": "active",
                "after": "frozen",
                "status": "frozen",
                "reason": "Because.",
            }
            execute(STEP, **facts | changes)

        return insert

    def test_given_a_right_step_by_hand_when_committing_then_it_stands(self, forge, alice):
        forge()
        assert status(alice) == "frozen"

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            ({"status": "active"}, "wallet_wallet_status_is_recorded"),
            ({"before": "frozen", "after": "active"}, "wallet_walletstep_is_a_chain"),
            ({"before": "frozen", "after": "closed"}, "wallet_walletstep_is_a_chain"),
            ({"after": "active", "status": "active"}, "wallet_walletstep_is_a_known_step"),
            ({"after": "lost"}, "wallet_walletstep_is_a_known_step"),
            ({"after": "closed", "status": "closed"}, "wallet_wallet_closed_is_empty"),
            ({"reason": " "}, "wallet_walletstep_says_why"),
        ],
    )
    def test_given_a_step_that_does_not_fit_when_inserting_then_refused(
        self, forge, alice, changes, rule
    ):
        with refused_by(rule):
            forge(**changes)
        assert status(alice) == "active"

    def test_given_an_early_number_and_date_when_inserting_then_both_are_overwritten(self, alice):
        freeze(alice)
        dated = STEP.replace("(wallet_id", "(id, created_at, wallet_id").replace(
            "(%(wallet)s", "(-1, '2001-01-01', %(wallet)s"
        )
        facts = {"wallet": alice.wallet.pk, "actor": guardian().pk, "reason": "Because."}
        with refused_by("wallet_wallet_status_is_recorded"):  # it is the newest all the same
            execute(dated, **facts, before="frozen", after="active", status="frozen")
        execute(dated, **facts, before="frozen", after="active", status="active")
        first, second = WalletStep.objects.filter(wallet=alice.wallet).order_by("pk")
        assert (first.to_status, second.to_status) == ("frozen", "active")
        assert first.created_at < second.created_at

    def test_given_the_owner_of_the_wallet_as_actor_when_inserting_then_refused(self, forge, alice):
        with refused_by("wallet_walletstep_not_on_oneself"):
            forge(actor=alice.pk)

    @pytest.mark.parametrize("other", ["frozen", "closed"])
    def test_given_no_step_when_changing_the_status_then_refused(self, empty, other):
        with refused_by("wallet_wallet_status_is_recorded"):
            Wallet.objects.filter(user=empty).update(status=other)

    def test_given_a_closed_wallet_when_opening_it_again_then_refused(self, forge, empty):
        close(empty)
        with refused_by("wallet_wallet_closed_is_final"):
            forge(wallet=empty.wallet.pk, before="closed", after="active", status="active")
        with refused_by("wallet_wallet_closed_is_final"):
            Wallet.objects.filter(user=empty).update(status="active")

    def test_given_a_new_wallet_when_it_begins_frozen_then_refused(self, monkeypatch):
        monkeypatch.setattr("wallet.signals.Wallet", MagicMock())  # opens none
        newcomer = UserFactory()
        with refused_by("wallet_wallet_status_is_recorded"):
            Wallet.objects.create(user=newcomer, currency="USD", status="frozen")

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE wallet_walletstep SET reason = 'x'",
            "DELETE FROM wallet_walletstep",
            "TRUNCATE wallet_walletstep",
        ],
    )
    def test_given_the_record_when_rewriting_it_then_refused_even_to_the_owner(
        self, alice, owner, statement
    ):
        freeze(alice)
        with pytest.raises(Exception, match="permission denied"):
            execute(statement)
        with pytest.raises(Exception, match="permanent record") as refused:
            owner.execute(statement)
        assert refused.value.diag.constraint_name == "wallet_walletstep_is_append_only"


class TestAdmin:
    @pytest.fixture
    def staff(self):
        return StaffFactory(
            permissions=["wallet.view_wallet", "wallet.change_status", "wallet.change_limits"]
        )

    @staticmethod
    def signed_in(user):
        browser = Client()
        browser.force_login(user)
        return browser

    @staticmethod
    def page(user, action=None):
        if action is None:
            return reverse("admin:wallet_wallet_change", args=[user.wallet.pk])
        return reverse(f"admin:wallet_wallet_{action}", args=[user.wallet.pk])

    def test_given_staff_when_freezing_then_asked_why_and_the_record_is_shown(self, alice, staff):
        browser = self.signed_in(staff)
        assert "Staff read this" in browser.get(self.page(alice, "freeze")).content.decode()
        assert status(alice) == "active"
        browser.post(self.page(alice, "freeze"), {"reason": ""})
        assert status(alice) == "active"
        done = browser.post(self.page(alice, "freeze"), {"reason": "Odd <b>deposits</b>."})
        assert done.status_code == 302
        assert status(alice) == "frozen"
        assert WalletStep.objects.get().actor == staff

    def test_given_an_action_when_asked_then_the_question_names_the_owner(self, alice, staff):
        browser = self.signed_in(staff)
        for action in ("freeze", "unfreeze", "close", "set_limits"):
            asked = browser.get(self.page(alice, action)).content.decode()
            assert f"the wallet of {alice.email}" in asked, action

    def test_given_limits_set_before_when_shown_then_those_that_were_chosen(self, alice):
        set_limits(alice, transfer_max="7.00", daily_count=3)
        set_limits(alice)
        root = StaffFactory(is_superuser=True)
        shown = self.signed_in(root).get(self.page(alice)).content.decode()
        record = shown.partition("Limits set for this wallet")[2]
        assert "A single payment: 7.00 USD<br>Payments within 24 hours: 3" in record
        assert "Nothing" in record
        assert "Balance:" not in record

    def test_given_the_record_when_a_superuser_looks_then_it_is_shown_and_read_only(self, alice):
        freeze(alice)
        set_limits(alice, transfer_max="7.00")
        root = StaffFactory(is_superuser=True)
        shown = self.signed_in(root).get(self.page(alice)).content.decode()
        assert "Under review." in shown
        assert "Agreed with the customer." in shown
        assert "A single payment: 7.00 USD" in shown
        assert 'name="_save"' not in shown
        assert 'name="steps-0-reason"' not in shown

    def test_given_each_action_when_taken_then_the_service_decides(self, alice, empty, staff):
        browser = self.signed_in(staff)
        freeze(alice)
        browser.post(self.page(alice, "unfreeze"), WHY)
        assert status(alice) == "active"
        browser.post(self.page(alice, "close"), WHY)
        assert status(alice) == "active"
        browser.post(self.page(empty, "close"), WHY)
        assert status(empty) == "closed"

    def test_given_limits_when_set_then_the_form_shows_them_next_time(self, alice, staff):
        browser = self.signed_in(staff)
        form = {"transfer_max": "123.45", "daily_count": "0", **WHY}
        assert browser.post(self.page(alice, "set_limits"), form).status_code == 302
        made = LimitOverride.objects.get()
        assert (made.transfer_max, made.daily_count, made.balance_max) == (
            Decimal("123.45"),
            0,
            None,
        )
        assert 'value="123.45"' in browser.get(self.page(alice, "set_limits")).content.decode()
        browser.post(self.page(alice, "set_limits"), {"transfer_max": "-1", **WHY})
        browser.post(self.page(alice, "set_limits"), {"transfer_max": "1.00"})
        assert LimitOverride.objects.count() == 1

    def test_given_no_permission_when_acting_then_403(self, alice):
        browser = self.signed_in(StaffFactory(permissions=["wallet.view_wallet"]))
        for action in ("freeze", "unfreeze", "close", "set_limits"):
            assert browser.post(self.page(alice, action), WHY).status_code == 403
        assert not WalletStep.objects.exists()
