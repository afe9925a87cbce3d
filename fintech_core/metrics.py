"""What `/metrics` says of requests: how many, how they were answered, and how long it took.

The names are those of django-prometheus, whose own middlewares count a dozen things more, twice as
many as anybody asks for.
"""

import time
from collections.abc import Callable
from functools import cache

from django.http import HttpRequest, HttpResponse
from django_prometheus.conf import PROMETHEUS_LATENCY_BUCKETS
from prometheus_client import Counter, Histogram

_REQUESTS = Counter(
    "django_http_requests_total_by_method", "Count of requests by method.", ["method"]
)
_ANSWERS = Counter(
    "django_http_responses_total_by_status_view_method",
    "Count of responses by status, view, method.",
    ["status", "view", "method"],
)
_SECONDS = Histogram(
    "django_http_requests_latency_seconds_by_view_method",
    "Histogram of request processing time labelled by view.",
    ["view", "method"],
    buckets=PROMETHEUS_LATENCY_BUCKETS,
)
_EXCEPTIONS = Counter(
    "django_http_exceptions_total_by_type", "Count of exceptions by object type.", ["type"]
)
# Each label has its own counter for ever, so callers may not invent methods.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
# They are kept for ever, so nobody need look for them under a lock.
_requests, _answers, _seconds = (
    cache(_REQUESTS.labels),
    cache(_ANSWERS.labels),
    cache(_SECONDS.labels),
)


class MetricsMiddleware:
    """Counts and times each request; the time includes that of the middlewares within."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        method = request.method if request.method in _METHODS else "<invalid method>"
        _requests(method).inc()
        response = self.get_response(request)
        view = request.resolver_match.view_name if request.resolver_match else "<unnamed view>"
        _answers(response.status_code, view, method).inc()
        _seconds(view, method).observe(time.perf_counter() - started)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Django tells of what no view has handled; REST framework's handle everything."""
        _EXCEPTIONS.labels(type(exception).__name__).inc()
