"""`/sandbox/…`: pages for developers. Without the sandbox, 404."""

from collections.abc import Callable

from csp.decorators import csp
from django.conf import settings
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.decorators.cache import never_cache

from payments.sandbox.views import order_page

page: Callable[..., HttpResponseBase] = never_cache(order_page)

urlpatterns = [
    path(
        "<slug:page>/<slug:reference>/<slug:token>/",
        csp(settings.SANDBOX_CONTENT_SECURITY)(page),
        name="sandbox-order",
    ),
]
