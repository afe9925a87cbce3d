"""Migrating backwards: no table that has rows is dropped."""

import pytest
from django.core.management import CommandError, call_command

from conftest import owner_cursor
from transactions.tests.helpers import person, reserve

NEWEST = "SELECT count(*) FROM django_migrations WHERE name = '0033_leaves_by_key'"

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "owner"])


def one(statement):
    with owner_cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def test_given_rows_when_migrating_back_before_their_table_then_refused_and_they_stay():
    reserve(person("100.00"), person(), "40.00")
    with pytest.raises(CommandError, match="transactions_hold"):
        call_command("migrate", "transactions", "0005", verbosity=0)
    assert one("SELECT count(*) FROM transactions_hold") == 1
    assert one(NEWEST) == 1  # not one step was gone


def test_given_rows_when_only_the_record_goes_back_then_it_may():
    reserve(person("100.00"), person(), "40.00")
    try:
        call_command("migrate", "transactions", "0005", "--fake", verbosity=0)
        assert one(NEWEST) == 0
    finally:
        call_command("migrate", "--fake", verbosity=0)
    assert one("SELECT count(*) FROM transactions_hold") == 1
    assert one(NEWEST) == 1
