"""Gateways' reports beside our books: runs, the reports' lines, and what does not agree.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

import fintech_core.money

# Columns added later are frozen too, until they are named here.
RULES = """
CREATE FUNCTION payments_run_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'lines', 'matched', 'breaks', 'found_later', 'error', 'finished_at'
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable OR OLD.status <> 'running' THEN
        RAISE EXCEPTION 'run %: it is history', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_reconciliationrun_is_frozen';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION payments_break_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'our_amount', 'our_currency', 'their_amount', 'their_currency', 'last_run_id',
        'status', 'ended_at', 'note', 'resolved_by_id'
    ];
BEGIN
    IF OLD.status <> 'open' THEN
        RAISE EXCEPTION 'break %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_reconciliationbreak_ended_once';
    END IF;
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'break %: what it is about never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_reconciliationbreak_is_frozen';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION payments_break_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'open' THEN
        RAISE EXCEPTION 'break %: none begins %', NEW.id, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_reconciliationbreak_begins_open';
    END IF;
    NEW.opened_at := clock_timestamp();
    RETURN NEW;
END $$;

CREATE TRIGGER payments_run_guard BEFORE UPDATE ON payments_reconciliationrun
    FOR EACH ROW EXECUTE FUNCTION payments_run_guard();
CREATE TRIGGER payments_run_no_delete BEFORE DELETE ON payments_reconciliationrun
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_run_no_truncate BEFORE TRUNCATE ON payments_reconciliationrun
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_break_guard BEFORE UPDATE ON payments_reconciliationbreak
    FOR EACH ROW EXECUTE FUNCTION payments_break_guard();
CREATE TRIGGER payments_break_begins BEFORE INSERT ON payments_reconciliationbreak
    FOR EACH ROW EXECUTE FUNCTION payments_break_begins();
CREATE TRIGGER payments_break_no_delete BEFORE DELETE ON payments_reconciliationbreak
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_break_no_truncate BEFORE TRUNCATE ON payments_reconciliationbreak
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();
"""

NO_RULES = """
DROP TRIGGER payments_break_no_truncate ON payments_reconciliationbreak;
DROP TRIGGER payments_break_no_delete ON payments_reconciliationbreak;
DROP TRIGGER payments_break_begins ON payments_reconciliationbreak;
DROP TRIGGER payments_break_guard ON payments_reconciliationbreak;
DROP TRIGGER payments_run_no_truncate ON payments_reconciliationrun;
DROP TRIGGER payments_run_no_delete ON payments_reconciliationrun;
DROP TRIGGER payments_run_guard ON payments_reconciliationrun;
DROP FUNCTION payments_break_begins();
DROP FUNCTION payments_break_guard();
DROP FUNCTION payments_run_guard();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0009_refunds"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ReconciliationLine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("gateway", models.CharField(max_length=20)),
                ("day", models.DateField()),
                ("subject", models.CharField(max_length=20)),
                ("reference", models.CharField(max_length=255)),
                ("amount", fintech_core.money.AmountColumn(decimal_places=2, max_digits=15)),
                ("currency", fintech_core.money.CurrencyColumn(max_length=3)),
                ("settled_at", models.DateTimeField()),
            ],
            options={
                "indexes": [
                    models.Index(fields=["gateway", "day"], name="payments_line_by_day"),
                    models.Index(
                        fields=["reference", "gateway", "subject"],
                        name="payments_line_by_reference",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0), ("amount__lt", 10000000000000)),
                        name="payments_reconciliationline_amount_positive",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ReconciliationRun",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("gateway", models.CharField(max_length=20)),
                ("day", models.DateField()),
                (
                    "source",
                    models.CharField(
                        choices=[("gateway", "Gateway"), ("csv", "CSV file")], max_length=7
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("matched", "Matched"),
                            ("breaks", "Breaks"),
                            ("failed", "Failed"),
                        ],
                        default="running",
                        max_length=7,
                    ),
                ),
                (
                    "lines",
                    models.PositiveIntegerField(default=0, help_text="Of the report for the day."),
                ),
                (
                    "matched",
                    models.PositiveIntegerField(
                        default=0, help_text="Lines of the day that agree."
                    ),
                ),
                (
                    "breaks",
                    models.PositiveIntegerField(
                        default=0, help_text="Open ones of the gateway after it."
                    ),
                ),
                (
                    "found_later",
                    models.PositiveIntegerField(default=0, help_text="Breaks that it closed."),
                ),
                ("error", models.CharField(blank=True, max_length=1000)),
                (
                    "started_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("finished_at", models.DateTimeField(editable=False, null=True)),
                (
                    "requested_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "permissions": [
                    ("reconcile", "Can reconcile gateways' reports and resolve breaks")
                ],
            },
        ),
        migrations.CreateModel(
            name="ReconciliationBreak",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("gateway", models.CharField(blank=True, max_length=20)),
                ("subject", models.CharField(max_length=20)),
                ("reference", models.CharField(max_length=255)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("missing_here", "Missing Here"),
                            ("missing_there", "Missing There"),
                            ("different_amount", "Different Amount"),
                            ("duplicate_line", "Duplicate Line"),
                            ("not_in_ledger", "Not In Ledger"),
                            ("ledger_only", "Ledger Only"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "our_amount",
                    fintech_core.money.AmountColumn(decimal_places=2, max_digits=15, null=True),
                ),
                ("our_currency", fintech_core.money.CurrencyColumn(blank=True, max_length=3)),
                (
                    "their_amount",
                    fintech_core.money.AmountColumn(decimal_places=2, max_digits=15, null=True),
                ),
                ("their_currency", fintech_core.money.CurrencyColumn(blank=True, max_length=3)),
                ("day", models.DateField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("open", "Open"),
                            ("found_later", "Found Later"),
                            ("resolved", "Resolved"),
                        ],
                        default="open",
                        max_length=11,
                    ),
                ),
                (
                    "opened_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("ended_at", models.DateTimeField(editable=False, null=True)),
                ("note", models.CharField(blank=True, max_length=500)),
                (
                    "resolved_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "first_run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="first_seen",
                        to="payments.reconciliationrun",
                    ),
                ),
                (
                    "last_run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="payments.reconciliationrun",
                    ),
                ),
            ],
            options={
                "verbose_name": "reconciliation break",
            },
        ),
        migrations.AddIndex(
            model_name="reconciliationrun",
            index=models.Index(fields=["gateway", "day"], name="payments_run_by_day"),
        ),
        migrations.AddIndex(
            model_name="reconciliationrun",
            index=models.Index(fields=["status", "-id"], name="payments_run_by_status"),
        ),
        migrations.AddConstraint(
            model_name="reconciliationrun",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "running")),
                fields=("gateway",),
                name="payments_reconciliationrun_one_at_a_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="reconciliationrun",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["running", "matched", "breaks", "failed"])),
                name="payments_reconciliationrun_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="reconciliationrun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at__isnull", True), ("status", "running")),
                    models.Q(
                        models.Q(("status", "running"), _negated=True),
                        ("finished_at__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="payments_reconciliationrun_finished_iff_dated",
            ),
        ),
        migrations.AddConstraint(
            model_name="reconciliationrun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("error__regex", "\\S"), ("status", "failed")),
                    models.Q(models.Q(("status", "failed"), _negated=True), ("error", "")),
                    _connector="OR",
                ),
                name="payments_reconciliationrun_failed_says_why",
            ),
        ),
        migrations.AddIndex(
            model_name="reconciliationbreak",
            index=models.Index(
                fields=["reference", "gateway", "subject", "kind"], name="payments_break_by_key"
            ),
        ),
        migrations.AddIndex(
            model_name="reconciliationbreak",
            index=models.Index(fields=["status", "id"], name="payments_break_by_status"),
        ),
        migrations.AddIndex(
            model_name="reconciliationbreak",
            index=models.Index(fields=["kind", "id"], name="payments_break_by_kind"),
        ),
        migrations.AddIndex(
            model_name="reconciliationbreak",
            index=models.Index(fields=["gateway", "status"], name="payments_break_by_gateway"),
        ),
        migrations.AddConstraint(
            model_name="reconciliationbreak",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "open")),
                fields=("gateway", "subject", "reference", "kind"),
                name="payments_reconciliationbreak_open_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="reconciliationbreak",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "kind__in",
                        [
                            "missing_here",
                            "missing_there",
                            "different_amount",
                            "duplicate_line",
                            "not_in_ledger",
                            "ledger_only",
                        ],
                    )
                ),
                name="payments_reconciliationbreak_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="reconciliationbreak",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("ended_at__isnull", True),
                        ("note", ""),
                        ("resolved_by__isnull", True),
                        ("status", "open"),
                    ),
                    models.Q(
                        ("ended_at__isnull", False),
                        ("note", ""),
                        ("resolved_by__isnull", True),
                        ("status", "found_later"),
                    ),
                    models.Q(
                        ("ended_at__isnull", False),
                        ("note__regex", "\\S"),
                        ("resolved_by__isnull", False),
                        ("status", "resolved"),
                    ),
                    _connector="OR",
                ),
                name="payments_reconciliationbreak_ended_means_how",
            ),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([RULES], [NO_RULES]),
    ]
