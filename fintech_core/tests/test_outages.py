"""When Redis or PostgreSQL dies under a running service: what still works, and what comes back."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from fintech_core.embedded import PostgresServer, ValkeyServer
from fintech_core.tests.live import Web, Worker, wait_until
from payments.gateways import gateway_named

PASSWORD = "demo-Wallet-2026"


class Service:
    """The whole product on servers of its own, which a test may stop and start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = PostgresServer(folder / "postgres", durable=False)
        self.valkey = ValkeyServer(folder / "valkey")

    def __enter__(self):
        self.postgres.start()
        self.valkey.start()
        self.postgres.create_role("fintech_app")
        self.postgres.create_database("fintech", owner="postgres")
        self.environment = {
            "DATABASE_OWNER_URL": self.postgres.url_for("postgres", "fintech"),
            "DATABASE_URL": self.postgres.url_for("fintech_app", "fintech"),
            "REDIS_URL": self.valkey.url,
            "RATE_LIMIT_LOGIN": "5/m",
            "MEDIA_ROOT": str(self.folder / "media"),
        }
        self._manage("migrate", "--verbosity=0")
        self._manage("seed_demo")
        self.web = Web(self.folder, self.environment)
        self.web.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.web.stop()
        self.valkey.stop()
        self.postgres.stop()

    def _manage(self, *arguments: str) -> None:

        subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env={**os.environ, "LOG_DIR": "", **self.environment},
            check=True,
            capture_output=True,
        )

    def call(self, method: str, path: str, body=None, token=None, **headers: str):
        """Status, headers, JSON body and seconds of one HTTP call."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.web.url + path, raw, method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = response.status, response.headers, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as refusal:
            answer = refusal.code, refusal.headers, json.loads(refusal.read())
        return *answer, time.monotonic() - started

    def sign_in(self, email: str) -> str:
        credentials = {"email": email, "password": PASSWORD}
        status, _, tokens, _ = self.call("POST", "/api/v1/auth/login/", credentials)
        assert status == 200
        return tokens["access"]

    def transfer(self, token: str, amount: str, key: str | None = None):
        return self.call(
            "POST",
            "/api/v1/transactions/transfer/",
            {"recipient": "bob@example.com", "amount": amount},
            token,
            Idempotency_Key=key or str(uuid4()),
        )

    def balance(self, token: str) -> Decimal:
        _, _, body, _ = self.call("GET", "/api/v1/wallets/me/balance/", token=token)
        return Decimal(body["balance"])


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


def test_given_redis_stopped_when_using_the_service_then_money_moves_and_nothing_is_lost(
    service, tmp_path
):
    alice = service.sign_in("alice@example.com")
    before = service.balance(alice)
    intent_body = {"amount": "25.00"}
    _, _, intent, _ = service.call(
        "POST", "/api/v1/payments/intents/", intent_body, alice, Idempotency_Key="outage"
    )
    service.valkey.stop()
    try:
        status, _, health, _ = service.call("GET", "/api/health/")
        assert (status, health["status"]) == (200, "degraded")
        assert health["checks"]["database"] == "ok"
        assert health["checks"]["cache"] == health["checks"]["broker"] == "unavailable"

        status, _, posted, seconds = service.transfer(alice, "10.00")
        assert status == 201, posted
        assert seconds < 3

        headers, body = gateway_named("sandbox").signed_event(
            outcome="succeeded",
            gateway_reference=intent["gateway_reference"],
            amount=Decimal("25.00"),
            currency="USD",
        )
        status, _, answer, seconds = service.call(
            "POST",
            "/api/v1/payments/webhooks/sandbox/",
            body,
            **{name.replace("-", "_"): value for name, value in headers.items()},
        )
        assert (status, answer) == (200, {"received": True})
        assert seconds < 3

        wrong = {"email": "emma@example.com", "password": "wrong"}
        guesses = [service.call("POST", "/api/v1/auth/login/", wrong) for _ in range(12)]
        # Twelve tries in at most two windows of five: some are refused, whenever a minute ends.
        refused = [guess for guess in guesses if guess[0] == 429]
        assert refused
        assert refused[0][2]["code"] == "rate_limited"
        assert int(refused[0][1]["Retry-After"]) >= 1
    finally:
        service.valkey.start()

    with Worker(tmp_path, service.environment):
        service_sweep(service)
        expected = before - Decimal("10.00") + Decimal("25.00")
        wait_until(lambda: service.balance(alice) == expected, 30, service.web.said)
    status, _, health, _ = service.call("GET", "/api/health/")
    assert health["status"] == "ok"


def service_sweep(service: Service) -> None:
    """What beat does every few seconds."""

    subprocess.run(
        [
            sys.executable,
            "-m",
            "celery",
            "--app=fintech_core",
            "call",
            "payments.sweep_webhook_events",
        ],
        env={**os.environ, "LOG_DIR": "", **service.environment},
        check=True,
        capture_output=True,
    )


def test_given_postgresql_stopped_when_calling_then_503_soon_and_recovery_without_a_restart(
    service,
):
    bob = service.sign_in("chiara@example.com")
    key = str(uuid4())
    before = service.balance(bob)
    service.postgres.stop()
    try:
        for path in ("/api/v1/wallets/me/", "/api/v1/transactions/history/"):
            status, headers, problem, seconds = service.call("GET", path, token=bob)
            assert (status, problem["code"]) == (503, "service_unavailable")
            assert headers["Content-Type"] == "application/problem+json"
            assert headers["Retry-After"]
            assert problem["request_id"] == headers["X-Request-ID"]
            assert seconds < 2
        status, _, problem, seconds = service.transfer(bob, "1.00", key)
        assert (status, problem["code"]) == (503, "service_unavailable")
        assert seconds < 2
        login = {"email": "bob@example.com", "password": PASSWORD}
        status, _, problem, seconds = service.call("POST", "/api/v1/auth/login/", login)
        assert (status, problem["code"]) == (503, "service_unavailable")
        status, _, health, _ = service.call("GET", "/api/health/")
        assert (status, health["checks"]["database"]) == (503, "unavailable")
        assert service.call("GET", "/api/health/live/")[0] == 200
        assert service.call("GET", "/api/health/ready/")[0] == 503
    finally:
        service.postgres.start()

    status, _, _, _ = service.transfer(bob, "1.00", key)
    assert status == 201
    status, headers, _, _ = service.transfer(bob, "1.00", key)
    assert headers["Idempotent-Replayed"] == "true"
    assert service.balance(bob) == before - Decimal("1.00")


@contextmanager
def standing_still(server: PostgresServer) -> Iterator[None]:
    """Paused while its machine goes on, as `docker pause` does it."""
    main = int((server.data / "postmaster.pid").read_text().split("\n", 1)[0])
    all_of_it = [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]
    try:
        for process in all_of_it:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in all_of_it:
            os.kill(process, signal.SIGCONT)


def test_given_postgresql_standing_still_when_calling_then_503_in_time_and_the_key_tells_the_truth(
    service, tmp_path, monkeypatch
):
    alice = service.sign_in("alice@example.com")
    before = service.balance(alice)
    impatient = {**service.environment, "DJANGO_SETTINGS_MODULE": "fintech_core.tests.impatient"}
    with Web(tmp_path, impatient) as web:
        monkeypatch.setattr(service, "web", web)
        assert service.transfer(alice, "1.00")[0] == 201
        with standing_still(service.postgres):
            for _ in range(2):  # first on the connection that is open, then on a new one
                status, headers, problem, seconds = service.transfer(alice, "3.00", "stood still")
                assert (status, problem["code"]) == (503, "service_unavailable")
                assert headers["Retry-After"]
                assert seconds < 8
            assert service.call("GET", "/api/health/live/")[0] == 200
            assert service.call("GET", "/api/health/ready/")[0] == 503
        assert service.transfer(alice, "3.00", "stood still")[0] == 201
        assert service.balance(alice) == before - Decimal("4.00")


def test_given_the_web_process_killed_when_retrying_with_the_key_then_the_one_true_answer(service):
    alice = service.sign_in("alice@example.com")
    before = service.balance(alice)
    status, _, first, _ = service.transfer(alice, "2.00", "killed-in-between")
    assert status == 201
    service.web.kill()
    service.web.start()
    status, headers, again, _ = service.transfer(alice, "2.00", "killed-in-between")
    assert (status, again, headers["Idempotent-Replayed"]) == (201, first, "true")
    assert service.balance(alice) == before - Decimal("2.00")
