"""What Django does before each request, and need not do here."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections, transaction

from fintech_core.database import query
from users.tests.factories import UserFactory, client_for


@pytest.mark.django_db
def test_given_no_debugging_when_calling_then_no_query_is_kept_that_somebody_must_forget():
    assert client_for(UserFactory()).get("/api/v1/wallets/me/").status_code == 200
    assert not connection.queries_log


def test_given_another_thread_when_it_asks_for_its_connection_then_it_has_one_of_its_own():
    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(lambda: connections["default"]).result()
    assert connections["default"] is connections["default"]
    assert theirs is not connections["default"]


def test_given_an_event_loop_when_it_asks_the_database_then_refused_as_by_django():
    async def ask():
        connection.cursor()

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(ask())


@pytest.mark.django_db(transaction=True)
def test_given_an_event_loop_that_began_a_transaction_when_the_next_one_ends_then_it_is_committed():
    async def begin():
        with transaction.atomic():
            pass

    connection.ensure_connection()
    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(begin())
    with transaction.atomic():
        query("SELECT 1")
    assert not connection.connection.in_transaction
