"""What every test shares: a database made by its owner, emptied by its owner, served by the other.

The tests run as the serving role, which can neither truncate nor switch off a trigger, so what they
find refused is refused in production too.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import TransactionTestCase

from fintech_core.celery import app as celery_app

KEPT_TABLES = {"django_migrations", "django_content_type", "auth_permission"}


@contextmanager
def owner_cursor(database: str | None = None) -> Iterator[Any]:
    """A superuser's cursor, beyond Django: for emptying tables and for tampering."""
    config = settings.DATABASES["owner"]
    connection = psycopg2.connect(
        host=config["HOST"],
        port=config["PORT"],
        user=config["USER"],
        password=config["PASSWORD"],
        dbname=database or config["NAME"],
    )
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> Iterator[None]:
    """A database of this run's (and this xdist worker's) own, migrated by the owner."""
    original = settings.DATABASES["owner"]["NAME"]
    name = f"{original}_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    with owner_cursor(original) as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE "{name}"')
    _use_database(name)
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
    yield
    with django_db_blocker.unblock():
        connections.close_all()


def _use_database(name: str) -> None:
    for alias in ("default", "owner"):
        connections[alias].close()
        connections[alias].settings_dict["NAME"] = name
        settings.DATABASES[alias]["NAME"] = name
        # For processes that a test starts: a Celery worker, a web server.
        variable = "DATABASE_URL" if alias == "default" else "DATABASE_OWNER_URL"
        os.environ[variable] = os.environ[variable].rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture(scope="session", autouse=True)
def own_redis_database() -> None:
    """Each xdist worker has its own Redis database: its own counters and its own queue."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    url = os.environ["REDIS_URL"].rsplit("/", 1)[0] + f"/{int(worker) + 1}"
    os.environ["REDIS_URL"] = settings.CELERY_BROKER_URL = url
    settings.CACHES["default"]["LOCATION"] = url
    celery_app.conf.broker_url = url


@pytest.fixture(scope="session", autouse=True)
def empty_tables_as_owner() -> Iterator[None]:
    """Django would TRUNCATE as the serving role, which the ledger refuses."""
    original = TransactionTestCase._fixture_teardown
    TransactionTestCase._fixture_teardown = lambda _: empty_tables()
    yield
    TransactionTestCase._fixture_teardown = original


def empty_tables() -> None:
    with owner_cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = ", ".join(f'"{row[0]}"' for row in cursor.fetchall() if row[0] not in KEPT_TABLES)
        cursor.execute(
            "SET lock_timeout = '10s'; SET session_replication_role = replica; "
            f"TRUNCATE {names} RESTART IDENTITY"
        )


@pytest.fixture(autouse=True)
def fresh_counters() -> None:
    """Rate limits count in Redis; one test's attempts are not the next one's."""
    from django.core.cache import cache

    cache.clear()


@pytest.fixture(autouse=True)
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits count in fixed windows; a test must not straddle the end of one."""
    end = int(time.time()) + 50
    monkeypatch.setattr("django_ratelimit.core._get_window", lambda value, period: end)


@pytest.fixture
def owner() -> Iterator[Any]:
    """The owner's cursor, to do what the serving role cannot."""
    with owner_cursor() as cursor:
        yield cursor
