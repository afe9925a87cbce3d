"""`/api/health/…`"""

from django.urls import path

from fintech_core import views

urlpatterns = [
    path("", views.health, name="health"),
    path("live/", views.live, name="health-live"),
    path("ready/", views.ready, name="health-ready"),
]
