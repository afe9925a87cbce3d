"""How much faster one batch of 1000 transfers is than 1000 transfers, over HTTP.

    python -m fintech_core.embedded private python benchmarks/batch.py [--rounds 3] [--clients 1]

Servers of its own, one gunicorn process, connections kept alive. Each round does both, one after
the other, for a new sender and the same thousand recipients: only the ratio means anything on a
shared machine. The servers do not wait for the disk, which flatters the thousand commits.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import django

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fintech_core.settings")
django.setup()

from django.core.management import call_command  # noqa: E402

from fintech_core.tests.live import Web  # noqa: E402
from transactions.tests.helpers import breaches, person  # noqa: E402
from users.tests.factories import UserFactory, sign_in  # noqa: E402

LEGS = 1000
TRANSFER, BATCH = "/api/v1/transactions/transfer/", "/api/v1/transactions/batch/"


class Client:
    """One signed-in connection that is kept alive."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._token = token

    def post(self, path: str, body: object) -> None:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid4()),
        }
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 201:
            raise SystemExit(f"{answer.status}: {content[:500]!r}")


def singles(port: int, token: str, legs: Sequence[object], clients: int) -> float:
    """The seconds that all legs take, one call each, shared by so many connections."""

    def send(part: Sequence[object]) -> None:
        client = Client(port, token)
        for leg in part:
            client.post(TRANSFER, leg)

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(send, [legs[number::clients] for number in range(clients)]))
    return time.perf_counter() - begun


def batch(port: int, token: str, legs: Sequence[object]) -> float:
    """The seconds that all legs take in one call."""
    begun = time.perf_counter()
    Client(port, token).post(BATCH, {"mode": "atomic", "transfers": legs})
    return time.perf_counter() - begun


def measure(port: int, emails: Sequence[str], rounds: int, clients: int) -> list[float]:
    legs = [{"recipient": email, "amount": "0.01"} for email in emails]
    ratios = []
    for number in range(1, rounds + 1):
        token = sign_in(person("100.00")).access
        one_by_one, together = singles(port, token, legs, clients), batch(port, token, legs)
        ratios.append(one_by_one / together)
        say(
            f"round {number}: {LEGS} calls {one_by_one:.2f} s, one batch {together:.2f} s,"
            f" ratio {ratios[-1]:.1f}"
        )
    return ratios


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1)
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    emails = [UserFactory().email for _ in range(LEGS)]
    environment = {"RATELIMIT_ENABLE": "false"}
    with tempfile.TemporaryDirectory() as folder, Web(Path(folder), environment) as web:
        ratios = measure(web.port, emails, options.rounds, options.clients)
    say(f"median ratio {statistics.median(ratios):.1f}; breaches: {breaches() or 'none'}")


if __name__ == "__main__":
    main()
