"""The inbox of gateway events. `migrations/0002_payment_rules.py` guards it."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from payments.models.intent import PaymentIntent
from payments.models.payout import Payout
from payments.models.refund import DepositRefund

ATTEMPTS_MAX = 100  # the column's bound; settings.WEBHOOK_MAX_ATTEMPTS decides


class WebhookEvent(models.Model):
    """One event of a gateway, exactly as it was signed and sent.

    Invariants
    * At most one for each event id of a gateway, for ever: the row outlives its payload.
    * What was received never changes; `body` and `headers` may only be emptied, once, when the
      event is done with.
    * `processed` is final, and was committed together with the effect. `parked` waits for staff;
      it and `ignored` can be received again.
    * While `received`, `next_attempt_at` says when it is due; `attempts` counts the tries since.
    """

    class Status(models.TextChoices):
        RECEIVED = "received"
        PROCESSED = "processed"
        IGNORED = "ignored"  # nothing of ours, or a type that means nothing here
        PARKED = "parked"  # staff must look: nothing was credited

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    gateway = models.CharField(max_length=20)
    event_id = models.CharField(max_length=255)
    event_type = models.CharField(max_length=100)
    # What the event calls its intent or payout; null if it names none.
    gateway_reference = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null: none
    body = models.BinaryField()
    headers = models.JSONField(default=dict)  # those of the signature, and no others
    status = models.CharField(max_length=9, choices=Status, default=Status.RECEIVED)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    last_error = models.CharField(max_length=500, blank=True)
    intent = models.ForeignKey(
        PaymentIntent,
        on_delete=models.PROTECT,
        null=True,
        related_name="webhook_events",
        db_index=False,  # see `Meta`
    )
    payout = models.ForeignKey(
        Payout,
        on_delete=models.PROTECT,
        null=True,
        related_name="webhook_events",
        db_index=False,
    )
    refund = models.ForeignKey(
        DepositRefund,
        on_delete=models.PROTECT,
        null=True,
        related_name="webhook_events",
        db_index=False,
    )
    # Who of the staff last asked for it to be processed again.
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )
    received_at = models.DateTimeField(db_default=Now(), editable=False)
    processed_at = models.DateTimeField(null=True)
    payload_deleted_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [("process_again", "Can have events processed again")]
        indexes = [
            models.Index(name="payments_event_by_gateway", fields=["gateway", "-id"]),
            models.Index(
                name="payments_event_due",
                fields=["next_attempt_at"],
                condition=Q(status="received"),
            ),
            models.Index(
                name="payments_event_orphaned",
                fields=["received_at"],
                condition=Q(status="ignored", intent__isnull=True, gateway_reference__isnull=False),
            ),
            models.Index(
                name="payments_event_with_payload",
                fields=["processed_at"],
                condition=Q(status__in=["processed", "ignored"], payload_deleted_at__isnull=True),
            ),
            models.Index(name="payments_event_by_status", fields=["status", "-id"]),
            # Each for the rows that are about one: an index of all would be written to in vain,
            # for a row without any, three times for each event.
            *[
                models.Index(
                    name=f"payments_event_of_{subject}",
                    fields=[subject],
                    condition=Q(**{f"{subject}__isnull": False}),
                )
                for subject in ("intent", "payout", "refund")
            ],
        ]
        constraints = [
            models.UniqueConstraint(
                name="payments_webhookevent_one_per_event_id", fields=["gateway", "event_id"]
            ),
            models.CheckConstraint(
                name="payments_webhookevent_status_known",
                condition=Q(status__in=["received", "processed", "ignored", "parked"]),
            ),
            models.CheckConstraint(
                name="payments_webhookevent_attempts_bounded",
                condition=Q(attempts__gte=0, attempts__lte=ATTEMPTS_MAX),
            ),
            models.CheckConstraint(
                name="payments_webhookevent_due_iff_received",
                condition=Q(status="received", next_attempt_at__isnull=False)
                | (~Q(status="received") & Q(next_attempt_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="payments_webhookevent_done_iff_dated",
                condition=Q(status__in=["processed", "ignored"], processed_at__isnull=False)
                | Q(status__in=["received", "parked"], processed_at__isnull=True),
            ),
            models.CheckConstraint(
                name="payments_webhookevent_deleted_payload_is_empty",
                condition=Q(payload_deleted_at__isnull=True)
                | Q(body=b"", status__in=["processed", "ignored"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} ({self.gateway} {self.event_id})"

    @property
    def subject(self) -> models.Model | None:
        """What of ours it is about, whatever that is."""
        return self.intent or self.payout or self.refund


class WebhookAttempt(models.Model):
    """One try at an event. Committed before the try begins, so that a crash cannot undo it.

    One that stays `started` was cut short: its process died.
    """

    class Outcome(models.TextChoices):
        STARTED = "started"
        PROCESSED = "processed"
        IGNORED = "ignored"
        PARKED = "parked"
        FAILED = "failed"  # to be tried again, or parked if it was the last
        NEEDLESS = "needless"  # another try had settled the event meanwhile

    event = models.ForeignKey(
        WebhookEvent, on_delete=models.PROTECT, related_name="tries", db_index=False
    )
    number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=9, choices=Outcome, default=Outcome.STARTED)
    error = models.CharField(max_length=500, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="payments_webhookattempt_numbered", fields=["event", "number"]
            ),
            models.CheckConstraint(
                name="payments_webhookattempt_outcome_known",
                condition=Q(
                    outcome__in=[
                        "started",
                        "processed",
                        "ignored",
                        "parked",
                        "failed",
                        "needless",
                    ]
                ),
            ),
            models.CheckConstraint(
                name="payments_webhookattempt_finished_iff_dated",
                condition=Q(outcome="started", finished_at__isnull=True)
                | (~Q(outcome="started") & Q(finished_at__isnull=False)),
            ),
        ]

    def __str__(self) -> str:
        return f"try {self.number}: {self.outcome}"
