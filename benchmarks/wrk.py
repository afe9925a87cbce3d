"""The plain load by wrk, where it is installed: it costs a tenth of what locust does.

Plain: as fast as it is answered, for a while. What is counted or paced is locust's.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from benchmarks.load import Load, Outcome, Request
from benchmarks.processes import ProgramError, run
from benchmarks.servers import Web

_TIMEOUT = "60s"
_MARK = "outcome "
# `requests` are the two parts of each, around the number that makes its key unlike every other.
_SCRIPT = """
local requests, number = dofile(%(requests)s), 0

request = function()
    number = number + 1
    local parts = requests[(number - 1) %% #requests + 1]
    if parts[2] == "" then return parts[1] end
    return parts[1] .. number .. parts[2]
end

done = function(summary, latency)
    local failed = summary.errors
    io.write("\\n%(mark)s", string.format(
        '{"requests": %%d, "microseconds": %%d, "p50": %%d, "p99": %%d, "slowest": %%d,'
        .. ' "status": %%d, "connect": %%d, "read": %%d, "write": %%d, "timeout": %%d}',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        latency.max, failed.status, failed.connect, failed.read, failed.write, failed.timeout))
end
"""


def program() -> str | None:
    """Where it is, if it is."""
    return shutil.which("wrk")


def put(load: Load, web: Web) -> Outcome:
    """Raises ProgramError when wrk fails. Every status above 399 is an error."""
    with tempfile.TemporaryDirectory() as folder:
        script = _script(Path(folder), load, web)
        if load.warm_up_seconds:
            _run(script, load, web, load.warm_up_seconds)
        return _run(_script(Path(folder), load, web), load, web, load.seconds)


def _run(script: Path, load: Load, web: Web, seconds: float) -> Outcome:
    began_at = time.time()
    ended = run(
        [
            program() or "wrk", "--threads", "1", "--connections", str(load.connections),
            "--duration", str(max(1, round(seconds))), "--timeout", _TIMEOUT,
            "--script", str(script), web.url,
        ],
        os.environ,
    )  # fmt: skip
    ended.require("wrk failed")
    said = json.loads(ended.output.rpartition(_MARK)[2] or "null")
    if said is None:
        raise ProgramError(f"wrk said nothing that is understood:\n{ended.output}")
    kinds = ("status", "connect", "read", "write", "timeout")
    errors = {kind: int(said[kind]) for kind in kinds if said[kind]}
    return Outcome(
        began_at=began_at,
        count=said["requests"] - said["status"],
        seconds=said["microseconds"] / 1e6,
        p50=said["p50"] / 1e6,
        p99=said["p99"] / 1e6,
        slowest=said["slowest"] / 1e6,
        errors=sum(errors.values()),
        statuses={},
        unexpected=[f"wrk: {errors}"] if errors else [],
        client_cpu_seconds=ended.cpu_seconds,
    )


def _script(folder: Path, load: Load, web: Web) -> Path:
    """With keys that no other script has."""
    prefix = uuid4().hex if load.keyed else ""
    requests = folder / "requests.lua"
    requests.write_text(
        f"return {{{', '.join(_lua(_parts(one, web, prefix)) for one in load.requests)}}}"
    )
    script = folder / "script.lua"
    script.write_text(_SCRIPT % {"requests": json.dumps(str(requests)), "mark": _MARK})
    return script


def _parts(request: Request, web: Web, prefix: str) -> tuple[str, str]:
    body = request.body or ""
    headers = {
        "Host": f"127.0.0.1:{web.port}",
        "Content-Length": str(len(body.encode())),
        **request.headers,
    }
    lines = [f"{request.method} {request.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head, end = "\r\n".join(lines), f"\r\n\r\n{body}"
    return (f"{head}\r\nIdempotency-Key: {prefix}-", end) if prefix else (head + end, "")


def _lua(parts: Sequence[str]) -> str:
    """A table of strings; they are ASCII, for which Lua has JSON's escapes."""
    return "{" + ", ".join(json.dumps(part) for part in parts) + "}"
