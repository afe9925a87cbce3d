"""Gateways' reports beside our books. `migrations/0010_reconciliation.py` guards them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from fintech_core.money import AmountColumn, CurrencyColumn

NOTE_MAX_LENGTH = 500
ERROR_MAX_LENGTH = 1000


class ReconciliationRun(models.Model):
    """One comparison of a gateway's day (UTC, from 00:00 until 24:00) with our books.

    Invariants
    * It is `running` until it is finished, once; then nothing of it changes. Never deleted.
    * One gateway has at most one that is running.
    * `matched`: nothing of the day stands against us, and nothing new came up; `breaks`: something
      does or did; `failed`: nothing was compared, and `error` says why.
    """

    class Status(models.TextChoices):
        RUNNING = "running"
        MATCHED = "matched"
        BREAKS = "breaks"
        FAILED = "failed"

    class Source(models.TextChoices):
        GATEWAY = "gateway"
        CSV = "csv", "CSV file"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    gateway = models.CharField(max_length=20)
    day = models.DateField()
    source = models.CharField(max_length=7, choices=Source)
    status = models.CharField(max_length=7, choices=Status, default=Status.RUNNING)
    lines = models.PositiveIntegerField(default=0, help_text="Of the report for the day.")
    matched = models.PositiveIntegerField(default=0, help_text="Lines of the day that agree.")
    breaks = models.PositiveIntegerField(default=0, help_text="Open ones of the day, and new ones.")
    found_later = models.PositiveIntegerField(default=0, help_text="Breaks that it closed.")
    error = models.CharField(max_length=ERROR_MAX_LENGTH, blank=True)
    # Null: the daily job, or whoever ran the command.
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        permissions = [("reconcile", "Can reconcile gateways' reports and resolve breaks")]
        indexes = [
            models.Index(name="payments_run_by_day", fields=["gateway", "day"]),
            models.Index(name="payments_run_by_status", fields=["status", "-id"]),
        ]
        constraints = [
            models.UniqueConstraint(
                name="payments_reconciliationrun_one_at_a_time",
                fields=["gateway"],
                condition=Q(status="running"),
            ),
            models.CheckConstraint(
                name="payments_reconciliationrun_status_known",
                condition=Q(status__in=["running", "matched", "breaks", "failed"]),
            ),
            models.CheckConstraint(
                name="payments_reconciliationrun_finished_iff_dated",
                condition=Q(status="running", finished_at__isnull=True)
                | (~Q(status="running") & Q(finished_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="payments_reconciliationrun_failed_says_why",
                condition=Q(status="failed", error__regex=r"\S")
                | (~Q(status="failed") & Q(error="")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.gateway}, {self.day}"


class ReconciliationLine(models.Model):
    """One line of a gateway's report for a day: the gateway's side of the books, kept.

    A day's lines are those of its latest report, which may be younger than the day's own run.
    `settled_at` may lie in a neighbouring day.
    """

    gateway = models.CharField(max_length=20)
    day = models.DateField()
    subject = models.CharField(max_length=20)
    reference = models.CharField(max_length=255)
    amount = AmountColumn()
    currency = CurrencyColumn()
    settled_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(name="payments_line_by_day", fields=["gateway", "day"]),
            models.Index(
                name="payments_line_by_reference", fields=["reference", "gateway", "subject"]
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="payments_reconciliationline_amount_positive",
                condition=Q(amount__gt=0, amount__lt=10**13),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject} {self.reference}: {self.amount} {self.currency}"


class ReconciliationBreak(models.Model):
    """Something about which a gateway's report, our orders and our ledger do not agree.

    Invariants
    * At most one is open for each gateway, subject, reference and kind.
    * It ends once: `found_later`, when a later run saw that all agree by now, or `resolved`, by
      staff and with a note. Then nothing of it changes; it is never deleted.
    * Facts that were resolved stay so. If they change, that is a new break.
    """

    class Kind(models.TextChoices):
        MISSING_HERE = "missing_here"  # the gateway settled what is not settled in our books
        MISSING_THERE = "missing_there"  # we settled what the gateway does not report
        DIFFERENT_AMOUNT = "different_amount"  # or another currency
        DUPLICATE_LINE = "duplicate_line"  # the gateway reports it more than once
        NOT_IN_LEDGER = "not_in_ledger"  # our order is settled, the clearing account says otherwise
        LEDGER_ONLY = "ledger_only"  # an entry of a clearing account that no order caused

    class Status(models.TextChoices):
        OPEN = "open"
        FOUND_LATER = "found_later"
        RESOLVED = "resolved"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Empty for `ledger_only`: a clearing account is that of all gateways.
    gateway = models.CharField(max_length=20, blank=True)
    subject = models.CharField(max_length=20)
    reference = models.CharField(max_length=255)
    kind = models.CharField(max_length=16, choices=Kind)
    # Null where that side has nothing.
    our_amount = AmountColumn(null=True)
    our_currency = CurrencyColumn(blank=True)
    their_amount = AmountColumn(null=True)
    their_currency = CurrencyColumn(blank=True)
    day = models.DateField()
    first_run = models.ForeignKey(
        ReconciliationRun, on_delete=models.PROTECT, related_name="first_seen", db_index=False
    )
    last_run = models.ForeignKey(
        ReconciliationRun, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    status = models.CharField(max_length=11, choices=Status, default=Status.OPEN)
    opened_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    note = models.CharField(max_length=NOTE_MAX_LENGTH, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )

    class Meta:
        verbose_name = "reconciliation break"
        indexes = [
            models.Index(
                name="payments_break_by_key",
                fields=["reference", "gateway", "subject", "kind"],
            ),
            models.Index(name="payments_break_by_status", fields=["status", "id"]),
            models.Index(name="payments_break_by_kind", fields=["kind", "id"]),
            models.Index(name="payments_break_by_gateway", fields=["gateway", "status"]),
        ]
        constraints = [
            models.UniqueConstraint(
                name="payments_reconciliationbreak_open_once",
                fields=["gateway", "subject", "reference", "kind"],
                condition=Q(status="open"),
            ),
            models.CheckConstraint(
                name="payments_reconciliationbreak_kind_known",
                condition=Q(
                    kind__in=[
                        "missing_here",
                        "missing_there",
                        "different_amount",
                        "duplicate_line",
                        "not_in_ledger",
                        "ledger_only",
                    ]
                ),
            ),
            models.CheckConstraint(
                name="payments_reconciliationbreak_ended_means_how",
                condition=Q(status="open", ended_at__isnull=True, resolved_by__isnull=True, note="")
                | Q(
                    status="found_later",
                    ended_at__isnull=False,
                    resolved_by__isnull=True,
                    note="",
                )
                | Q(
                    status="resolved",
                    ended_at__isnull=False,
                    resolved_by__isnull=False,
                    note__regex=r"\S",
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.subject} {self.reference}"
