"""`.env.example` is complete: whoever reads it knows every variable there is."""

import ast
import re
from pathlib import Path

import pytest

from fintech_core.embedded.environment import environment_for_tests, production_environment

PROJECT = Path(__file__).resolve().parents[2]

CONTRACT = [
    "SECRET_KEY",
    "JWT_SIGNING_KEY",
    "FIELD_ENCRYPTION_KEYS",
    "LEDGER_SIGNING_KEY",
    "DEBUG",
    "ALLOWED_HOSTS",
    "PUBLIC_BASE_URL",
    "DATABASE_URL",
    "DATABASE_OWNER_URL",
    "REDIS_URL",
    "EMAIL_URL",
    "MEDIA_ROOT",
    "LOG_DIR",
    "DEFAULT_CURRENCY",
    "PAYMENTS_SANDBOX",
    "SANDBOX_WEBHOOK_SECRET",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "WEBHOOK_ALLOW_PRIVATE_TARGETS",
    "CORS_ALLOWED_ORIGINS",
    "TRUSTED_PROXY_COUNT",
    "METRICS_TOKEN",
    "RATELIMIT_ENABLE",
    "RATE_LIMIT_LOGIN",
    "RATE_LIMIT_REGISTER",
    "RATE_LIMIT_TRANSFER",
    "RATE_LIMIT_PAYMENT",
    "DJANGO_SUPERUSER_EMAIL",
    "DJANGO_SUPERUSER_PASSWORD",
    "PORT",
]

SECRETS = [
    "SECRET_KEY",
    "JWT_SIGNING_KEY",
    "FIELD_ENCRYPTION_KEYS",
    "LEDGER_SIGNING_KEY",
    "SANDBOX_WEBHOOK_SECRET",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "METRICS_TOKEN",
    "DJANGO_SUPERUSER_PASSWORD",
    "POSTGRES_OWNER_PASSWORD",
    "POSTGRES_APP_PASSWORD",
    "REDIS_PASSWORD",
]

# Set by whoever starts the servers, not by the template of an environment.
ADDRESSES = {"DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL"}


def example() -> dict[str, str]:
    """The variables of `.env.example` with their values."""
    lines = (PROJECT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def read_by_settings() -> set[str]:
    """Every upper-case first argument of a call in settings.py that has to do with `env`."""
    tree = ast.parse((PROJECT / "fintech_core" / "settings.py").read_text())
    return {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and re.match(r"env(\.\w+)?$|secret$|database$", ast.unparse(call.func))
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def read_elsewhere() -> set[str]:
    """What gunicorn's configuration, the entrypoint and the compose file ask for."""
    gunicorn = (PROJECT / "fintech_core" / "gunicorn_conf.py").read_text()
    compose = (PROJECT / "docker-compose.yml").read_text()
    return set(re.findall(r'environ\.get\("(\w+)"\)', gunicorn)) | set(
        re.findall(r"\$\{([A-Z_]+)", compose)
    )


class TestEnvExample:
    def test_given_the_settings_when_they_read_a_variable_then_it_is_listed(self) -> None:
        assert len(read_by_settings()) > 20
        assert read_by_settings() - set(example()) == set()

    def test_given_the_contract_when_it_names_a_variable_then_it_is_listed(self) -> None:
        assert set(CONTRACT) - set(example()) == set()

    def test_given_the_other_readers_when_they_ask_for_a_variable_then_it_is_listed(self) -> None:
        assert read_elsewhere() - set(example()) == set()

    def test_given_a_listed_variable_when_looking_above_it_then_a_comment_explains_it(self) -> None:
        explained = False
        for line in (PROJECT / ".env.example").read_text().splitlines():
            if line.startswith("# ---") or not line:
                explained = False
            elif line.startswith("#"):
                explained = True
            elif not line.startswith("DJANGO_SUPERUSER"):  # explained by their headline
                assert explained, line

    def test_given_the_template_when_reading_values_then_none_has_a_comment_behind_it(self) -> None:
        assert [value for value in example().values() if "#" in value or " " in value] == []

    @pytest.mark.parametrize("name", SECRETS)
    def test_given_the_template_when_used_as_it_is_then_it_holds_no_secret(self, name: str) -> None:
        assert example()[name] == ""

    def test_given_the_template_when_used_in_production_then_the_sandbox_is_off(self) -> None:
        assert example()["PAYMENTS_SANDBOX"] != "true"
        assert example()["DEBUG"] == "false"


class TestEnvironmentOfTheTests:
    def test_given_a_dot_env_when_testing_then_none_of_its_settings_gets_in(
        self, tmp_path: Path
    ) -> None:
        """The settings fill gaps from `.env`, so there must be no gap."""
        assert read_by_settings() - ADDRESSES - set(environment_for_tests(tmp_path)) == set()


class TestEnvironmentOfTheDeployCheck:
    def test_given_production_when_checking_then_every_secret_is_there(self) -> None:
        production = production_environment()
        assert all(production[name] for name in SECRETS[:4])
        assert production["PAYMENTS_SANDBOX"] == "false"
