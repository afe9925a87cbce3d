"""Locked wallets are read from one text, not column by column: nothing may be lost on the way."""

from decimal import Decimal

import pytest
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from transactions.tests.helpers import person, send
from users.models import Session, SessionEnd
from users.queries import find_session
from users.tests.factories import sign_in
from users.tokens import read_access
from wallet.locking import _OWNER_COLUMNS, LockedParties, lock_wallets
from wallet.models import Wallet
from wallet.queries import Debits, debits_of

pytestmark = pytest.mark.django_db


def columns(instance):
    return {
        field.attname: getattr(instance, field.attname) for field in instance._meta.concrete_fields
    }


@pytest.mark.parametrize("funded", ["0.01", "123.45", "49999.99"])
def test_given_a_wallet_when_locked_then_it_and_its_owner_are_as_the_orm_reads_them(funded):
    owner = person(funded)
    with transaction.atomic():
        [locked] = lock_wallets(owner.wallet.pk).values()
    stored = Wallet.objects.select_related("user").get(user=owner)
    assert columns(locked) == columns(stored)
    assert {name: getattr(locked.user, name) for name in _OWNER_COLUMNS} == {
        name: getattr(stored.user, name) for name in _OWNER_COLUMNS
    }
    assert str(locked.balance) == str(stored.balance)
    assert locked.locked_at.utcoffset() == stored.updated_at.utcoffset()


def test_given_what_was_spent_when_locked_then_totals_are_as_they_are_kept():
    payer, payee = person("100.00"), person()
    for amount in ("0.01", "10.10"):
        send(payer, payee, amount)
    with transaction.atomic():
        spent = LockedParties(payer.pk, [payee.email]).spent
    assert spent == debits_of(payer.wallet.pk) == Debits(Decimal("10.11"), 2, Decimal("10.11"), 2)
    assert type(spent.daily_total) is Decimal


def test_given_nothing_spent_when_locked_then_totals_are_amounts():
    with transaction.atomic():
        spent = LockedParties(person("1.00").pk, []).spent
    assert (type(spent.daily_total), spent.daily_total) == (Decimal, Decimal(0))


def test_given_a_session_when_found_then_it_and_its_user_are_as_the_orm_reads_them():
    someone = person(first_name='Zo\u00eb "\\ \U0001f600', last_name="L")
    found = find_session(read_access(sign_in(someone).access))
    stored = Session.objects.select_related("user").get(pk=found.pk)
    assert columns(found) == columns(stored)
    shown = {name: getattr(found.user, name) for name in found.user.__dict__ if name[0] != "_"}
    assert shown == {name: getattr(stored.user, name) for name in shown}
    assert len(shown) == 11


def test_given_a_session_that_was_ended_when_found_then_it_says_when():
    claims = read_access(sign_in(person()).access)
    Session.objects.filter(pk=claims.session_id).update(
        revoked_at=Now(), revoked_reason=SessionEnd.LOGOUT
    )
    found = find_session(claims)
    assert columns(found) == columns(Session.objects.get(pk=found.pk))
    assert not found.is_alive(now=timezone.now())
