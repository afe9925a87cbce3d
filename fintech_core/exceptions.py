"""Refusals, and the one place that turns every error into `application/problem+json` (RFC 9457).

An app raises a `DomainError`; `problem_handler` (REST framework), the `handler4xx/500` views
(Django) and the middleware render it and everything else with `Problem`.
"""

import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any, ClassVar

import structlog
from django.conf import settings
from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.debug import SafeExceptionReporterFilter
from rest_framework import exceptions as drf
from rest_framework.response import Response

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS_UNAVAILABLE = 5
# A validation problem stays small, whatever was sent: texts may quote the input.
ERRORS_SHOWN = 50
DETAIL_LENGTH = 300


class DomainError(Exception):
    """A refusal that a caller may legitimately meet. Anything else is a bug (500).

    `code` is public and permanent: clients switch on it, so it is never renamed or reused.
    `title` may be reworded. `detail` explains this one case; `facts` become members of the problem.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int] = 422
    retry_after_seconds: ClassVar[int | None] = None

    def __init__(self, detail: str = "", **facts: object) -> None:
        super().__init__(f"{self.code}: {detail or self.title}")
        self.detail = detail or self.title
        self.facts = facts


class InvalidState(DomainError):
    """A state machine refuses the step."""

    code = "invalid_state"
    title = "The object is not in a state that allows this."
    status = 409


class ServiceUnavailable(DomainError):
    code = "service_unavailable"
    title = "The service is briefly unavailable. Nothing is lost: try again with the same key."
    status = 503
    retry_after_seconds = RETRY_SECONDS_UNAVAILABLE


class PayloadTooLarge(DomainError):
    code = "payload_too_large"
    title = "The request is too large."
    status = 413


# Codes that no DomainError carries: what the framework itself refuses.
TITLES: dict[str, str] = {
    "validation_error": "The request is not valid.",
    "parse_error": "The request cannot be read.",
    "not_authenticated": "Sign in to do this.",
    "invalid_credentials": "The email or the password is wrong.",
    "token_not_valid": "The token is not valid, has expired, or was revoked.",
    "permission_denied": "You may not do this.",
    "not_found": "There is no such thing here.",
    "method_not_allowed": "This resource does not know that method.",
    "not_acceptable": "The answer cannot be given in a form that you accept.",
    "unsupported_media_type": "The request body has a type that is not read here.",
    "payload_too_large": "The request is too large.",
    "rate_limited": "Too many requests. Wait, then try again.",
    "internal_error": "Something went wrong on our side. Nothing was half-done.",
    "service_unavailable": "The service is briefly unavailable.",
}

_CODE_BY_STATUS = {
    400: "validation_error",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    500: "internal_error",
    503: "service_unavailable",
}


@dataclass(frozen=True)
class Problem:
    """A problem document, before it is bound to a request."""

    status: int
    code: str
    title: str
    detail: str
    errors: list[dict[str, str]] = field(default_factory=list)
    facts: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, request: HttpRequest | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": f"{settings.PUBLIC_BASE_URL}/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "instance": request.path if request else None,
            "request_id": current_request_id(),
        }
        if self.errors:
            document["errors"] = self.errors
        return document | {name: value for name, value in self.facts.items() if name != "errors"}

    def as_response(self, request: HttpRequest | None) -> HttpResponse:
        return JsonResponse(
            self.body(request),
            status=self.status,
            content_type=CONTENT_TYPE,
            headers=dict(self.headers),
        )


def current_request_id() -> str | None:
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return str(request_id) if request_id else None


def plain_problem(status: int, detail: str = "", code: str = "") -> Problem:
    """A problem with nothing special to say beyond its code."""
    code = code or _CODE_BY_STATUS.get(status, "internal_error")
    title = TITLES.get(code, HTTPStatus(status).phrase)
    return Problem(status=status, code=code, title=title, detail=detail or title)


def problem_of(exc: Exception) -> Problem:
    """Say what `exc` means to a client. What is not known here is an `internal_error`."""
    if isinstance(exc, DomainError):
        return _of_refusal(exc)
    if isinstance(exc, drf.APIException):
        return _of_api_exception(exc)
    if isinstance(exc, Http404):
        return plain_problem(404)
    if isinstance(exc, PermissionDenied):
        return plain_problem(403)
    if isinstance(exc, RequestDataTooBig):
        return plain_problem(413)
    if isinstance(exc, TooManyFieldsSent | TooManyFilesSent | SuspiciousOperation):
        return plain_problem(400, "The request is malformed.", code="parse_error")
    if isinstance(exc, OperationalError | InterfaceError):
        return _of_refusal(ServiceUnavailable())
    return plain_problem(500)


def _of_refusal(exc: DomainError) -> Problem:
    headers = {}
    if exc.retry_after_seconds is not None:
        headers["Retry-After"] = str(exc.retry_after_seconds)
    return Problem(exc.status, exc.code, exc.title, exc.detail, facts=exc.facts, headers=headers)


def _of_api_exception(exc: drf.APIException) -> Problem:
    if isinstance(exc, drf.ValidationError):
        errors = list(islice(_flatten(exc.detail), ERRORS_SHOWN))
        return Problem(
            400, "validation_error", TITLES["validation_error"], _summary(errors), errors=errors
        )
    if isinstance(exc, drf.ParseError):
        return plain_problem(400, str(exc.detail), code="parse_error")
    headers = {}
    if wait := getattr(exc, "wait", None):
        headers["Retry-After"] = str(int(wait))
    if isinstance(exc, drf.AuthenticationFailed | drf.NotAuthenticated):
        return _of_failed_authentication(exc)
    detail = exc.detail if isinstance(exc.detail, str) else ""
    problem = plain_problem(exc.status_code, str(detail))
    return Problem(problem.status, problem.code, problem.title, problem.detail, headers=headers)


def _of_failed_authentication(exc: drf.APIException) -> Problem:
    code = exc.get_codes() if isinstance(exc.detail, str) else ""
    if isinstance(exc, drf.NotAuthenticated):
        code = "not_authenticated"
    elif code != "invalid_credentials":
        code = "token_not_valid"
    problem = plain_problem(401, code=str(code))
    challenge = str(getattr(exc, "auth_header", 'Bearer realm="api"'))
    headers = {"WWW-Authenticate": challenge}
    return Problem(401, problem.code, problem.title, problem.detail, headers=headers)


def _summary(errors: list[dict[str, str]]) -> str:
    names = sorted({error["field"] for error in errors if error["field"]})
    return f"Check: {', '.join(names)}." if names else errors[0]["detail"] if errors else ""


def _flatten(detail: Any, path: str = "") -> Any:
    """Yield `{field, code, detail}` for every leaf; nested fields read `transfers[3].amount`."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flatten(inner, _inner_path(path, name))
    elif isinstance(detail, list | tuple):
        for position, inner in enumerate(detail):
            nested = isinstance(inner, Mapping | list)
            yield from _flatten(inner, f"{path}[{position}]" if nested else path)
    else:
        code = getattr(detail, "code", "invalid") or "invalid"
        yield {"field": path, "code": str(code), "detail": str(detail)[:DETAIL_LENGTH]}


def _inner_path(path: str, name: str | int) -> str:
    """Of a member; or of an item of a list, whose errors REST framework names by their number."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    if name in ("non_field_errors", "__all__"):
        return path
    return f"{path}.{name}" if path else name


def problem_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """REST framework's `EXCEPTION_HANDLER`: every error of an API view becomes a problem."""
    problem = problem_of(exc)
    request = context["request"]
    _report(exc, problem, request.path)
    _roll_back()
    response = Response(
        problem.body(request),
        status=problem.status,
        content_type=CONTENT_TYPE,
        headers=dict(problem.headers),
    )
    response.exception = True
    return response


def _report(exc: Exception, problem: Problem, path: str) -> None:
    if problem.status >= 500:
        logger.error("request failed", exc_info=exc, extra={"path": path, "code": problem.code})


def _roll_back() -> None:
    """An open transaction of a failed request must never be committed half-done.

    Services own their transactions, so none is open here unless `ATOMIC_REQUESTS` opened it.
    """
    try:
        connection = transaction.get_connection()
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            transaction.set_rollback(True)
    except DatabaseError:
        logger.warning("could not mark the transaction for rollback", exc_info=True)


class SettingsFilter(SafeExceptionReporterFilter):
    """With DEBUG, Django's page shows the settings: addresses hold passwords, too."""

    hidden_settings = re.compile(
        f"{SafeExceptionReporterFilter.hidden_settings.pattern}|_URL|LOCATION|BROKER", re.IGNORECASE
    )


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem_of(exception).as_response(request)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return plain_problem(403).as_response(request)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return plain_problem(404).as_response(request)


def internal_error(request: HttpRequest) -> HttpResponse:
    """Django's `handler500`: whatever no API view caught, a lost database included."""
    exc = sys.exc_info()[1]
    problem = problem_of(exc) if isinstance(exc, Exception) else plain_problem(500)
    return (problem if problem.status >= 500 else plain_problem(500)).as_response(request)
