"""`/sandbox/…`: pages for developers. Without the sandbox, 404."""

from django.urls import path

from payments.sandbox.views import order_page

urlpatterns = [
    path("<slug:page>/<slug:reference>/<slug:token>/", order_page, name="sandbox-order"),
]
