"""Wallets that nobody may make twice or take away; see docs/failure-modes.md."""

import pytest
from django.db import IntegrityError, ProgrammingError, connection
from django.db.models import ProtectedError

from users.models import User
from users.tests.factories import UserFactory
from users.tests.helpers import refused_by
from wallet.models import Wallet

pytestmark = pytest.mark.django_db(transaction=True)


def test_given_a_user_with_a_wallet_when_opening_a_second_one_then_refused():
    alice = UserFactory()
    with pytest.raises(IntegrityError, match="user_id"):
        Wallet.objects.create(user=alice, currency="USD")
    assert Wallet.objects.filter(user=alice).count() == 1


def test_given_the_wallet_cannot_be_made_when_a_user_is_then_there_is_no_user(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no wallet today")

    monkeypatch.setattr(Wallet, "save", fail)
    with pytest.raises(RuntimeError, match="no wallet today"):
        UserFactory()
    assert not User.objects.exists()


def test_given_a_user_with_a_wallet_when_deleted_then_both_stay():
    alice = UserFactory()
    with pytest.raises(ProtectedError):
        alice.delete()
    with pytest.raises(ProgrammingError, match="permission denied"), connection.cursor() as cursor:
        cursor.execute("DELETE FROM users_user")
    assert Wallet.objects.filter(user=alice).exists()


def test_given_a_wallet_when_it_would_change_hands_then_refused():
    alice, newcomer = UserFactory(), UserFactory.build()
    with refused_by("wallet_wallet_identity_is_frozen"):
        Wallet.objects.filter(user=alice).update(user_id=newcomer.pk)
