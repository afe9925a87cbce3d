"""What every app says about its errors in the OpenAPI schema."""

from typing import Any

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from fintech_core.exceptions import CONTENT_TYPE, TITLES

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    required=True,
    description=(
        "1 to 255 printable ASCII characters, new for each thing you want done. A retry with the "
        "same key and body gets the same answer, with `Idempotent-Replayed: true`."
    ),
    examples=[OpenApiExample("A random UUID", value="0192f3f4-6f0e-7c1a-9d55-3f2f6c0e9a01")],
)

# The public codes of API_CONTRACT.md; the first of a status is its example.
CODES: dict[int, tuple[str, ...]] = {
    400: (
        "validation_error",
        "parse_error",
        "idempotency_key_required",
        "idempotency_key_invalid",
        "invalid_signature",
        "malformed_event",
    ),
    401: ("not_authenticated", "invalid_credentials", "token_not_valid"),
    403: ("permission_denied", "kyc_required"),
    404: ("not_found",),
    406: ("not_acceptable",),
    409: ("invalid_state", "idempotency_in_progress"),
    413: ("payload_too_large",),
    415: ("unsupported_media_type",),
    422: (
        "insufficient_funds",
        "self_transfer",
        "recipient_not_found",
        "recipient_unavailable",
        "currency_mismatch",
        "wallet_frozen",
        "limit_exceeded",
        "amount_exceeds_remaining",
        "idempotency_key_reused",
    ),
    429: ("rate_limited",),
    503: ("service_unavailable",),
}
# Any call may meet these.
ALWAYS = (406, 503)
# Whoever reads a body may refuse its size and its type, too.
WITH_BODY = (413, 415)

_MORE_TITLES = {
    "invalid_state": "The object is not in a state that allows this.",
    "insufficient_funds": "The wallet does not hold that much.",
}


class FieldErrorSerializer(serializers.Serializer[Any]):
    """One thing that is wrong with the request."""

    field = serializers.CharField(
        allow_blank=True, help_text="Empty when the request as a whole is meant."
    )
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """A problem document (RFC 9457). Clients switch on `code`, which never changes."""

    type = serializers.URLField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    instance = serializers.CharField(allow_null=True)
    request_id = serializers.CharField(allow_null=True)
    errors = FieldErrorSerializer(many=True, required=False)  # type: ignore[assignment]


def problems(*statuses: int) -> dict[Any, OpenApiResponse]:
    """The refusals of a call, for `extend_schema(responses={201: X, **problems(400, 401)})`.

    406 and 503 are always among them; 413 and 415 come with 400.
    """
    known = {*statuses, *ALWAYS, *(WITH_BODY if 400 in statuses else ())}
    return {(status, CONTENT_TYPE): _response(status) for status in sorted(known)}


def _response(status: int) -> OpenApiResponse:
    codes = CODES[status]
    return OpenApiResponse(
        response=ProblemSerializer,
        description=", ".join(f"`{code}`" for code in codes),
        examples=[OpenApiExample(codes[0], value=_example(status, codes[0]))],
    )


def _example(status: int, code: str) -> dict[str, Any]:
    title = TITLES.get(code) or _MORE_TITLES[code]
    document: dict[str, Any] = {
        "type": f"https://api.example.com/problems/{code}",
        "title": title,
        "status": status,
        "detail": title,
        "code": code,
        "instance": "/api/v1/…",
        "request_id": "0b9fd4f7a1d84d5c9a3c2c0e4b8f1d22",
    }
    if code == "validation_error":
        document["detail"] = "Check: email."
        document["errors"] = [
            {"field": "email", "code": "required", "detail": "This field is required."}
        ]
    return document


class StrictSerializerExtension(OpenApiSerializerExtension):
    """Requests that refuse unknown members say so in the schema, too."""

    target_class = "fintech_core.serializers.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        if direction == "request":
            schema["additionalProperties"] = False
        return schema


class BoundedListExtension(OpenApiSerializerFieldExtension):
    """Lists of objects say how many there may be, too."""

    target_class = "rest_framework.serializers.ListSerializer"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
        schema = auto_schema._map_serializer_field(self.target, direction, bypass_extensions=True)
        if not self.target.allow_empty:
            schema["minItems"] = self.target.min_length or 1
        if self.target.max_length is not None:
            schema["maxItems"] = self.target.max_length
        return schema
