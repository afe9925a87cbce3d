"""What Django does before each request, and need not do here."""

import pytest
from django.db import connection

from users.tests.factories import UserFactory, client_for


@pytest.mark.django_db
def test_given_no_debugging_when_calling_then_no_query_is_kept_that_somebody_must_forget():
    assert client_for(UserFactory()).get("/api/v1/wallets/me/").status_code == 200
    assert not connection.queries_log
