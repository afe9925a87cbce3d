"""The WSGI entry point."""

import os
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpRequest
from django.urls import ResolverMatch, get_resolver
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fintech_core.settings")


HOSTS_KEPT = 64
PATHS_KEPT = 256


class Request(WSGIRequest):
    """Text is UTF-8, whatever the request says.

    Django would try the request's own encoding on the query before any middleware could refuse it,
    and Python knows encodings that are none of text (`hex`).
    """

    _allowed_hosts: ClassVar[set[str]] = set()

    def get_host(self) -> str:
        """As Django's, which takes the name apart and compares it for each request anew."""
        named = self.META.get("HTTP_HOST")
        if named in self._allowed_hosts:
            return str(named)
        host = super().get_host()
        if host == named and len(self._allowed_hosts) < HOSTS_KEPT:
            self._allowed_hosts.add(host)
        return host

    def _set_content_type_params(self, meta: dict[str, str]) -> None:
        try:
            parsed = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (LookupError, ValueError):
            parsed = ("", {})
        self.content_type, self.content_params = parsed


class Handler(WSGIHandler):
    request_class = Request

    def resolve_request(self, request: HttpRequest) -> Any:
        """As Django's; paths without an id are the same few all day long."""
        request.resolver_match = _view_at(request.path_info)
        return request.resolver_match


@lru_cache(maxsize=PATHS_KEPT)
def _view_at(path: str) -> ResolverMatch:
    return get_resolver().resolve(path)


django.setup(set_prefix=False)
application = Handler()
# Django would import them with the first request: in each process, while somebody waits.
import_module(settings.ROOT_URLCONF)
