"""The demo, made again over one that an earlier version made."""

import io

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command

from fintech_core.operations import GROUP
from payments.management.commands.seed_demo import PEOPLE, REVIEWER
from transactions.models import Transaction
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
