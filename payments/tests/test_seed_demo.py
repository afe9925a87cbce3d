"""The demo: made again it changes nothing, and everyone in it can prove their history at once."""

import io

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command

from fintech_core.operations import GROUP
from payments.management.commands.seed_demo import PEOPLE, REVIEWER
from payments.models import Payout
from transactions.models import LedgerCheckpoint, Transaction
from transactions.tests.helpers import breaches, client_of, send
from users.models import User


@pytest.mark.django_db(transaction=True)
def test_given_a_demo_of_an_earlier_version_when_seeding_again_then_its_reviewer_catches_up():
    # Given
    Group.objects.get_or_create(name=GROUP)
    call_command("seed_demo", stdout=io.StringIO())
    olivia = User.objects.get(email=REVIEWER)
    olivia.groups.clear()
    olivia.user_permissions.clear()
    posted = Transaction.objects.count()
    # When
    call_command("seed_demo", stdout=io.StringIO())
    # Then
    olivia = User.objects.get(email=REVIEWER)
    assert olivia.groups.filter(name=GROUP).exists()
    assert olivia.has_perm("users.review_kyc")
    assert User.objects.count() == len(PEOPLE) + 1
    assert Transaction.objects.count() == posted
    assert [payout.status for payout in Payout.objects.all()] == ["pending"]


@pytest.mark.django_db(transaction=True)
def test_given_a_fresh_demo_then_checkpoints_and_proofs_answer_at_once():
    # When
    call_command("seed_demo", stdout=io.StringIO())
    # Then
    alice = client_of(User.objects.get(email="alice@example.com"))
    [listed] = alice.get("/api/v1/transactions/checkpoints/").json()["results"]
    proof = alice.get("/api/v1/wallets/me/proof/")
    assert proof.status_code == 200
    assert proof.json()["checkpoint"] == listed
    assert breaches() == []


@pytest.mark.django_db(transaction=True)
def test_given_a_demo_when_seeding_again_then_a_checkpoint_only_if_money_moved():
    call_command("seed_demo", stdout=io.StringIO())
    call_command("seed_demo", stdout=io.StringIO())
    assert LedgerCheckpoint.objects.count() == 1
    alice, bob = (User.objects.get(email=f"{name}@example.com") for name in ("alice", "bob"))
    send(alice, bob, "1.00")
    call_command("seed_demo", stdout=io.StringIO())
    assert list(LedgerCheckpoint.objects.order_by("number").values_list("number", flat=True)) == [
        1,
        2,
    ]


@pytest.mark.django_db(transaction=True)
def test_given_another_signing_key_when_seeding_again_then_it_says_so_and_goes_on(settings):
    # Given
    call_command("seed_demo", stdout=io.StringIO())
    settings.LEDGER_SIGNING_KEYS = [bytes(range(32))]
    said, complained = io.StringIO(), io.StringIO()
    # When
    call_command("seed_demo", stdout=said, stderr=complained)
    # Then
    assert "No checkpoint was taken" in complained.getvalue()
    assert "not in LEDGER_SIGNING_KEY" in complained.getvalue()
    assert REVIEWER in said.getvalue()
    assert LedgerCheckpoint.objects.count() == 1
