"""What Django does at both ends of each request, and need not do here."""

import pytest
from django.conf import settings
from django.db import connection

from users.tests.factories import UserFactory, client_for


@pytest.mark.django_db
def test_given_no_debugging_when_calling_then_no_query_is_kept_that_somebody_must_forget():
    assert client_for(UserFactory()).get("/api/v1/wallets/me/").status_code == 200
    assert not connection.queries_log


def test_given_our_settings_when_a_request_has_ended_then_the_cache_keeps_its_connections():
    assert not hasattr(settings, "DJANGO_REDIS_CLOSE_CONNECTION")
    assert "CLOSE_CONNECTION" not in settings.CACHES["default"]["OPTIONS"]
