"""Statements that travel together arrive in the order in which they were sent."""

import pytest
from django.db import connection, transaction

from fintech_core.database import execute, query, send_along, sent_together

pytestmark = pytest.mark.django_db(transaction=True)

NOTE = "INSERT INTO noted (what) VALUES (%(what)s)"


@pytest.fixture
def noted():
    execute("CREATE TEMPORARY TABLE noted (number serial, what text)")
    yield lambda: [row[0] for row in query("SELECT what FROM noted ORDER BY number")]
    execute("DROP TABLE noted")


def test_given_statements_sent_along_when_one_asks_then_all_went_before_it(noted):
    with transaction.atomic(), sent_together():
        send_along(NOTE, what="100 %s; 'quoted' \\")
        send_along(NOTE, what="two")
        assert noted() == ["100 %s; 'quoted' \\", "two"]
        send_along(NOTE, what="three")
    assert noted()[-1] == "three"


def test_given_an_inner_company_when_sent_along_then_it_does_not_overtake(noted):
    with transaction.atomic(), sent_together():
        send_along(NOTE, what="outer")
        with sent_together():
            send_along(NOTE, what="inner")
        assert noted() == ["outer", "inner"]


def test_given_an_exception_when_statements_wait_then_they_never_go(noted):
    @transaction.atomic
    def fail():
        with sent_together():
            send_along(NOTE, what="lost")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert noted() == []


def test_given_no_parameters_when_carried_then_a_percent_sign_means_the_same(noted):
    with transaction.atomic(), sent_together(), connection.cursor() as cursor:
        send_along(NOTE, what="first")
        cursor.execute("SELECT 'a%%'", ())
        assert cursor.fetchone() == ("a%",)


def test_given_many_rows_when_something_waits_then_it_is_refused_not_mangled(noted):
    @transaction.atomic
    def send_many():
        with sent_together(), connection.cursor() as cursor:
            send_along(NOTE, what="first")
            cursor.executemany("INSERT INTO noted (what) VALUES (%s)", [("a",), ("b",)])

    with pytest.raises(NotImplementedError):
        send_many()
    assert noted() == []
