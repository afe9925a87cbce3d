"""Who may call what. Services ask again; here the answer does not depend on the object."""

from typing import Any

from rest_framework.request import Request

from users.permissions import IsStaff
from wallet.services import STATUS_PERMISSION


class MayChangeStatus(IsStaff):
    """Staff who may freeze, unfreeze and close wallets."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return super().has_permission(request, view) and request.user.has_perm(STATUS_PERMISSION)
