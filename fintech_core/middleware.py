"""Request id, request log and body limit: what holds for every request, whoever answers it."""

import codecs
import logging
import re
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any
from uuid import uuid4

import structlog
from corsheaders.middleware import CorsMiddleware
from csp.middleware import CSPMiddleware
from csp.utils import build_policy
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.http.response import ResponseHeaders
from django.utils.cache import patch_vary_headers
from django.utils.deprecation import MiddlewareMixin

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
        given = request.META.get("HTTP_X_REQUEST_ID", "")
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


def is_api(request: HttpRequest) -> bool:
    """Whether a program is asking, and not a browser for one of our pages."""
    return request.path.startswith("/api/v1/")


class _ForPages(MiddlewareMixin):
    """Passes by for the API, which knows no cookies: its callers pay for nothing of theirs."""

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request) if is_api(request) else super().__call__(request)


class PageCSPMiddleware(_ForPages, CSPMiddleware):
    """What a page may load; for the API see `DataMiddleware`."""


class PageSessionMiddleware(_ForPages, SessionMiddleware):
    """Sessions, of the admin."""


class PageAuthenticationMiddleware(_ForPages, AuthenticationMiddleware):
    """Who is signed in to the admin."""


class PageMessageMiddleware(_ForPages, MessageMiddleware):
    """What the admin says after a step."""


class OriginMiddleware(CorsMiddleware):
    """Whether a page of another origin may ask. Who names no origin is no such page."""

    def __call__(self, request: HttpRequest) -> Any:
        if "HTTP_ORIGIN" in request.META or request.method == "OPTIONS":
            return super().__call__(request)
        response = self.get_response(request)
        patch_vary_headers(response, ("origin",))  # type: ignore[arg-type]  # nothing is async
        return response


class BodyLimitMiddleware:
    """Refuses a body over the limit before a byte of it is read; one in chunks, after as many.

    Django takes a body for empty if nobody says beforehand how long it is, and an empty one may
    ask for more than was meant: for all of a hold, or all of a refund.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        limit = self._limit(request)
        if "HTTP_TRANSFER_ENCODING" in request.META and not _read_chunks(request, limit):
            detail = "Send the body whole, or say with Content-Length how long it is."
            return plain_problem(400, detail, code="parse_error").as_response(request)
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


def _read_chunks(request: HttpRequest, limit: int) -> bool:
    """Make it a body whose length is known, one byte over the limit at most; whether that worked.

    Not if it breaks off, and not where the server does not tell the end of a body.
    """
    if not request.META.get("wsgi.input_terminated"):
        return False
    try:
        body = request.META["wsgi.input"].read(limit + 1)
    except Exception as exc:  # each server has its own for chunks that are none
        # What it says may quote the body, and so may the traceback.
        logger.info("a body in chunks breaks off", extra={"reason": type(exc).__name__})
        return False
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._stream = BytesIO(body)  # what Django reads from
    return True


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


class Headers(ResponseHeaders):
    """As Django's, which asks by an exception whether a header is there, and looks up each one to
    tell of all."""

    @classmethod
    def of(cls, headers: ResponseHeaders) -> "Headers":
        """The same ones, not copies."""
        made = cls({})
        made._store = headers._store
        return made

    def __contains__(self, name: object) -> bool:
        return str(name).lower() in self._store

    def items(self) -> Any:
        return self._store.values()


class DataMiddleware:
    """Answers of the API are data about money and people: nobody on the way keeps a copy, and a
    browser that is made to show one as a page loads and runs nothing."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self.policy = build_policy(config=settings.CONTENT_SECURITY_POLICY["DIRECTIVES"])

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if is_api(request):
            response.headers = Headers.of(response.headers)
            response.setdefault("Cache-Control", "no-store")
            response.setdefault("Content-Security-Policy", self.policy)
        return response
