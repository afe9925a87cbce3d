"""The shared kernel's own records."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from fintech_core.webhooks.models import (
    DeliveryAttempt,
    DeliveryTurn,
    OutgoingEvent,
    WebhookDelivery,
    WebhookEndpoint,
)

__all__ = [
    "DeliveryAttempt",
    "DeliveryTurn",
    "IdempotencyRecord",
    "OutgoingEvent",
    "RateLimitCounter",
    "WebhookDelivery",
    "WebhookEndpoint",
]


class IdempotencyRecord(models.Model):
    """The answer that one key got, once and for ever.

    Invariants
    * One record per user, operation and key: a second effect under the key cannot be committed.
    * Written in the database transaction of the effect: neither exists without the other.
    * `response_status` and `response_body` come together; both are empty only while a call that
      needs a gateway is between its two transactions.
    * What a key stands for, and its answer, never change; a trigger sees to it.
    Never listed, never shown, never expired.
    """

    # Indexed by the unique constraint that begins with it.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    operation = models.CharField(max_length=255)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    # The object that an unfinished call made, so that a retry resumes it and makes no second one.
    resource_id = models.UUIDField(null=True)
    # While a call is with a gateway: until then a retry waits, afterwards it takes over.
    busy_until = models.DateTimeField(null=True)
    response_status = models.PositiveSmallIntegerField(null=True)
    response_body = models.TextField(null=True)  # noqa: DJ001 - null: not answered yet
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="fintech_core_idempotency_one_effect_per_key",
                fields=["user", "operation", "key"],
            ),
            models.CheckConstraint(
                name="fintech_core_idempotency_answer_is_whole",
                condition=Q(response_status__isnull=True, response_body__isnull=True)
                | Q(response_status__isnull=False, response_body__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.operation} by {self.user_id}"


class RateLimitCounter(models.Model):
    """Attempts counted in PostgreSQL while Redis is away; see `fintech_core.ratelimit`."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField()
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.key
