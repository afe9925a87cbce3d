"""gunicorn: two processes of four threads unless the environment says otherwise.

The web tier waits for PostgreSQL most of the time, hence threads; each holds one connection.
"""

import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

bind = f"0.0.0.0:{os.environ.get('PORT') or '8000'}"
worker_class = "fintech_core.gunicorn_worker.FairWorker"
workers = int(os.environ.get("WEB_CONCURRENCY") or "2")
threads = int(os.environ.get("WEB_THREADS") or "4")
# The application is imported once, and the workers share its memory.
preload_app = True
# Above the longest that a request waits for PostgreSQL (DATABASE_PATIENCE_SECONDS in the settings).
timeout = 30
graceful_timeout = 20
# A load balancer reuses connections for about a minute; we must not close first.
keepalive = 65
# Memory that leaks somewhere is given back now and then; not by all workers at once.
max_requests = 20_000
max_requests_jitter = 2_000
# It would listen on a socket in the home folder, which a container may not write to.
control_socket_disable = True
# Heartbeats are files; on a disk under load they would stall. Linux has memory for it.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
# Whom to believe about TLS and addresses is Django's to decide (TRUSTED_PROXY_COUNT). gunicorn
# would believe whoever calls from this machine, and let them rewrite the path, too.
forwarded_allow_ips = ""
forwarder_headers = ""
# The application writes its own request log, with the request id and no personal data.
accesslog = None
errorlog = "-"

# Each worker keeps its own counters in this folder, and /metrics adds them up. It must be known
# before the workers import prometheus_client, and empty: an old worker's gauges would count.
_made_here = "PROMETHEUS_MULTIPROC_DIR" not in os.environ
if _made_here:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="fintech-core-metrics-")
_metrics = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
_metrics.mkdir(mode=0o700, parents=True, exist_ok=True)


def on_starting(_server: Any) -> None:
    """Begin with no counters of an earlier start, nor of this process, which serves nobody."""
    for leftover in _metrics.glob("*.db"):
        leftover.unlink()


def pre_fork(_server: Any, _worker: Any) -> None:
    """Whatever exists now stays: a worker that looked through it for garbage would copy it."""
    gc.collect()
    gc.freeze()


def post_worker_init(_worker: Any) -> None:
    """In each worker, once its application is loaded."""
    from django.conf import settings

    from fintech_core.postgresql import patience

    patience.watch(settings.DATABASE_PATIENCE_SECONDS)


def child_exit(_server: Any, worker: Any) -> None:
    """A worker that is gone must not go on being counted as alive."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(_server: Any) -> None:
    """Leave no folder behind that we made."""
    if _made_here:
        shutil.rmtree(_metrics, ignore_errors=True)
