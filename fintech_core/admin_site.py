"""The door to the admin: who gets in, how often they may try, what their browser may load."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from csp.decorators import csp
from django.conf import settings
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from unfold.sites import UnfoldAdminSite

from fintech_core.ratelimit import account_key, address_key, seconds_to_wait

Page = Callable[..., HttpResponseBase]

with_admin_policy = csp(settings.ADMIN_CONTENT_SECURITY)


class OperationsSite(UnfoldAdminSite):
    """The admin, for operations staff.

    Sign-in counts on the same counters as the API's, so that a password cannot be guessed at both.
    A session ends with a changed password or deactivation; Django compares both on each request.
    """

    index_template = "admin/overview.html"
    index_title = "Overview"

    def admin_view(self, view: Page, cacheable: bool = False) -> Page:
        """A refusal is a page of the admin, not a problem document; the log names the caller."""
        guarded = super().admin_view(view, cacheable)

        @wraps(guarded)
        def page(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.user.is_authenticated:
                request.caller_id = str(request.user.pk)  # type: ignore[attr-defined]
            try:
                return guarded(request, *args, **kwargs)
            except PermissionDenied:
                return self._refusal(request, 403, "You may not do this.")
            except Http404:
                return self._refusal(request, 404, "There is no such page.")
            except SuspiciousOperation:
                return self._refusal(request, 400, "This page cannot be asked that.")

        guarded_page: Page = with_admin_policy(page)
        return guarded_page

    def _refusal(self, request: HttpRequest, status: int, title: str) -> HttpResponse:
        # The page's frame looks at the query, too, which may be what cannot be read.
        request.GET = QueryDict()
        context = self.each_context(request) | {"title": title}
        return TemplateResponse(request, "admin/refusal.html", context, status=status)

    @method_decorator([never_cache, with_admin_policy])
    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST":
            email = request.POST.get("username", "")
            values = [address_key(request), *([account_key(email)] if email else [])]
            if wait := _wait("login", values):
                return self._too_many(request, wait)
        return super().login(request, extra_context)

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Changing a password means guessing it, too."""
        if request.method == "POST":
            values = [f"user:{request.user.pk}", address_key(request)]
            if wait := _wait("password", values):
                return self._too_many(request, wait)
        return super().password_change(request, extra_context)

    def search(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Pages by their names. Unfold's own keeps what it found in Redis, which takes no objects
        and may be away; there are so few pages that to look again is no work."""
        words = request.GET.get("s", "").lower()
        found = self._search_apps(self.get_app_list(request), words) if words else []
        pages = Paginator(found, per_page=max(1, len(found)))
        context = {"page_obj": pages, "results": pages.page(1), "page_counter": 0}
        return TemplateResponse(
            request,
            "unfold/helpers/command_results.html",
            context | {"execution_time": 0},
            headers={"HX-Trigger": "search"},
        )

    def _too_many(self, request: HttpRequest, wait: int) -> HttpResponse:
        context = self.each_context(request) | {"title": "Too many attempts", "seconds": wait}
        response = TemplateResponse(request, "admin/too_many.html", context, status=429)
        response["Retry-After"] = str(wait)
        return response


def _wait(scope: str, values: list[str]) -> int | None:
    """Count this attempt; the seconds to wait if it is one too many."""
    waits = [
        seconds_to_wait(
            scope=scope,
            rate=settings.RATE_LIMIT_LOGIN,
            value=value,
            guard_without_redis=True,
        )
        for value in values
    ]
    return max((wait for wait in waits if wait is not None), default=None)
