"""A half-configured server does not start, and an unsafe one is reported before it serves."""

import ast
import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.db import connections
from django.test import RequestFactory
from django.views.debug import get_exception_reporter_filter

from fintech_core.embedded.environment import production_environment


def start(program="", **changes):
    environment = {**os.environ, **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {program}"],
        env=environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", None),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", "x" * 60),
        ("SECRET_KEY", "change-me-" + "abcdefghij" * 6),
        ("JWT_SIGNING_KEY", None),
        ("JWT_SIGNING_KEY", "secret"),
        ("JWT_SIGNING_KEY", "abcdefgh" * 6),
        ("JWT_SIGNING_KEY", "{SECRET_KEY}"),
        ("FIELD_ENCRYPTION_KEYS", None),
        ("FIELD_ENCRYPTION_KEYS", "x3Vq-not-base64-of-32-bytes-Zp0aLw8Rt5YkUe1m"),
        ("FIELD_ENCRYPTION_KEYS", "{FIELD_ENCRYPTION_KEYS},short"),
        ("FIELD_ENCRYPTION_KEYS", "A" * 43 + "="),
        ("FIELD_ENCRYPTION_KEYS", ","),
        ("DEBUG", "ture"),
        ("RATELIMIT_ENABLE", "enabled"),
        ("PORT", "http"),
        ("TRUSTED_PROXY_COUNT", "-1"),
        ("TRUSTED_PROXY_COUNT", "one"),
        ("RATE_LIMIT_LOGIN", "10"),
        ("RATE_LIMIT_REGISTER", "10/0m"),
        ("RATE_LIMIT_TRANSFER", "ten/m"),
        ("RATE_LIMIT_PAYMENT", "10/minute"),
        ("METRICS_TOKEN", "guessable"),
        ("PUBLIC_BASE_URL", "api.example.com"),
        ("PUBLIC_BASE_URL", "ftp://api.example.com"),
        ("SANDBOX_WEBHOOK_SECRET", "whsec_AAAA"),
        ("SANDBOX_WEBHOOK_SECRET", "whsec_%%%%"),
        ("SANDBOX_WEBHOOK_SECRET", "{SANDBOX_WEBHOOK_SECRET}," + "A" * 32),
        ("STRIPE_WEBHOOK_SECRET", "whsec_long_enough_to_use,whsec_short"),
        ("STRIPE_API_BASE", "api.example.com"),
        ("SANDBOX_DELIVERY_BASE_URL", "web:8000"),
        ("LEDGER_SIGNING_KEY", None),
        ("LEDGER_SIGNING_KEY", "not base64, but long enough to look like a key!"),
        ("LEDGER_SIGNING_KEY", "c2l4dGVlbiBieXRlcyBhcmUgbm90IGVub3VnaCBoZXJl" * 2),
        ("DATABASE_URL", None),
        ("REDIS_URL", None),
        ("DEFAULT_CURRENCY", "JPY"),
    ],
)
def test_given_a_missing_or_weak_value_when_starting_then_it_refuses_and_names_it(name, value):
    refused = start(**{name: value and value.format(**os.environ)})
    assert refused.returncode != 0
    assert name in refused.stderr


def value_of(expression, **changes):
    """What the settings make of an environment."""
    started = start(
        f"from django.conf import settings; print(repr(settings.{expression}))", **changes
    )
    assert started.returncode == 0, started.stderr
    return ast.literal_eval(started.stdout)


@pytest.mark.parametrize(
    ("name", "setting", "default"),
    [
        ("DEBUG", "DEBUG", False),
        ("RATELIMIT_ENABLE", "RATELIMIT_ENABLE", True),
        ("PAYMENTS_SANDBOX", "PAYMENTS_SANDBOX", False),
        ("WEBHOOK_ALLOW_PRIVATE_TARGETS", "WEBHOOK_ALLOW_PRIVATE_TARGETS", False),
        ("TRUSTED_PROXY_COUNT", "TRUSTED_PROXY_COUNT", 0),
        ("PORT", "PORT", 8000),
        ("ALLOWED_HOSTS", "ALLOWED_HOSTS", []),
        ("CORS_ALLOWED_ORIGINS", "CORS_ALLOWED_ORIGINS", []),
        ("RATE_LIMIT_LOGIN", "RATE_LIMIT_LOGIN", "10/m"),
        ("METRICS_TOKEN", "METRICS_TOKEN", ""),
        ("DEFAULT_CURRENCY", "DEFAULT_CURRENCY", "USD"),
        ("EMAIL_URL", "EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend"),
        ("PUBLIC_BASE_URL", "PUBLIC_BASE_URL", "http://localhost:8000"),
        ("STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRETS", []),
        ("STRIPE_API_BASE", "STRIPE_API_BASE", ""),
        ("SANDBOX_DELIVERY_BASE_URL", "SANDBOX_DELIVERY_BASE_URL", "http://testserver"),
    ],
)
def test_given_an_empty_value_when_starting_then_the_default_holds(name, setting, default):
    assert value_of(setting, **{name: ""}) == default


@pytest.mark.parametrize(
    ("name", "value", "setting", "expected"),
    [
        ("PUBLIC_BASE_URL", "HTTPS://api.example.com/", "IS_HTTPS", True),
        (
            "PUBLIC_BASE_URL",
            "HTTPS://api.example.com/",
            "PUBLIC_BASE_URL",
            "https://api.example.com",
        ),
        ("ALLOWED_HOSTS", "a.example, b.example", "ALLOWED_HOSTS", ["a.example", "b.example"]),
        ("RATELIMIT_ENABLE", "Off", "RATELIMIT_ENABLE", False),
        ("RATE_LIMIT_LOGIN", "100/10m", "RATE_LIMIT_LOGIN", "100/10m"),
        ("SANDBOX_WEBHOOK_SECRET", "whsec_" + "A" * 43, "PAYMENTS_SANDBOX", True),
    ],
)
def test_given_another_spelling_when_starting_then_it_is_understood(name, value, setting, expected):
    assert value_of(setting, **{name: value}) == expected


def test_given_no_sandbox_when_its_secret_is_unusable_then_nobody_minds():
    changes = {"PAYMENTS_SANDBOX": "false", "SANDBOX_WEBHOOK_SECRET": "whsec_AAAA"}
    assert value_of("SANDBOX_WEBHOOK_SECRETS", **changes) == []


def test_given_the_page_for_debugging_when_it_shows_the_settings_then_without_a_password(settings):
    settings.CELERY_BROKER_URL = "redis://:hidden@redis/0"
    settings.CACHES = {"default": {"LOCATION": "redis://:hidden@redis/0"}}
    request = RequestFactory().get("/", DATABASE_URL="postgres://app:hidden@db/fintech")
    shown = get_exception_reporter_filter(request)
    assert "hidden" not in f"{shown.get_safe_settings()}{shown.get_safe_request_meta(request)}"
    password = settings.DATABASES["default"]["PASSWORD"]
    assert repr(password) not in str(shown.get_safe_settings())


def test_given_the_settings_when_listed_then_no_address_with_its_password_has_its_name():
    from fintech_core import settings as module

    assert {"DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL"} & set(dir(module)) == set()


def test_given_a_careful_production_when_checking_then_nothing_is_reported():
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        env=production_environment(),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def deploy_findings():
    return {finding.id for finding in run_checks(include_deployment_checks=True)}


def test_given_the_sandbox_in_production_when_checking_then_an_error(settings):
    settings.PAYMENTS_SANDBOX = True
    assert "fintech.E002" in deploy_findings()
    settings.PAYMENTS_SANDBOX = False
    assert "fintech.E002" not in deploy_findings()


def test_given_webhooks_into_our_own_network_when_checking_then_an_error(settings):
    assert "fintech.E003" not in deploy_findings()
    settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = True
    assert "fintech.E003" in deploy_findings()


def test_given_any_host_when_checking_then_a_warning(settings):
    assert "fintech.W005" not in deploy_findings()
    settings.ALLOWED_HOSTS = ["*"]
    assert "fintech.W005" in deploy_findings()


def test_given_no_rate_limits_when_checking_then_a_warning(settings):
    settings.RATELIMIT_ENABLE = False
    assert "fintech.W001" in deploy_findings()


class TestOneDatabaseRole:
    """No more than the serving role's address is known, as where the web server runs."""

    @pytest.fixture(autouse=True)
    def one_address(self, monkeypatch):
        assert "fintech.W002" not in deploy_findings()
        self.owner = connections["owner"].settings_dict
        monkeypatch.setitem(settings.DATABASES, "owner", settings.DATABASES["default"])
        self.serving = connections["default"].settings_dict
        yield
        connections["default"].close()

    @pytest.mark.django_db(transaction=True)
    def test_given_it_owns_nothing_when_checking_then_silent(self):
        assert "fintech.W002" not in deploy_findings()

    @pytest.mark.django_db(transaction=True)
    def test_given_it_owns_the_tables_when_checking_then_a_warning(self, monkeypatch):
        connections["default"].close()
        monkeypatch.setitem(self.serving, "USER", self.owner["USER"])
        monkeypatch.setitem(self.serving, "PASSWORD", self.owner["PASSWORD"])
        assert "fintech.W002" in deploy_findings()

    @pytest.mark.django_db(transaction=True)
    def test_given_no_database_when_checking_then_a_warning(self, monkeypatch):
        connections["default"].close()
        monkeypatch.setitem(self.serving, "PORT", 1)
        assert "fintech.W002" in deploy_findings()


def test_given_plain_http_when_checking_then_a_warning(settings):
    settings.IS_HTTPS = False
    assert "fintech.W003" in deploy_findings()


def test_given_the_environment_when_starting_then_the_driver_is_psycopg2():
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    assert is_psycopg3 is False
