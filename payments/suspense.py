"""Money that came for a closed wallet, and what staff say became of it. See `PaymentService`."""

import logging
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from rest_framework.exceptions import ErrorDetail, ValidationError

from fintech_core.exceptions import InvalidState
from payments.exceptions import NotFound
from payments.models import SuspendedDeposit
from users.exceptions import NotOnOneself
from users.models import User
from users.services import require_staff

logger = logging.getLogger(__name__)

RESOLVE_PERMISSION = "payments.resolve_suspense"


@transaction.atomic
def resolve(suspended_id: UUID, *, by: User, note: str) -> SuspendedDeposit:
    """See `PaymentService.resolve_suspense`. It moves no money: that is the gateway's dashboard's
    business, and the note tells of it."""
    require_staff(by, RESOLVE_PERMISSION)
    suspended = (
        SuspendedDeposit.objects.select_for_update(no_key=True, of=("self",))
        .select_related("intent")
        .filter(pk=suspended_id)
        .first()
    )
    if suspended is None:
        raise NotFound
    if suspended.intent.user_id == by.pk:
        raise NotOnOneself
    if suspended.status != SuspendedDeposit.Status.OPEN:
        raise InvalidState("It is resolved already.")
    if not (written := note.strip()):
        raise ValidationError({"note": [ErrorDetail("Say what became of it.", code="blank")]})
    suspended.status = SuspendedDeposit.Status.RESOLVED
    suspended.note, suspended.resolved_by, suspended.resolved_at = written, by, Now()
    suspended.save(update_fields=["status", "note", "resolved_by", "resolved_at"])
    logger.info("suspense resolved", extra={"suspended": str(suspended.pk), "by": str(by.pk)})
    return suspended
