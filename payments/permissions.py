"""Who of the staff may see the inbox and send deposits back."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request


class MayReadWebhookEvents(BasePermission):
    """Staff with Django's permission to view webhook events; for everyone else 403."""

    def has_permission(self, request: Request, view: object) -> bool:
        user = request.user
        return bool(
            user.is_authenticated and user.is_staff and user.has_perm("payments.view_webhookevent")
        )


class MayRefundDeposits(BasePermission):
    """Staff who may send deposits back; for everyone else 403, whether the intent exists or not."""

    def has_permission(self, request: Request, view: object) -> bool:
        user = request.user
        return bool(
            user.is_authenticated and user.is_staff and user.has_perm("payments.refund_deposit")
        )
