"""Health, metrics, and the page behind each problem's `type`."""

import hmac
import logging
from collections.abc import Callable

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView
from kombu import Connection

from fintech_core.exceptions import TITLES, DomainError

logger = logging.getLogger(__name__)

_LOOPBACK = {"127.0.0.1", "::1"}
# What proxies add, each its own choice of them.
_FORWARDED = ("HTTP_X_FORWARDED", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def _check_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _check_cache() -> None:
    cache.get("health")


def _check_broker() -> None:
    with Connection(
        settings.CELERY_BROKER_URL, transport_options=settings.CELERY_BROKER_TRANSPORT_OPTIONS
    ) as broker:
        broker.ensure_connection(max_retries=1, timeout=1)


def _state(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception:  # whatever is wrong, the answer is "unavailable"; the log says what
        logger.warning("health check failed", exc_info=True, extra={"check": check.__name__})
        return "unavailable"
    return "ok"


@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """503 without PostgreSQL; `degraded`, with 200, without Redis, for money still moves."""
    checks = {
        "database": _state(_check_database),
        "cache": _state(_check_cache),
        "broker": _state(_check_broker),
    }
    if checks["database"] != "ok":
        return JsonResponse({"status": "unavailable", "checks": checks}, status=503)
    healthy = all(state == "ok" for state in checks.values())
    return JsonResponse({"status": "ok" if healthy else "degraded", "checks": checks})


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The process answers. Touches no dependency, so a sick database does not restart it."""
    return JsonResponse({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """For load balancers: this process can do its work, for it reaches PostgreSQL."""
    state = _state(_check_database)
    return JsonResponse({"status": state}, status=200 if state == "ok" else 503)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus metrics, to a caller on this machine or with `METRICS_TOKEN`; else 404."""
    if not (_is_local(request) or _has_metrics_token(request)):
        raise Http404
    return ExportToDjangoView(request)


def _is_local(request: HttpRequest) -> bool:
    """A forwarded request came through a proxy, which itself may be on this machine."""
    forwarded = any(name.startswith(_FORWARDED) for name in request.META)
    return request.META.get("REMOTE_ADDR") in _LOOPBACK and not forwarded


def _has_metrics_token(request: HttpRequest) -> bool:
    expected = settings.METRICS_TOKEN
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def _all_refusals(base: type[DomainError] = DomainError) -> dict[str, str]:
    found = {base.code: base.title} if hasattr(base, "code") else {}
    for refusal in base.__subclasses__():
        found |= _all_refusals(refusal)
    return found


@require_safe
def problem_type(request: HttpRequest, code: str) -> HttpResponse:
    """What a problem's `type` means (RFC 9457 asks that the URI can be looked up)."""
    titles = TITLES | _all_refusals()
    if code not in titles:
        raise Http404
    return JsonResponse({"code": code, "title": titles[code]})
