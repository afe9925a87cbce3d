"""In which form a caller sends a request, and gets the answer."""

from collections.abc import Iterable
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class ContentNegotiation(DefaultContentNegotiation):
    """Whoever names what we prefer, or takes anything, gets that; all else needs a closer look."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> Any:
        preferred = next(iter(parsers))
        if request.content_type == preferred.media_type:
            return preferred
        return super().select_parser(request, parsers)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[Any, str]:
        preferred = next(iter(renderers))
        accepted = request._request.META.get("HTTP_ACCEPT", "*/*")
        if not format_suffix and accepted in ("*/*", preferred.media_type):
            return preferred, str(preferred.media_type)
        return super().select_renderer(request, renderers, format_suffix)
