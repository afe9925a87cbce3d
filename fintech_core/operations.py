"""The group "Operations": what a member of the operations staff needs, and no more.

Given after each migration, so that a new model can be viewed by staff without anybody's work. It
only adds: whatever a superuser adds to the group by hand stays.
"""

from typing import Any

from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db.models import Q

GROUP = "Operations"
# All their models may be viewed, but for the kernel's bookkeeping: nobody browses idempotency, nor
# what happened to whom beside the delivery that tells it.
VIEWED_APPS = ("users", "wallet", "transactions", "payments", "fintech_core", "admin")
HIDDEN = (
    "view_idempotencyrecord",
    "view_ratelimitcounter",
    "view_outgoingevent",
    "view_deliveryturn",
)
# Whoever may propose an adjustment may also approve one, only never their own. Nobody decides about
# their own wallet, either.
EXTRA = (
    "review_kyc",
    "process_again",
    "settle_payout",
    "resolve_suspense",
    "refund_deposit",
    "settle_refund",
    "reconcile",
    "propose_adjustment",
    "approve_adjustment",
    "add_ledgercheckpoint",
    "change_status",
    "change_limits",
    "switch_webhookendpoint",
    "replay_webhookdelivery",
)


def give_operations_their_permissions(*, app_config: Any, using: str, apps: Apps, **_: Any) -> None:
    """A receiver of `post_migrate`, once for each app. Safe to repeat."""
    if app_config.label not in VIEWED_APPS:
        return
    try:
        group_model: Any = apps.get_model("auth", "Group")
        permission_model: Any = apps.get_model("auth", "Permission")
    except LookupError:  # migrated back to before there were groups
        return
    # Django makes the permissions by a receiver of the same signal, which may come later.
    create_permissions(app_config, verbosity=0, using=using, apps=apps)
    wanted = (
        permission_model.objects.using(using)
        .filter(
            Q(codename__startswith="view_") | Q(codename__in=EXTRA),
            content_type__app_label=app_config.label,
        )
        .exclude(codename__in=HIDDEN)
    )
    group, _made = group_model.objects.using(using).get_or_create(name=GROUP)
    group.permissions.add(*wanted)
