"""Filters of lists."""

from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.request import Request

_PAGING = {"cursor", "page_size"}


class FilterBackend(DjangoFilterBackend):
    """Asks the list's filters only if the request may name one.

    Most requests name none, and to make the form that would read them takes longer than the page.
    """

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        if request.query_params.keys() <= _PAGING:
            return queryset
        return super().filter_queryset(request, queryset, view)
