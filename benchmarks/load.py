"""What load to put on a web server, and what became of it. By locust: `benchmarks.loader`."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple
from uuid import uuid4

from benchmarks.processes import ProgramError
from benchmarks.servers import Web
from fintech_core.embedded.environment import PROJECT

WARM_UP_SECONDS_MAX = 1.0


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: str | None = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests that `connections` send one after the other, round and round.

    For `seconds`, or until `count` were sent. `keyed`: each with an Idempotency-Key of its own.
    `rate`: so many a second from all connections together; None: as fast as they are answered.
    `once`: there are more requests than can be answered in the time, and none is sent twice.
    """

    requests: Sequence[Request]
    seconds: float = 0.0
    count: int | None = None
    connections: int = 8
    expected: int = 200
    keyed: bool = False
    rate: float | None = None
    warm_up: bool = True
    once: bool = False

    @property
    def is_plain(self) -> bool:
        """As fast as it is answered, for a while, in requests that are short against it."""
        return self.count is None and self.rate is None and (self.warm_up or self.once)

    @property
    def warm_up_seconds(self) -> float:
        has_one = self.warm_up and not self.once
        return min(WARM_UP_SECONDS_MAX, self.seconds / 5) if has_one else 0.0


@dataclass(frozen=True)
class Outcome:
    """`count` answers as expected within `seconds` from `began_at`; latencies in seconds.

    `began_at` is in seconds since 1970. `client_cpu_seconds` is what the load itself cost: it
    competes with what is measured.
    """

    began_at: float
    count: int
    seconds: float
    p50: float
    p99: float
    slowest: float
    errors: int
    statuses: dict[str, int]
    unexpected: list[str]
    client_cpu_seconds: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.count / self.seconds if self.seconds else 0.0


def put_by_locust(load: Load, web: Web) -> Outcome:
    """Raises ProgramError when the load cannot be made at all; errors of HTTP are counted."""
    plan = {
        **asdict(load),
        "url": web.url,
        "key_prefix": uuid4().hex if load.keyed else "",
        "warm_up": load.warm_up_seconds,
    }
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.loader"],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    if ended.returncode:
        raise ProgramError(f"the load failed:\n{ended.stderr[-3000:]}")
    return Outcome(**json.loads(ended.stdout))
