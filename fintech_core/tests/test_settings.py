"""A half-configured server does not start, and an unsafe one is reported before it serves."""

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.checks import run_checks

from fintech_core.embedded.environment import production_environment


def start(**changes):
    environment = {**os.environ, **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"],
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
        ("FIELD_ENCRYPTION_KEYS", None),
        ("DATABASE_URL", None),
        ("REDIS_URL", None),
        ("DEFAULT_CURRENCY", "JPY"),
    ],
)
def test_given_a_missing_or_weak_value_when_starting_then_it_refuses_and_names_it(name, value):
    refused = start(**{name: value})
    assert refused.returncode != 0
    assert name in refused.stderr


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


def test_given_no_rate_limits_when_checking_then_a_warning(settings):
    settings.RATELIMIT_ENABLE = False
    assert "fintech.W001" in deploy_findings()


def test_given_one_database_role_when_checking_then_a_warning(settings):
    assert "fintech.W002" not in deploy_findings()
    serving = settings.DATABASES["default"]
    settings.DATABASES = {"default": serving, "owner": serving}
    assert "fintech.W002" in deploy_findings()


def test_given_plain_http_when_checking_then_a_warning(settings):
    settings.IS_HTTPS = False
    assert "fintech.W003" in deploy_findings()


def test_given_the_environment_when_starting_then_the_driver_is_psycopg2():
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    assert is_psycopg3 is False
