"""Who may call what. Services ask again; here the answer does not depend on the object."""

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from users.services import REVIEW_PERMISSION


class IsStaff(BasePermission):
    """Operations staff. Everybody else gets 403, whether or not the object exists."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(request.user.is_authenticated and request.user.is_staff)


class IsKYCReviewer(IsStaff):
    """Staff with the review permission."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return super().has_permission(request, view) and request.user.has_perm(REVIEW_PERMISSION)
