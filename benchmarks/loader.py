"""The load itself, in a process of its own: locust without its command line.

Run by `benchmarks.load` as `python -m benchmarks.loader`: a plan comes in as JSON, an outcome goes
out. One process, greenlets for connections; they work while it sleeps. Nothing is composed while it
runs: locust's own work is part of every figure, so ours must not add to it.
"""

from locust import FastHttpUser, constant_throughput, task  # first: it patches the modules below
from locust.env import Environment
from locust.exception import StopUser

# isort: split
import itertools
import json
import math
import resource
import sys
import time
from collections import Counter
from typing import Any

REQUEST_SECONDS_MAX = 60.0
POLL_SECONDS = 0.02
EXPLAINED_ERRORS = 3


class Recorder:
    """What happened. Requests that began before `begin` warm up: only their errors count."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.began_at = 0.0  # the same, by the clock that all processes share
        self.cpu = 0.0
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.unexpected: list[str] = []
        self.errors = 0

    def begin(self) -> None:
        self.seconds.clear()
        self.cpu = _cpu_seconds()
        self.began_at = time.time()
        self.began = time.perf_counter()

    def end(self) -> None:
        self.cpu = _cpu_seconds() - self.cpu

    def note(self, began: float, status: int, expected: int, body: bytes | None) -> None:
        now = time.perf_counter()
        self.statuses[status] += 1
        if status != expected:
            self.errors += 1
            if len(self.unexpected) < EXPLAINED_ERRORS:
                self.unexpected.append(f"{status}: {(body or b'')[:300]!r}")
        elif began >= self.began:
            self.seconds.append(now - began)
            self.ended = now

    def outcome(self) -> dict[str, Any]:
        ordered = sorted(self.seconds)
        return {
            "began_at": self.began_at,
            "count": len(ordered),
            "seconds": self.ended - self.began if ordered else 0.0,
            "p50": _percentile(ordered, 0.50),
            "p99": _percentile(ordered, 0.99),
            "slowest": ordered[-1] if ordered else 0.0,
            "errors": self.errors,
            "statuses": dict(self.statuses),
            "unexpected": self.unexpected,
            "client_cpu_seconds": self.cpu,
        }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _percentile(ordered: list[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; zero of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def caller(plan: dict[str, Any], recorder: Recorder) -> type[FastHttpUser]:
    """One connection that sends the plan's requests, all connections together in their order."""
    requests = plan["requests"]
    order = itertools.count() if plan["count"] is None else iter(range(plan["count"]))
    prefix, expected = plan["key_prefix"], plan["expected"]

    class Caller(FastHttpUser):
        host = plan["url"]
        connection_timeout = network_timeout = REQUEST_SECONDS_MAX
        if plan["rate"]:
            wait_time = constant_throughput(plan["rate"] / plan["connections"])

        @task
        def call(self) -> None:
            number = next(order, None)
            if number is None:
                raise StopUser
            method, path, headers, body = requests[number % len(requests)]
            if prefix:
                headers = {**headers, "Idempotency-Key": f"{prefix}-{number}"}
            began = time.perf_counter()
            answer = self.client.request(method, path, name="", data=body, headers=headers)
            recorder.note(began, answer.status_code, expected, answer.content)

    return Caller


def run(plan: dict[str, Any]) -> dict[str, Any]:
    recorder = Recorder()
    environment = Environment(
        user_classes=[caller(plan, recorder)], stop_timeout=REQUEST_SECONDS_MAX
    )
    runner = environment.create_local_runner()
    recorder.begin()
    runner.start(plan["connections"], spawn_rate=plan["connections"])
    if plan["warm_up"]:
        time.sleep(plan["warm_up"])
        recorder.begin()
    if plan["count"] is None:
        time.sleep(plan["seconds"])
    while plan["count"] is not None and recorder.statuses.total() < plan["count"]:
        time.sleep(POLL_SECONDS)
    runner.stop()  # what is on its way may arrive
    recorder.end()
    runner.quit()
    return recorder.outcome()


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
