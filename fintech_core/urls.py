"""Every URL. One router gathers the API of all apps."""

from csp.decorators import csp
from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from rest_framework.routers import DefaultRouter

from fintech_core import views
from fintech_core.webhooks import urls as webhooks_urls
from payments import urls as payments_urls
from transactions import urls as transactions_urls
from users import urls as users_urls
from wallet import urls as wallet_urls

docs = csp(settings.DOCS_CONTENT_SECURITY)

router = DefaultRouter(use_regex_path=False)
router.include_root_view = False
router.include_format_suffixes = False  # one URL for each thing
# What is called most comes first: a path is compared with one pattern after the other.
for app_urls in (wallet_urls, transactions_urls, payments_urls, users_urls, webhooks_urls):
    app_urls.register(router)

urlpatterns = [
    path("api/v1/", include(router.urls)),
    path("api/health/", include("fintech_core.health_urls")),
    path("api/schema/", views.SchemaView.as_view(), name="schema"),
    path("api/docs/", docs(views.DocsView.as_view(url_name="schema")), name="docs"),
    path("admin/", admin.site.urls),
    path("admin", views.read_only(RedirectView.as_view(url="/admin/"))),
    path("sandbox/", include("payments.sandbox.urls")),
    path("metrics", views.metrics, name="metrics"),
    path("problems/<slug:code>", views.problem_type, name="problem-type"),
    path("", views.read_only(RedirectView.as_view(url="/api/docs/"))),
]

handler400 = "fintech_core.exceptions.bad_request"
handler403 = "fintech_core.exceptions.forbidden"
handler404 = "fintech_core.exceptions.not_found"
handler500 = "fintech_core.exceptions.internal_error"
