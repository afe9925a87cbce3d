"""Endpoints, events and their deliveries. `migrations/0006_webhook_rules.py` guards them."""

from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.fields import EncryptedTextField

URL_MAX = 2048
DESCRIPTION_MAX = 255
TYPE_MAX = 50
RESPONSE_KEPT = 1024  # characters of what a receiver answered
ERROR_MAX = 500
ATTEMPTS_MAX = 100  # the column's bound; `delivery.SCHEDULE` decides

_PERMISSION_TO_HEAR_ALL = ("listen_to_everybody", "Can have the events of everybody sent")


class WebhookEndpoint(models.Model):
    """Where somebody has events sent.

    Invariants
    * It gets the events of its own user; of everybody only if staff registered it so (`scope`).
    * A user has ten at most. Whose it is and what its scope is never change; deleted is final.
    * The secrets are encrypted, and shown once. The previous one signs as well until it expires.
    * `failing_since` is the first failure after the last success; null while all is well.
    """

    class Scope(models.TextChoices):
        OWN = "own"
        EVERYBODY = "everybody"

    class Status(models.TextChoices):
        ACTIVE = "active"
        DISABLED = "disabled"
        DELETED = "deleted"

    class DisabledReason(models.TextChoices):
        NONE = ""
        OWNER = "owner"  # whoever registered it switched it off
        STAFF = "staff"
        FAILING = "failing"  # nothing but failures for days
        GONE = "gone"  # it answered 410

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Indexed by the one on (user, status).
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    scope = models.CharField(max_length=9, choices=Scope, default=Scope.OWN)
    url = models.CharField(max_length=URL_MAX)
    description = models.CharField(max_length=DESCRIPTION_MAX, blank=True)
    event_types = ArrayField(models.CharField(max_length=TYPE_MAX))
    secret = EncryptedTextField()
    previous_secret = EncryptedTextField(null=True)
    previous_secret_expires_at = models.DateTimeField(null=True)
    status = models.CharField(max_length=8, choices=Status, default=Status.ACTIVE)
    disabled_reason = models.CharField(max_length=7, choices=DisabledReason, blank=True)
    disabled_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)  # in a row
    paused_until = models.DateTimeField(null=True)  # the more failures in a row, the longer
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        permissions = [
            _PERMISSION_TO_HEAR_ALL,
            ("switch_webhookendpoint", "Can switch webhook endpoints off and on"),
        ]
        indexes = [
            models.Index(name="fintech_core_endpoint_by_user", fields=["user", "status", "-id"]),
            models.Index(
                name="fintech_core_endpoint_hears",
                fields=["id"],
                condition=Q(scope="everybody", status="active"),
            ),
            models.Index(name="fintech_core_endpoint_by_state", fields=["status", "-id"]),
        ]
        constraints = [
            models.CheckConstraint(
                name="fintech_core_webhookendpoint_scope_known",
                condition=Q(scope__in=["own", "everybody"]),
            ),
            models.CheckConstraint(
                name="fintech_core_webhookendpoint_status_known",
                condition=Q(status__in=["active", "disabled", "deleted"]),
            ),
            models.CheckConstraint(
                name="fintech_core_webhookendpoint_disabled_iff_says_why",
                condition=Q(
                    status="disabled",
                    disabled_reason__in=["owner", "staff", "failing", "gone"],
                    disabled_at__isnull=False,
                )
                | (~Q(status="disabled") & Q(disabled_reason="", disabled_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="fintech_core_webhookendpoint_old_secret_expires",
                condition=Q(previous_secret__isnull=True, previous_secret_expires_at__isnull=True)
                | Q(previous_secret__isnull=False, previous_secret_expires_at__isnull=False),
            ),
            models.CheckConstraint(
                name="fintech_core_webhookendpoint_failing_iff_dated",
                condition=Q(failures=0, failing_since__isnull=True, paused_until__isnull=True)
                | Q(failures__gt=0, failing_since__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.shown_url

    @property
    def shown_url(self) -> str:
        """Without its query, which may hold a token of the receiver's."""
        return urlsplit(self.url)._replace(query="").geturl()

    @property
    def is_active(self) -> bool:
        return self.status == self.Status.ACTIVE


class OutgoingEvent(models.Model):
    """One thing that happened to one user; written only if an endpoint listens.

    Never changes. Its id is the `webhook-id`, the same in every try and at every endpoint.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    type = models.CharField(max_length=TYPE_MAX)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    data = models.TextField()  # JSON: what the API itself would show to this user
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(name="fintech_core_event_by_age", fields=["created_at"])]

    def __str__(self) -> str:
        return f"{self.type} ({self.pk})"


class WebhookDelivery(models.Model):
    """An event on its way to an endpoint.

    Invariants
    * One for each event and endpoint, and only to an endpoint that may hear the event's user.
    * While `pending`, `next_attempt_at` says when it is due; `attempts` counts the tries since it
      was made or asked for again.
    * While a try runs, `sending_until` is its lease; no other try begins before that.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"  # every try failed
        ABANDONED = "abandoned"  # the endpoint is switched off or deleted

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Indexed by the unique constraint that begins with it.
    event = models.ForeignKey(
        OutgoingEvent, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    sending_until = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=ERROR_MAX, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [("replay_webhookdelivery", "Can have events delivered again")]
        indexes = [
            models.Index(name="fintech_core_deliv_by_endpoint", fields=["endpoint", "-id"]),
            models.Index(
                name="fintech_core_deliv_in_endpoint", fields=["endpoint", "status", "-id"]
            ),
            models.Index(
                name="fintech_core_delivery_due",
                fields=["next_attempt_at", "endpoint"],
                condition=Q(status="pending"),
            ),
            models.Index(
                name="fintech_core_delivery_sending",
                fields=["endpoint", "sending_until"],
                condition=Q(sending_until__isnull=False),
            ),
            models.Index(name="fintech_core_delivery_by_state", fields=["status", "-id"]),
        ]
        constraints = [
            models.UniqueConstraint(
                name="fintech_core_webhookdelivery_once_per_endpoint", fields=["event", "endpoint"]
            ),
            models.CheckConstraint(
                name="fintech_core_webhookdelivery_status_known",
                condition=Q(status__in=["pending", "delivered", "failed", "abandoned"]),
            ),
            models.CheckConstraint(
                name="fintech_core_webhookdelivery_due_iff_pending",
                condition=Q(status="pending", next_attempt_at__isnull=False)
                | (
                    ~Q(status="pending")
                    & Q(next_attempt_at__isnull=True, sending_until__isnull=True)
                ),
            ),
            models.CheckConstraint(
                name="fintech_core_webhookdelivery_done_iff_dated",
                condition=Q(status="pending", finished_at__isnull=True)
                | (~Q(status="pending") & Q(finished_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="fintech_core_webhookdelivery_attempts_bounded",
                condition=Q(attempts__gte=0, attempts__lte=ATTEMPTS_MAX),
            ),
        ]

    def __str__(self) -> str:
        return f"Delivery {self.pk}"


class DeliveryAttempt(models.Model):
    """One try. Committed before anything is sent, so that a crash cannot undo it.

    One that stays `started` was cut short: its process died, and whether the receiver got the event
    is not known.
    """

    class Outcome(models.TextChoices):
        STARTED = "started"
        DELIVERED = "delivered"
        FAILED = "failed"

    delivery = models.ForeignKey(
        WebhookDelivery, on_delete=models.PROTECT, related_name="tries", db_index=False
    )
    number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=9, choices=Outcome, default=Outcome.STARTED)
    duration_ms = models.PositiveIntegerField(null=True)
    response_status = models.PositiveSmallIntegerField(null=True)
    response_body = models.CharField(max_length=RESPONSE_KEPT, blank=True)
    error = models.CharField(max_length=ERROR_MAX, blank=True)
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="fintech_core_deliveryattempt_numbered", fields=["delivery", "number"]
            ),
            models.CheckConstraint(
                name="fintech_core_deliveryattempt_outcome_known",
                condition=Q(outcome__in=["started", "delivered", "failed"]),
            ),
            models.CheckConstraint(
                name="fintech_core_deliveryattempt_finished_iff_dated",
                condition=Q(outcome="started", finished_at__isnull=True)
                | (~Q(outcome="started") & Q(finished_at__isnull=False)),
            ),
        ]

    def __str__(self) -> str:
        return f"try {self.number}: {self.outcome}"


class DeliveryTurn(models.Model):
    """The one row that says until when nobody else begins to deliver; see `delivery.run`."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    until = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(name="fintech_core_deliveryturn_is_one", condition=Q(id=1))
        ]

    def __str__(self) -> str:
        return f"until {self.until}"
