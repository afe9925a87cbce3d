"""Health, metrics, the API's description, and the page behind each problem's `type`."""

import hmac
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django_prometheus.exports import ExportToDjangoView
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from kombu import Connection
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fintech_core.exceptions import TITLES, DomainError, plain_problem

logger = logging.getLogger(__name__)

_LOOPBACK = {"127.0.0.1", "::1"}

View = Callable[..., HttpResponseBase]


def read_only(view: View) -> View:
    """For views outside REST framework: what is neither GET nor HEAD is a 405 problem.

    They change nothing, so a request without a CSRF token is not one that somebody forged.
    """

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in ("GET", "HEAD"):
            return view(request, *args, **kwargs)
        refusal = plain_problem(405).as_response(request)
        refusal["Allow"] = "GET, HEAD"
        return refusal

    return guarded


# What proxies add, each its own choice of them.
_FORWARDED = ("HTTP_X_FORWARDED", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def _check_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _check_cache() -> None:
    cache.get("health")


def _check_broker() -> None:
    # Whoever looks after us waits no longer for this answer than a worker does for a connection.
    options: dict[str, Any] = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    patience = {"socket_timeout": options["socket_connect_timeout"]}
    with Connection(settings.CELERY_BROKER_URL, transport_options=options | patience) as broker:
        broker.ensure_connection(max_retries=1, timeout=1)


def _state(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception:  # whatever is wrong, the answer is "unavailable"; the log says what
        logger.warning("health check failed", exc_info=True, extra={"check": check.__name__})
        return "unavailable"
    return "ok"


@read_only
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


@read_only
def live(request: HttpRequest) -> HttpResponse:
    """The process answers. Touches no dependency, so a sick database does not restart it."""
    return JsonResponse({"status": "ok"})


@read_only
def ready(request: HttpRequest) -> HttpResponse:
    """For load balancers: this process can do its work, for it reaches PostgreSQL."""
    state = _state(_check_database)
    return JsonResponse({"status": state}, status=200 if state == "ok" else 503)


@read_only
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


@read_only
def problem_type(request: HttpRequest, code: str) -> HttpResponse:
    """What a problem's `type` means (RFC 9457 asks that the URI can be looked up)."""
    titles = TITLES | _all_refusals()
    if code not in titles:
        raise Http404
    return JsonResponse({"code": code, "title": titles[code]})


class _ProblemsAsJSON(APIView):
    """These views answer in YAML and HTML; their refusals are problem documents all the same."""

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        if final.exception:
            final.accepted_renderer = JSONRenderer()
            final.accepted_media_type = JSONRenderer.media_type
        return final


class SchemaView(_ProblemsAsJSON, SpectacularAPIView):
    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One document: there are no versions and no languages to choose between."""
        return self._get_schema_response(request)

    def _get_version_parameter(self, request: Request) -> None:
        return None


class DocsView(_ProblemsAsJSON, SpectacularSwaggerSplitView):
    """Split: its script is a file of its own, so the page needs no inline script."""
