"""Cursor pagination: page 1,000 costs what page 1 costs, and rows never shift between pages."""

import json
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.http import HttpResponse
from rest_framework import pagination
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request

from fintech_core.parsers import is_digits
from fintech_core.renderers import for_scripts


class CursorPagination(pagination.CursorPagination):
    """Newest first. The first ordering field must be unique and indexed within the list."""

    page_size = 25
    max_page_size = 100
    page_size_query_param = "page_size"
    # Time-ordered UUIDs (version 7): newest first is an index range on the primary key.
    ordering = "-id"

    def get_page_size(self, request: Request) -> int | None:
        asked = request.query_params.get(self.page_size_query_param, "")
        return super().get_page_size(request) if is_digits(asked) else self.page_size

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any] | None:
        try:
            return super().paginate_queryset(queryset, request, view=view)
        except (NotFound, ValueError, OverflowError, DjangoValidationError) as exc:
            raise ValidationError(
                {"cursor": ["This cursor is not one that a list gave you."]}
            ) from exc

    def decode_cursor(self, request: Request) -> pagination.Cursor | None:
        """Base64 decoding skips what is not base64, so nonsense would read as the first page."""
        cursor = super().decode_cursor(request)
        if cursor == pagination.Cursor(offset=0, reverse=False, position=None):
            raise NotFound
        return cursor

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The parent's says `nullable`, which OpenAPI 3.1 does not know."""
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }


class SequencePagination(CursorPagination):
    """For a wallet's ledger entries, which are numbered without gaps and come as JSON `text`."""

    ordering = "-sequence"

    def get_paginated_response(self, page: Any) -> HttpResponse:  # type: ignore[override]
        """As a renderer would write it, which would have to read what is written already."""
        links = (json.dumps(link) for link in (self.get_next_link(), self.get_previous_link()))
        envelope = '{"next":%s,"previous":%s,"results":[%s]}'
        text = envelope % (*links, ",".join([row.text for row in page]))
        return HttpResponse(for_scripts(text).encode(), content_type="application/json")
