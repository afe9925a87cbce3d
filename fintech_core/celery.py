"""The Celery application: workers and beat are configured from Django's settings."""

import gc
import os

import structlog
from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fintech_core.settings")

app = Celery("fintech_core")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

REQUEST_ID_HEADER = "request_id"


@signals.setup_logging.connect
def _keep_django_logging(**_: object) -> None:
    """Celery would replace the JSON handlers with its own; being connected here stops it."""


@signals.before_task_publish.connect
def _send_request_id(headers: dict[str, object], **_: object) -> None:
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id:
        headers[REQUEST_ID_HEADER] = request_id


@signals.task_prerun.connect
def _bind_request_id(task_id: str, task: object, **_: object) -> None:
    """A task's log lines carry the id of the request that caused it, else the task's own."""
    request_id = getattr(task.request, REQUEST_ID_HEADER, None) or task_id  # type: ignore[attr-defined]
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id, task=task.name)  # type: ignore[attr-defined]


@signals.worker_before_create_process.connect
def _share_memory(**_: object) -> None:
    """Whatever exists now stays: a process that looked through it for garbage would copy it."""
    gc.collect()
    gc.freeze()
