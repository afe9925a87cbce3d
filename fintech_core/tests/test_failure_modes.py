"""What holds for the whole house; see docs/failure-modes.md."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connections
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from fintech_core.pagination import CursorPagination

ROOT = Path(settings.BASE_DIR)
APPS = ("fintech_core", "users", "wallet", "transactions", "payments")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("", 25),
        ("7", 7),
        ("100", 100),
        ("100000", 100),
        ("0", 25),
        ("x", 25),
        ("1_0", 25),
        (" 7 ", 25),
        ("+7", 25),
        ("\u0667", 25),  # 7 in Arabic digits
    ],
)
def test_given_any_page_size_when_listing_then_at_most_a_hundred(asked, given):
    request = Request(APIRequestFactory().get("/", {"page_size": asked}))
    assert CursorPagination().get_page_size(request) == given


@pytest.mark.django_db(databases=["default", "owner"])
@pytest.mark.parametrize(
    ("role", "limits"),
    [
        ("default", {"lock_timeout": "4s", "statement_timeout": "15s"}),
        ("default", {"idle_in_transaction_session_timeout": "30s"}),
        ("owner", {"lock_timeout": "5s"}),  # a migration that waits longer gives up
    ],
)
def test_given_a_connection_when_it_waits_then_there_is_an_end(role, limits):
    with connections[role].cursor() as cursor:
        for name, expected in limits.items():
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() == (expected,)


def test_given_a_task_that_runs_long_then_it_is_ended_before_it_is_handed_out_again():
    handed_out_again = settings.CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"]
    assert settings.CELERY_TASK_SOFT_TIME_LIMIT < settings.CELERY_TASK_TIME_LIMIT < handed_out_again
    assert settings.CELERY_TASK_ACKS_LATE
    assert settings.CELERY_TASK_REJECT_ON_WORKER_LOST


def test_given_the_code_when_looking_for_caches_then_no_app_has_one():
    """Money and permissions are read from PostgreSQL alone. Health asks whether Redis answers, and
    rate limits count there."""
    users_of_the_cache = {
        path.relative_to(ROOT).as_posix()
        for app in APPS
        for path in (ROOT / app).rglob("*.py")
        if "tests" not in path.parts
        and re.search(r"django\.core\.cache|get_redis_connection|cache_page", path.read_text())
    }
    assert users_of_the_cache == {"fintech_core/ratelimit.py", "fintech_core/views.py"}
