"""The WSGI entry point."""

import os
from importlib import import_module

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fintech_core.settings")


class Request(WSGIRequest):
    """Text is UTF-8, whatever the request says.

    Django would try the request's own encoding on the query before any middleware could refuse it,
    and Python knows encodings that are none of text (`hex`).
    """

    def _set_content_type_params(self, meta: dict[str, str]) -> None:
        try:
            parsed = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (LookupError, ValueError):
            parsed = ("", {})
        self.content_type, self.content_params = parsed


class Handler(WSGIHandler):
    request_class = Request


django.setup(set_prefix=False)
application = Handler()
# Django would import them with the first request: in each process, while somebody waits.
import_module(settings.ROOT_URLCONF)
