"""Endpoints: registering, changing and removing them, and having events delivered again.

What asks a name server comes before a database transaction, never inside one.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from rest_framework.exceptions import ErrorDetail, ValidationError

from fintech_core.database import database_time, violated_constraint
from fintech_core.exceptions import InvalidState
from fintech_core.webhooks import delivery, signing
from fintech_core.webhooks.exceptions import NotFound, NotPermitted
from fintech_core.webhooks.models import WebhookDelivery, WebhookEndpoint
from fintech_core.webhooks.targets import TargetRefused, addresses_of, parse_target

logger = logging.getLogger(__name__)

ENDPOINTS_MAX = 10
SWITCH_PERMISSION = "fintech_core.switch_webhookendpoint"
REPLAY_PERMISSION = "fintech_core.replay_webhookdelivery"

Scope = WebhookEndpoint.Scope
Status = WebhookEndpoint.Status
Reason = WebhookEndpoint.DisabledReason


@dataclass(frozen=True, kw_only=True)
class NewEndpoint:
    url: str
    event_types: list[str]
    description: str = ""
    scope: str = Scope.OWN


# --- Reading -------------------------------------------------------------------------------------


def endpoints_of(user_id: UUID) -> QuerySet[WebhookEndpoint]:
    """A user's endpoints; deleted ones do not exist any more."""
    return WebhookEndpoint.objects.filter(
        user_id=user_id, status__in=[Status.ACTIVE, Status.DISABLED]
    )


def endpoint_of(user_id: UUID, endpoint_id: UUID) -> WebhookEndpoint:
    """Raises NotFound."""
    return _found(endpoints_of(user_id), endpoint_id)


def deliveries_to(endpoint: WebhookEndpoint, *, status: str = "") -> QuerySet[WebhookDelivery]:
    """What was sent there, for its owner.

    Raises NotFound where it is of everybody and the owner may not hear that any more, and a
    ValidationError naming `status` for one that there is not.
    """
    if endpoint.scope == Scope.EVERYBODY and not _may_hear_all(endpoint.user_id):
        raise NotFound
    deliveries = WebhookDelivery.objects.filter(endpoint=endpoint).select_related("event")
    if not status:
        return deliveries
    if status not in WebhookDelivery.Status.values:
        detail = ErrorDetail("There is no such status.", code="invalid_choice")
        raise ValidationError({"status": [detail]})
    return deliveries.filter(status=status)


def delivery_to(endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    """Raises NotFound."""
    found = deliveries_to(endpoint).filter(pk=delivery_id).first()
    if found is None:
        raise NotFound
    return found


# --- The owner's doors ---------------------------------------------------------------------------


def register(*, user: Any, new: NewEndpoint) -> WebhookEndpoint:
    """Have events sent to a URL from now on; the answer holds the secret, for the only time.

    Raises NotPermitted (the events of everybody, without `fintech_core.listen_to_everybody`),
    a ValidationError naming `url` for one that we do not send to, and InvalidState for an eleventh
    endpoint.
    """
    if new.scope == Scope.EVERYBODY and not _may_hear_all(user.pk):
        raise NotPermitted("Only staff with the permission can hear of everybody.")
    _require_target(new.url)
    endpoint = WebhookEndpoint(user_id=user.pk, secret=signing.new_secret(), **vars(new))
    try:
        with transaction.atomic():
            endpoint.save(force_insert=True)
    except IntegrityError as exc:
        _explain(exc)
    logger.info("webhook endpoint registered", extra={"endpoint": str(endpoint.pk)})
    return endpoint


def change(*, user_id: UUID, endpoint_id: UUID, changes: Mapping[str, Any]) -> WebhookEndpoint:
    """Change `url`, `event_types`, `description` and `is_active`; what is not named stays.

    Raises NotFound, a ValidationError as `register` does, and InvalidState for switching on what
    staff have switched off. A new URL, and switching on, forget the failures so far.
    """
    endpoint_of(user_id, endpoint_id)
    if "url" in changes:
        _require_target(changes["url"])
    return _change(user_id, endpoint_id, changes)


@transaction.atomic
def _change(user_id: UUID, endpoint_id: UUID, changes: Mapping[str, Any]) -> WebhookEndpoint:
    endpoint = _locked(endpoints_of(user_id), endpoint_id)
    if changes.get("url", endpoint.url) != endpoint.url:
        _forget_failures(endpoint)
    for name in ("url", "event_types", "description"):
        setattr(endpoint, name, changes.get(name, getattr(endpoint, name)))
    wanted = changes.get("is_active", endpoint.is_active)
    if wanted and not endpoint.is_active:
        if endpoint.disabled_reason == Reason.STAFF:
            raise InvalidState("Staff have switched this endpoint off.")
        _switch_on(endpoint)
    elif endpoint.is_active and not wanted:
        delivery.switch_off(endpoint, Reason.OWNER, database_time())
    endpoint.updated_at = database_time()
    endpoint.save()
    return endpoint


@transaction.atomic
def rotate_secret(*, user_id: UUID, endpoint_id: UUID) -> WebhookEndpoint:
    """Make a new secret; the one before signs as well until `WEBHOOK_SECRET_OVERLAP` is over.

    Rotated twice, what leaked is worth nothing at once. Raises NotFound.
    """
    endpoint = _locked(endpoints_of(user_id), endpoint_id)
    endpoint.previous_secret, endpoint.secret = endpoint.secret, signing.new_secret()
    endpoint.updated_at = database_time()
    endpoint.previous_secret_expires_at = endpoint.updated_at + settings.WEBHOOK_SECRET_OVERLAP
    endpoint.save(
        update_fields=["secret", "previous_secret", "previous_secret_expires_at", "updated_at"]
    )
    logger.info("webhook signing rotated", extra={"endpoint": str(endpoint_id)})
    return endpoint


@transaction.atomic
def remove(*, user_id: UUID, endpoint_id: UUID) -> None:
    """Send nothing there any more, for good. Raises NotFound.

    The row stays for staff, with its deliveries until their retention ends, and its secrets go.
    What is still on its way is abandoned when it becomes due.
    """
    endpoint = _locked(endpoints_of(user_id), endpoint_id)
    endpoint.status = Status.DELETED
    endpoint.disabled_reason, endpoint.disabled_at = Reason.NONE, None
    endpoint.secret = ""
    endpoint.previous_secret = endpoint.previous_secret_expires_at = None
    endpoint.updated_at = database_time()
    endpoint.save()
    logger.info("webhook endpoint deleted", extra={"endpoint": str(endpoint_id)})


@transaction.atomic
def replay(*, user_id: UUID, endpoint_id: UUID, delivery_id: UUID) -> WebhookDelivery:
    """Have an event delivered once more, with its full number of tries and the same `webhook-id`.

    Raises NotFound, and InvalidState if it is on its way already or the endpoint is switched off.
    """
    endpoint = endpoint_of(user_id, endpoint_id)
    return _again(deliveries_to(endpoint), delivery_id)


# --- The doors of staff --------------------------------------------------------------------------


@transaction.atomic
def switch(*, endpoint_id: UUID, actor: Any, on: bool) -> WebhookEndpoint:
    """Staff switch somebody's endpoint off, so that its owner cannot switch it on, or on again.

    Raises NotPermitted unless `actor` is active staff with `fintech_core.switch_webhookendpoint`,
    NotFound, and InvalidState if it is so already.
    """
    _require_staff(actor, SWITCH_PERMISSION)
    existing = WebhookEndpoint.objects.exclude(status=Status.DELETED)
    endpoint = _locked(existing, endpoint_id)
    if endpoint.is_active == on:
        raise InvalidState(f"The endpoint is {endpoint.status}.")
    if on:
        _switch_on(endpoint)
        endpoint.updated_at = database_time()
        endpoint.save()
    else:
        delivery.switch_off(endpoint, Reason.STAFF, database_time())
    return endpoint


@transaction.atomic
def replay_for(*, delivery_id: UUID, actor: Any) -> WebhookDelivery:
    """Staff have an event delivered once more; see `replay`.

    Raises NotPermitted unless `actor` is active staff with `fintech_core.replay_webhookdelivery`.
    """
    _require_staff(actor, REPLAY_PERMISSION)
    return _again(WebhookDelivery.objects.select_related("event"), delivery_id)


# --- What they share -----------------------------------------------------------------------------


def _again(visible: QuerySet[WebhookDelivery], delivery_id: UUID) -> WebhookDelivery:
    found = visible.select_for_update(no_key=True, of=("self",)).filter(pk=delivery_id).first()
    if found is None:
        raise NotFound
    if found.status == WebhookDelivery.Status.PENDING:
        raise InvalidState("It is on its way already.")
    if not found.endpoint.is_active:
        raise InvalidState(f"The endpoint is {found.endpoint.status}.")
    found.status = WebhookDelivery.Status.PENDING
    found.attempts, found.last_error, found.finished_at = 0, "", None
    found.next_attempt_at = database_time()
    found.save(update_fields=["status", "attempts", "last_error", "finished_at", "next_attempt_at"])
    logger.info("webhook replayed", extra={"delivery": str(delivery_id)})
    return found


def _found(visible: QuerySet[WebhookEndpoint], endpoint_id: UUID) -> WebhookEndpoint:
    endpoint = visible.filter(pk=endpoint_id).first()
    if endpoint is None:
        raise NotFound
    return endpoint


def _locked(visible: QuerySet[WebhookEndpoint], endpoint_id: UUID) -> WebhookEndpoint:
    return _found(visible.select_for_update(no_key=True), endpoint_id)


def _switch_on(endpoint: WebhookEndpoint) -> None:
    endpoint.status = Status.ACTIVE
    endpoint.disabled_reason, endpoint.disabled_at = Reason.NONE, None
    _forget_failures(endpoint)


def _forget_failures(endpoint: WebhookEndpoint) -> None:
    endpoint.failures, endpoint.failing_since, endpoint.paused_until = 0, None, None


def _require_target(url: str) -> None:
    """Raises a ValidationError naming `url`. Asks a name server."""
    try:
        addresses_of(parse_target(url))
    except TargetRefused as refusal:
        detail = ErrorDetail(str(refusal), code="target_refused")
        raise ValidationError({"url": [detail]}) from refusal


def _require_staff(actor: Any, permission: str) -> None:
    """Asked of the database, not of an object that may be as old as its request."""
    current: Any = get_user_model().objects.filter(pk=actor.pk).first()
    if current is None or not (current.is_active and current.is_staff):
        raise NotPermitted
    if not current.has_perm(permission):
        raise NotPermitted


def _may_hear_all(user_id: UUID) -> bool:
    current = get_user_model().objects.filter(pk=user_id).first()
    return current is not None and delivery.may_hear_all(current)


def _explain(exc: IntegrityError) -> NoReturn:
    rule = violated_constraint(exc)
    if rule == "fintech_core_webhookendpoint_ten_at_most":
        raise InvalidState(f"You have {ENDPOINTS_MAX} endpoints already.") from exc
    if rule == "fintech_core_webhookendpoint_everybody_is_for_staff":
        raise NotPermitted from exc
    raise exc
