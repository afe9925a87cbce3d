"""In which form a caller gets the answer."""

from collections.abc import Iterable
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class ContentNegotiation(DefaultContentNegotiation):
    """Whoever takes anything, or names what we prefer, gets that; all else needs a closer look."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[Any, str]:
        preferred = next(iter(renderers))
        accepted = request.META.get("HTTP_ACCEPT", "*/*")
        if not format_suffix and accepted in ("*/*", preferred.media_type):
            return preferred, str(preferred.media_type)
        return super().select_renderer(request, renderers, format_suffix)
