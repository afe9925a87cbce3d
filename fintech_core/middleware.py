"""Request id, request log and body limit: what holds for every request, whoever answers it."""

import codecs
import logging
import re
import time
from collections.abc import Callable
from uuid import uuid4

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from fintech_core.exceptions import PayloadTooLarge, plain_problem, problem_of

logger = logging.getLogger("fintech_core.request")

Handler = Callable[[HttpRequest], HttpResponse]

PATH_SHOWN = 200
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class RequestIdMiddleware:
    """Honours a well-formed `X-Request-ID`, else makes one; it is on the answer and in every log
    line that the request causes."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = self.get_response(request)
        response["X-Request-ID"] = request_id
        return response


class RequestLogMiddleware:
    """One line a request: never the query string, the body or a header, for they hold secrets."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        logger.info(
            "request",
            extra={
                "method": request.method,
                "route": match.route if match else None,
                "path": request.path[:PATH_SHOWN],
                "status": response.status_code,
                "duration_ms": round((time.perf_counter() - started) * 1000, 2),
                "user_id": getattr(request, "caller_id", None),
            },
        )
        return response


class BodyLimitMiddleware:
    """Refuses a body over the limit before a byte of it is read.

    A body without `Content-Length` reads as empty under WSGI, so the header is all there is.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        limit = self._limit(request)
        try:
            length = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        if length > limit:
            return problem_of(
                PayloadTooLarge(f"The body may have at most {limit} bytes.")
            ).as_response(request)
        return self.get_response(request)

    @staticmethod
    def _limit(request: HttpRequest) -> int:
        if "/payments/webhooks/" in request.path:
            return int(settings.BODY_LIMIT_WEBHOOK)
        if (request.content_type or "").startswith("multipart/"):
            return int(settings.BODY_LIMIT_UPLOAD)
        return int(settings.BODY_LIMIT)


class EncodingMiddleware:
    """Refuses a body that says it is text of another encoding than UTF-8: it would be misread."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        charset = (request.content_params or {}).get("charset", "utf-8")
        if _is_known(charset) and codecs.lookup(charset).name not in ("utf-8", "ascii"):
            detail = "Text is read as UTF-8 only."
            return plain_problem(400, detail, code="parse_error").as_response(request)
        return self.get_response(request)


def _is_known(charset: str) -> bool:
    try:
        return bool(codecs.lookup(charset))
    except (LookupError, ValueError):
        return False


class NoCopiesMiddleware:
    """Answers of the API are about money and people: nobody on the way keeps a copy."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith("/api/v1/"):
            response.setdefault("Cache-Control", "no-store")
        return response
