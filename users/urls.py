from rest_framework.routers import BaseRouter

from users import views


def register(router: BaseRouter) -> None:
    router.register("auth", views.AuthViewSet, basename="auth")
    router.register("users", views.UserViewSet, basename="user")
