"""The environment of `make run`, `make test` and `make check`: who decides which variable."""

import base64
import os
import secrets
from pathlib import Path
from typing import ClassVar

import environ

from fintech_core.embedded.errors import EmbeddedError
from fintech_core.embedded.files import read_json, write_json
from fintech_core.environment import MEANINGFUL_WHEN_EMPTY

PROJECT = Path(__file__).resolve().parents[2]
LOCAL = PROJECT / ".local"
DEFAULT_PORT = "8000"
DEMO_SUPERUSER = {
    "DJANGO_SUPERUSER_EMAIL": "admin@example.com",
    "DJANGO_SUPERUSER_PASSWORD": "demo-Admin-2026",
}


def new_secrets() -> dict[str, str]:
    """Every secret that the settings ask for, freshly made."""
    return {
        "SECRET_KEY": secrets.token_urlsafe(64),
        "JWT_SIGNING_KEY": secrets.token_urlsafe(48),
        "FIELD_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "LEDGER_SIGNING_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "SANDBOX_WEBHOOK_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    }


def kept_secrets(path: Path) -> dict[str, str]:
    """The secrets in `path`, made at the first start: a new key could not read old documents."""
    known = {name: str(value) for name, value in read_json(path).items()}
    complete = new_secrets() | known
    if complete != known:
        write_json(path, complete)
    return complete


def dot_env() -> dict[str, str]:
    """What `.env` in the project's folder says, read exactly as the settings read it."""

    class File(environ.Env):
        ENVIRON: ClassVar[dict[str, str]] = {}

    File.read_env(PROJECT / ".env")
    return dict(File.ENVIRON)


def given() -> dict[str, str]:
    """What the person decided: `.env`, overruled by the real environment."""
    return {
        name: value
        for name, value in (dot_env() | dict(os.environ)).items()
        if value or name in MEANINGFUL_WHEN_EMPTY
    }


def prepare_local() -> None:
    """Make `.local/`, closed to others; a sentence instead of a traceback if we may not."""
    try:
        LOCAL.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise EmbeddedError(f"{LOCAL} cannot be made: {exc.strerror}.") from exc
    if not os.access(LOCAL, os.R_OK | os.W_OK | os.X_OK):
        raise EmbeddedError(
            f"{LOCAL} belongs to another user (an earlier run as root?).\n"
            "Give it back with chown, or remove it as that user."
        )


def run_environment() -> dict[str, str]:
    """For `make run`: a complete local demo, in which every given variable wins.

    The addresses of the servers are added by whoever starts them.
    """
    prepare_local()
    chosen = given()
    port = chosen.get("PORT", DEFAULT_PORT)
    defaults = {
        **kept_secrets(LOCAL / "secrets.json"),
        **DEMO_SUPERUSER,
        "DEBUG": "false",
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "PORT": port,
        "PUBLIC_BASE_URL": f"http://localhost:{port}",
        "PAYMENTS_SANDBOX": "true",
        "MEDIA_ROOT": str(LOCAL / "media"),
        "LOG_DIR": str(PROJECT / "logs"),
    }
    return defaults | chosen


def environment_for_tests(folder: Path) -> dict[str, str]:
    """For tests: the same on every machine, whatever its `.env` or its shell say.

    Every variable of the contract is set, because the settings fill gaps from `.env`.
    """
    return {
        **os.environ,
        **new_secrets(),
        "DJANGO_SETTINGS_MODULE": "fintech_core.settings",
        "DEBUG": "false",
        "ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
        "PUBLIC_BASE_URL": "http://testserver",
        "PORT": DEFAULT_PORT,
        "EMAIL_URL": "memorymail://",
        "MEDIA_ROOT": str(folder / "media"),
        "LOG_DIR": str(folder / "logs"),
        "DEFAULT_CURRENCY": "USD",
        "PAYMENTS_SANDBOX": "true",
        "SANDBOX_DELIVERY_BASE_URL": "http://127.0.0.1:9",  # nobody listens
        "STRIPE_API_KEY": "",
        "STRIPE_WEBHOOK_SECRET": "",
        "STRIPE_PAYOUT_ACCOUNT": "",
        "STRIPE_API_BASE": "",
        "WEBHOOK_ALLOW_PRIVATE_TARGETS": "false",
        "WEBHOOK_DISABLE_AFTER_DAYS": "5",
        "CORS_ALLOWED_ORIGINS": "",
        "TRUSTED_PROXY_COUNT": "0",
        "METRICS_TOKEN": "",
        "RATELIMIT_ENABLE": "true",
        "RATE_LIMIT_LOGIN": "10/m",
        "RATE_LIMIT_REGISTER": "10/m",
        "RATE_LIMIT_TRANSFER": "60/m",
        "RATE_LIMIT_PAYMENT": "30/m",
        **DEMO_SUPERUSER,
    }


def production_environment() -> dict[str, str]:
    """As a careful company would set it, for `check --deploy`. No server is contacted."""
    return {
        **os.environ,
        **new_secrets(),
        **offline_addresses(),
        "DJANGO_SETTINGS_MODULE": "fintech_core.settings",
        "DEBUG": "false",
        "ALLOWED_HOSTS": "api.example.com",
        "PUBLIC_BASE_URL": "https://api.example.com",
        "PORT": DEFAULT_PORT,
        "EMAIL_URL": "smtp+tls://mailer:secret@mail.example.com:587",
        "LOG_DIR": "",
        "DEFAULT_CURRENCY": "USD",
        "PAYMENTS_SANDBOX": "false",
        "SANDBOX_WEBHOOK_SECRET": "",
        "SANDBOX_DELIVERY_BASE_URL": "",
        "STRIPE_API_KEY": "",
        "STRIPE_WEBHOOK_SECRET": "",
        "STRIPE_PAYOUT_ACCOUNT": "",
        "STRIPE_API_BASE": "",
        "WEBHOOK_ALLOW_PRIVATE_TARGETS": "false",
        "WEBHOOK_DISABLE_AFTER_DAYS": "5",
        "CORS_ALLOWED_ORIGINS": "https://app.example.com",
        "TRUSTED_PROXY_COUNT": "1",
        "METRICS_TOKEN": secrets.token_urlsafe(32),
        "RATELIMIT_ENABLE": "true",
    }


def offline_addresses() -> dict[str, str]:
    """Addresses that nobody answers, for what only reads the settings (types, static files)."""
    return {
        "DATABASE_OWNER_URL": "postgres://fintech_owner:none@127.0.0.1:9/fintech",
        "DATABASE_URL": "postgres://fintech_app:none@127.0.0.1:9/fintech",
        "REDIS_URL": "redis://127.0.0.1:9/0",
    }
