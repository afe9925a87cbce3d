"""What each operation asks of PostgreSQL: an exact number, so that none grows unnoticed."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import empty_tables
from fintech_core.tests.calls import CALLS, documented, lists

# How many statements a call sends when it succeeds, signed in. Each is a round trip, so
# savepoints count as well, and COMMIT unless others travel with it. Not counted: what triggers do
# inside PostgreSQL.
STATEMENTS = {
    "POST /api/v1/auth/login/": 4,
    "POST /api/v1/auth/logout/": 3,
    "POST /api/v1/auth/refresh/": 3,
    "POST /api/v1/auth/verify/": 1,
    "GET /api/v1/payments/intents/": 2,
    "POST /api/v1/payments/intents/": 18,
    "GET /api/v1/payments/intents/{id}/": 2,
    "POST /api/v1/payments/intents/{id}/cancel/": 4,
    "POST /api/v1/payments/intents/{id}/simulate/": 6,
    "GET /api/v1/payments/payouts/": 2,
    "POST /api/v1/payments/payouts/": 22,
    "GET /api/v1/payments/payouts/{id}/": 2,
    "POST /api/v1/payments/intents/{id}/refund/": 40,
    "GET /api/v1/payments/webhook-events/": 4,
    "GET /api/v1/payments/webhook-events/{id}/": 4,
    "POST /api/v1/payments/webhooks/{gateway}/": 1,
    "GET /api/v1/transactions/": 2,
    "GET /api/v1/transactions/?created_after&created_before": 2,
    "POST /api/v1/transactions/batch/": 3,
    "GET /api/v1/transactions/checkpoints/": 2,
    "GET /api/v1/transactions/history/": 2,
    "GET /api/v1/transactions/holds/": 3,
    "POST /api/v1/transactions/holds/": 7,
    "GET /api/v1/transactions/holds/{id}/": 2,
    "POST /api/v1/transactions/holds/{id}/capture/": 7,
    "POST /api/v1/transactions/holds/{id}/void/": 11,
    "GET /api/v1/transactions/ledger/": 2,
    "POST /api/v1/transactions/transfer/": 3,
    "GET /api/v1/transactions/{id}/": 2,
    "GET /api/v1/transactions/{id}/ledger/": 3,
    "POST /api/v1/transactions/{id}/refund/": 6,
    "GET /api/v1/users/": 2,
    "GET /api/v1/users/me/": 1,
    "PATCH /api/v1/users/me/": 8,
    "GET /api/v1/users/me/kyc/": 3,
    "POST /api/v1/users/me/kyc/": 11,
    "POST /api/v1/users/me/password/": 7,
    "POST /api/v1/users/register/": 4,
    "GET /api/v1/users/{id}/": 2,
    "POST /api/v1/users/{id}/kyc/approve/": 14,
    "POST /api/v1/users/{id}/kyc/reject/": 14,
    "GET /api/v1/wallets/me/": 2,
    "GET /api/v1/wallets/me/balance/": 2,
    "GET /api/v1/wallets/me/balance/?at": 5,
    "GET /api/v1/wallets/me/limits/": 3,
    "GET /api/v1/wallets/me/proof/": 5,
    "GET /api/v1/wallets/me/statement/": 8,
    "POST /api/v1/wallets/{id}/close/": 11,
    "POST /api/v1/wallets/{id}/freeze/": 11,
    "POST /api/v1/wallets/{id}/unfreeze/": 11,
    "GET /api/v1/webhook-endpoints/": 2,
    "POST /api/v1/webhook-endpoints/": 3,
    "GET /api/v1/webhook-endpoints/{id}/": 2,
    "PATCH /api/v1/webhook-endpoints/{id}/": 6,
    "DELETE /api/v1/webhook-endpoints/{id}/": 5,
    "POST /api/v1/webhook-endpoints/{id}/rotate-secret/": 5,
    "GET /api/v1/webhook-endpoints/{id}/deliveries/": 3,
    "GET /api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}/": 4,
    "POST /api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}/replay/": 7,
}


@pytest.fixture(scope="module", autouse=True)
def committed(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Calls commit, as in production: inside a test's transaction BEGIN would be a savepoint."""
    with django_db_blocker.unblock():
        yield
        empty_tables()


def statements_of(send: Any, **query: Any) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        send(**query)
    return [query["sql"] for query in queries.captured_queries]


def test_given_the_document_then_every_operation_has_a_stated_number() -> None:
    operations = {name for name, _ in documented()}
    assert {name.partition("?")[0] for name in STATEMENTS} == operations
    assert STATEMENTS.keys() == CALLS.keys()


@pytest.mark.parametrize("operation", CALLS)
def test_given_a_call_when_it_succeeds_then_exactly_so_many_statements(operation: str) -> None:
    sent = statements_of(CALLS[operation]().ready(operation))
    assert len(sent) == STATEMENTS[operation], f"{len(sent)}:\n" + "\n".join(sent)


@pytest.mark.parametrize("operation", lists())
def test_given_more_rows_when_listing_then_as_many_statements(operation: str) -> None:
    send = CALLS[operation]().ready(operation)
    assert len(send().json()["results"]) > 1
    one, all_rows = statements_of(send, page_size=1), statements_of(send)
    assert len(one) == len(all_rows), "\n".join(all_rows)
