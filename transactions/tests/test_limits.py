"""Limits: what a tier allows, what staff change, and that nobody passes them, at once or by SQL."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.utils import timezone
from rest_framework.exceptions import PermissionDenied, ValidationError

from fintech_core.database import execute, query
from transactions.limit_use import Allowance
from transactions.services import TransactionService
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    capture,
    client_of,
    close,
    freeze,
    fund,
    guardian,
    hold_of,
    person,
    refund,
    refused_by,
    reserve,
    send,
    set_limits,
)
from transactions.tests.test_transfer import refusal
from users.tests.factories import StaffFactory, UserFactory
from wallet import services as wallets
from wallet.exceptions import LimitExceeded, WalletNotFound
from wallet.models import DebitBucket, LimitOverride, Wallet
from wallet.queries import debits_of
from wallet.services import Spent
from wallet.tasks import delete_old_debits

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/v1/wallets/me/limits/"
BUCKET = """
INSERT INTO wallet_debitbucket (wallet_id, hour, total, count)
VALUES (%(wallet)s, date_trunc('hour', now() - %(ago)s::interval, 'UTC'), %(total)s, %(count)s)
"""


@pytest.fixture
def alice():
    return person("1000.00")


@pytest.fixture
def bob():
    return person()


def limits_of(user):
    return client_of(user).get(URL).json()


def named(answer):
    """The limit that an answer says was exceeded, or None."""
    if answer.status == 201:
        return None
    assert answer.content["code"] == "limit_exceeded", answer.content
    assert answer.content["limit"] in answer.content["detail"]
    return answer.content["limit"]


def sent_before(user, ago, total="1.00", count=1):
    execute(BUCKET, wallet=user.wallet.pk, ago=ago, total=total, count=count)


def allowance_of(user):
    """What the user may still send; read without a lock, for tests that do it alone."""
    return Allowance(Wallet.objects.get(user=user), debits_of(user.wallet.pk))


class TestRefusals:
    @pytest.mark.parametrize(
        ("chosen", "limit"),
        [
            ({"transfer_max": "9.99"}, "transfer_max"),
            ({"daily_total": "19.99"}, "daily_total"),
            ({"daily_count": 1}, "daily_count"),
            ({"monthly_total": "19.99"}, "monthly_total"),
            ({"monthly_count": 1}, "monthly_count"),
            ({"daily_count": 0, "monthly_count": 0}, "daily_count"),
        ],
    )
    def test_given_a_limit_when_passing_it_then_it_is_named_and_nothing_moves(
        self, alice, bob, chosen, limit
    ):
        assert named(send(alice, bob, "10.00")) is None
        set_limits(alice, **chosen)
        assert named(send(alice, bob, "10.00")) == limit
        assert named(reserve(alice, bob, "10.00")) == limit
        assert balance(alice) == Decimal("990.00")
        assert limits_of(alice)["daily_count"]["used"] == 1

    @pytest.mark.parametrize("name", ["transfer_max", "daily_total", "monthly_total"])
    def test_given_a_limit_when_reaching_it_exactly_then_it_goes(self, alice, bob, name):
        set_limits(alice, **{name: "10.00"})
        assert named(send(alice, bob, "10.00")) is None

    def test_given_the_defaults_when_sending_then_they_are_the_contracts(self, alice):
        shown = limits_of(alice)
        assert {
            name: shown[name]["limit"] for name in shown if name not in ("tier", "currency")
        } == {
            "transfer_max": "10000.00",
            "daily_total": "50000.00",
            "daily_count": 5000,
            "monthly_total": "200000.00",
            "monthly_count": 50000,
            "balance_max": "100000.00",
        }

    def test_given_too_little_money_too_when_sending_then_that_comes_first(self, alice, bob):
        set_limits(alice, transfer_max="1.00")
        assert send(alice, bob, "1000.01").content["code"] == "insufficient_funds"
        freeze(alice)
        assert send(alice, bob, "1000.01").content["code"] == "wallet_frozen"

    def test_given_a_refusal_when_retried_later_then_the_same_answer(self, alice, bob):
        set_limits(alice, daily_count=0)
        first = send(alice, bob, "1.00", key="k")
        set_limits(alice)
        again = send(alice, bob, "1.00", key="k")
        assert (again.body, again.replayed) == (first.body, True)

    @pytest.mark.parametrize(
        "name", ["transfer_max", "daily_total", "daily_count", "monthly_total", "monthly_count"]
    )
    @pytest.mark.parametrize("absent", [True, False])
    def test_given_settings_that_lack_a_limit_when_sending_then_nothing_leaves(
        self, alice, bob, settings, name, absent
    ):
        approved = {**settings.WALLET_LIMITS["approved"], name: None}
        if absent:
            del approved[name]
        settings.WALLET_LIMITS = {"approved": approved}
        set_limits(alice, **{name: 500})  # what a tier lacks, nobody grants
        assert named(send(alice, bob, "1.00")) == name

    def test_given_no_tier_at_all_when_receiving_then_unavailable(self, alice, settings):
        newcomer = UserFactory()
        settings.WALLET_LIMITS = {"approved": settings.WALLET_LIMITS["approved"]}
        assert send(alice, newcomer, "1.00").content["code"] == "recipient_unavailable"
        settings.WALLET_LIMITS = {}
        assert send(alice, newcomer, "1.00").content["code"] == "limit_exceeded"

    def test_given_no_approval_when_limits_are_set_then_still_nothing_leaves(self, bob):
        newcomer = UserFactory()
        fund(newcomer, "10.00")
        set_limits(newcomer, transfer_max="5.00", daily_total="5.00", daily_count=5)
        with pytest.raises(LimitExceeded):
            allowance_of(newcomer).require(Decimal("1.00"))


class TestWindows:
    @pytest.mark.parametrize(
        ("ago", "used"),
        [
            ("0 hours", ("1.00", "1.00")),
            ("24 hours", ("1.00", "1.00")),  # the whole of the oldest hour counts
            ("25 hours", ("0.00", "1.00")),
            ("720 hours", ("0.00", "1.00")),
            ("721 hours", ("0.00", "0.00")),
            ("-2 hours", ("1.00", "1.00")),  # the clock was set back
        ],
    )
    def test_given_a_debit_some_time_ago_then_the_windows_that_reach_it_count_it(
        self, alice, ago, used
    ):
        sent_before(alice, ago)
        shown = limits_of(alice)
        assert (shown["daily_total"]["used"], shown["monthly_total"]["used"]) == used

    def test_given_yesterdays_debits_when_the_month_is_full_then_refused(self, alice, bob):
        sent_before(alice, "100 hours", total="199995.00", count=7)
        assert named(send(alice, bob, "5.01")) == "monthly_total"
        assert named(send(alice, bob, "5.00")) is None
        assert limits_of(alice)["monthly_total"] == {
            "limit": "200000.00",
            "used": "200000.00",
            "remaining": "0.00",
        }

    def test_given_the_heaviest_sender_when_asking_then_every_hour_counts(self, alice):
        for hours in range(720):
            sent_before(alice, f"{hours} hours")
        assert limits_of(alice)["monthly_count"]["used"] == 720


class TestWhatCounts:
    def test_given_transfers_and_holds_when_made_then_both_count(self, alice, bob):
        send(alice, bob, "10.00")
        reserve(alice, bob, "20.00")
        shown = limits_of(alice)
        assert (shown["daily_total"]["used"], shown["daily_count"]["used"]) == ("30.00", 2)
        assert limits_of(bob)["daily_count"]["used"] == 0

    def test_given_a_hold_when_captured_or_voided_then_it_counted_once_and_stays(self, alice, bob):
        capture(bob, hold_of(reserve(alice, bob, "20.00")), "5.00")
        voided = hold_of(reserve(alice, bob, "30.00"))
        TransactionService.void_hold(caller=bob, hold_id=voided.pk)
        shown = limits_of(alice)
        assert (shown["daily_total"]["used"], shown["daily_count"]["used"]) == ("50.00", 2)

    def test_given_a_used_up_limit_when_refunding_or_capturing_then_it_goes(self, alice, bob):
        paid = send(alice, bob, "10.00").content["id"]
        hold = hold_of(reserve(alice, bob, "10.00"))
        for user in (alice, bob):
            set_limits(user, transfer_max="0", daily_total="0", daily_count=0)
        assert capture(bob, hold).status == 201
        assert refund(bob, paid).status == 201
        assert limits_of(bob)["daily_count"]["used"] == 0

    def test_given_many_debits_in_one_transaction_when_written_then_one_row(self, alice):
        allowance = allowance_of(alice)
        assert allowance.taken.count == 0
        for amount in ("1.00", "2.50"):
            allowance.take(Decimal(amount))
        with pytest.raises(LimitExceeded):
            allowance.require(Decimal("10000.01"))
        wallets.record_debits(allowance.taken)
        rows = query("SELECT total, count FROM wallet_debitbucket")
        assert rows == [(Decimal("3.50"), 2)]


class TestAtOnce:
    @pytest.mark.parametrize("make", [send, reserve])
    def test_given_two_payments_that_together_pass_the_limit_when_at_once_then_one_goes(
        self, alice, bob, make
    ):
        set_limits(alice, daily_total="100.00")
        carol = person()
        answers = at_once(lambda: make(alice, bob, "60.00"), lambda: make(alice, carol, "60.00"))
        assert sorted(str(named(answer)) for answer in answers) == ["None", "daily_total"]
        assert limits_of(alice)["daily_total"]["used"] == "60.00"
        assert breaches() == []

    def test_given_ten_payments_when_the_count_allows_three_then_three_go(self, alice, bob):
        set_limits(alice, daily_count=3)
        people = [bob, person()]
        answers = at_once(
            *[lambda to=people[number % 2]: send(alice, to, "1.00") for number in range(10)]
        )
        outcomes = [named(answer) for answer in answers]
        assert (outcomes.count(None), outcomes.count("daily_count")) == (3, 7)
        assert balance(alice) == Decimal("997.00")


class TestReading:
    def test_given_use_when_reading_then_each_limit_with_what_is_left(self, alice, bob):
        send(alice, bob, "10.00")
        assert limits_of(alice) == {
            "tier": "approved",
            "currency": "USD",
            "transfer_max": {"limit": "10000.00", "used": None, "remaining": "10000.00"},
            "daily_total": {"limit": "50000.00", "used": "10.00", "remaining": "49990.00"},
            "daily_count": {"limit": 5000, "used": 1, "remaining": 4999},
            "monthly_total": {"limit": "200000.00", "used": "10.00", "remaining": "199990.00"},
            "monthly_count": {"limit": 50000, "used": 1, "remaining": 49999},
            "balance_max": {"limit": "100000.00", "used": "990.00", "remaining": "99010.00"},
        }

    def test_given_no_approval_when_reading_then_nothing_may_leave(self):
        shown = limits_of(UserFactory())
        assert shown["tier"] == "unverified"
        assert shown["transfer_max"] == {"limit": "0.00", "used": None, "remaining": "0.00"}
        assert shown["daily_count"] == {"limit": 0, "used": 0, "remaining": 0}
        assert shown["balance_max"]["limit"] == "1000.00"

    def test_given_limits_below_what_was_used_when_reading_then_zero_remains(self, alice, bob):
        send(alice, bob, "10.00")
        set_limits(alice, daily_total="5.00", daily_count=0, balance_max="1.00")
        shown = limits_of(alice)
        assert shown["daily_total"]["remaining"] == "0.00"
        assert shown["daily_count"]["remaining"] == 0
        assert shown["balance_max"]["remaining"] == "0.00"

    def test_given_nobody_when_reading_then_401(self, client):
        assert refusal(client.get(URL)) == (401, "not_authenticated")


class TestOverrides:
    def test_given_several_when_sending_then_the_newest_counts_as_a_whole(self, alice, bob):
        set_limits(alice, transfer_max="5.00", daily_count=1)
        set_limits(alice, transfer_max="20000.00")
        assert limits_of(alice)["transfer_max"]["limit"] == "20000.00"
        assert limits_of(alice)["daily_count"]["limit"] == 5000
        fund(alice, "19000.00")
        assert named(send(alice, bob, "15000.00")) is None

    def test_given_a_recipients_limit_when_changed_then_it_counts(self, alice, bob):
        set_limits(bob, balance_max="5.00")
        assert send(alice, bob, "5.01").content["code"] == "recipient_unavailable"
        assert send(alice, bob, "5.00").status == 201

    def test_given_the_record_then_it_says_who_and_why(self, alice):
        set_limits(alice, daily_count=1)
        made = LimitOverride.objects.get(wallet__user=alice)
        assert (made.actor, made.reason) == (guardian(), "Agreed with the customer.")
        assert timezone.now() - made.created_at < timedelta(minutes=1)

    def test_given_others_when_changing_limits_then_refused(self, alice):
        def change(actor, reason="Why not.", wallet_id=alice.wallet.pk):
            wallets.override_limits(
                wallet_id=wallet_id, actor=actor, reason=reason, chosen=wallets.ChosenLimits()
            )

        for actor in (alice, StaffFactory(), StaffFactory(permissions=["wallet.change_status"])):
            with pytest.raises(PermissionDenied):
                change(actor)
        with pytest.raises(PermissionDenied):
            change(guardian(), wallet_id=guardian().wallet.pk)
        with pytest.raises(WalletNotFound):
            change(guardian(), wallet_id=guardian().pk)
        with pytest.raises(ValidationError):
            change(guardian(), reason=" ")
        assert not LimitOverride.objects.exists()

    @pytest.mark.parametrize("most", ["-0.01", "NaN", "1e13"])
    def test_given_no_amount_when_setting_a_limit_then_the_database_refuses(self, alice, most):
        if most == "1e13":
            with pytest.raises(Exception, match="numeric field overflow"):
                forge(alice, most)
        else:
            with refused_by("wallet_limitoverride_transfer_max_in_range"):
                forge(alice, most)

    def test_given_oneself_when_inserting_then_refused(self, alice):
        with refused_by("wallet_limitoverride_not_on_oneself"):
            forge(alice, "1.00", actor=alice)

    def test_given_no_reason_when_inserting_then_refused(self, alice):
        with refused_by("wallet_limitoverride_says_why"):
            forge(alice, "1.00", reason=" ")

    def test_given_a_record_without_its_wallet_when_committing_then_refused(self, alice):
        with refused_by("wallet_wallet_limits_are_recorded"):
            forge(alice, "1.00")

    @pytest.mark.parametrize("number", ["-1", "9223372036854775807"])
    def test_given_a_number_by_hand_when_inserting_then_it_is_overwritten(self, alice, number):
        """Else the last number would leave none for the next record, for ever."""
        set_limits(alice, daily_count=1)
        numbered = FORGED.replace("(wallet_id", "(id, created_at, wallet_id").replace(
            "(%(wallet)s", f"({number}, '2099-01-01', %(wallet)s"
        )
        with refused_by("wallet_wallet_limits_are_recorded"):
            forge(alice, "1.00", statement=numbered)
        set_limits(alice, daily_count=2)
        assert LimitOverride.objects.latest("created_at") == LimitOverride.objects.latest("pk")

    def test_given_older_limits_when_taking_them_back_by_hand_then_refused(self, alice):
        set_limits(alice, daily_count=9999)
        set_limits(alice, daily_count=1)
        older = LimitOverride.objects.order_by("pk").first()
        for override in (older, None):
            with refused_by("wallet_wallet_limits_are_recorded"):
                Wallet.objects.filter(user=alice).update(limit_override=override)

    def test_given_the_owner_when_rewriting_a_record_then_refused(self, alice, owner):
        set_limits(alice, daily_count=1)
        for statement in (
            "UPDATE wallet_limitoverride SET daily_count = 9",
            "DELETE FROM wallet_limitoverride",
            "TRUNCATE wallet_limitoverride CASCADE",
        ):
            with pytest.raises(Exception, match="permission denied"):
                execute(statement)
            with pytest.raises(Exception, match=r"permanent record|never deleted"):
                owner.execute(statement)


FORGED = (
    "INSERT INTO wallet_limitoverride (wallet_id, actor_id, reason, transfer_max)"
    " VALUES (%(wallet)s, %(actor)s, %(reason)s, %(most)s::numeric)"
)


def forge(user, most, actor=None, reason="Because.", statement=FORGED):
    execute(
        statement,
        wallet=user.wallet.pk,
        actor=(actor or guardian()).pk,
        reason=reason,
        most=most,
    )


class TestBuckets:
    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ("total = total - 0.01", "wallet_debitbucket_only_grows"),
            ("count = count - 1", "wallet_debitbucket_only_grows"),
            ("hour = hour - interval '1000 hours'", "wallet_debitbucket_only_grows"),
            ("total = 'NaN'", "wallet_debitbucket_in_range"),
        ],
    )
    def test_given_use_when_making_it_less_then_refused(self, alice, change, rule):
        sent_before(alice, "0 hours", total="5.00", count=2)
        with refused_by(rule):
            execute(f"UPDATE wallet_debitbucket SET {change}")

    def test_given_use_within_30_days_when_deleting_it_then_refused(self, alice):
        sent_before(alice, "720 hours")
        with refused_by("wallet_debitbucket_is_kept"):
            execute("DELETE FROM wallet_debitbucket")

    def test_given_a_moment_within_an_hour_when_inserting_then_refused(self, alice):
        with refused_by("wallet_debitbucket_begins_on_the_hour"):
            execute(
                "INSERT INTO wallet_debitbucket (wallet_id, hour, total, count)"
                " VALUES (%(wallet)s, '2026-11-22 13:30:00+00', 1, 1)",
                wallet=alice.wallet.pk,
            )

    def test_given_old_use_when_cleaning_up_then_it_alone_goes_in_batches(self, alice, bob):
        for hours in (722, 723, 724, 730, 2000):
            sent_before(alice, f"{hours} hours")
        for hours in (0, 24, 720):
            sent_before(bob, f"{hours} hours")
        assert wallets.delete_old_debits(batch_size=2, batches_max=1) == 2
        delete_old_debits(something_newer=True)
        assert set(DebitBucket.objects.values_list("wallet__user", flat=True)) == {bob.pk}
        assert DebitBucket.objects.count() == 3

    def test_given_a_moved_session_time_zone_when_counting_then_hours_are_of_utc(self, alice):
        execute("SET TIME ZONE 'Asia/Kathmandu'")  # 45 minutes off
        try:
            wallets.record_debits(Spent(alice.wallet.pk, Decimal("1.00"), 1))
        finally:
            execute("SET TIME ZONE 'UTC'")
        assert connection.is_usable()
        assert DebitBucket.objects.get().hour.minute == 0

    def test_given_a_closed_wallet_then_its_use_stays(self, bob):
        sent_before(bob, "1 hour")
        close(bob)
        assert limits_of(bob)["daily_count"]["used"] == 1
