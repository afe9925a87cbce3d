"""Batches: what one call asked for and what became of it, as unchangeable as the money itself.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from decimal import Decimal

import django.db.models.deletion
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

import fintech_core.money

APPEND_ONLY = """
CREATE TRIGGER transactions_transferbatch_no_change BEFORE UPDATE OR DELETE
    ON transactions_transferbatch FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_transferbatch_no_truncate BEFORE TRUNCATE
    ON transactions_transferbatch FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_transferbatchleg_no_change BEFORE UPDATE OR DELETE
    ON transactions_transferbatchleg FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_transferbatchleg_no_truncate BEFORE TRUNCATE
    ON transactions_transferbatchleg FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();
"""

NO_APPEND_ONLY = """
DROP TRIGGER transactions_transferbatchleg_no_truncate ON transactions_transferbatchleg;
DROP TRIGGER transactions_transferbatchleg_no_change ON transactions_transferbatchleg;
DROP TRIGGER transactions_transferbatch_no_truncate ON transactions_transferbatch;
DROP TRIGGER transactions_transferbatch_no_change ON transactions_transferbatch;
"""

# Once for a batch, not once for each leg. A batch has all its legs when it commits, and none is
# numbered beyond them, so none can join it later.
LEGS = """
CREATE FUNCTION transactions_transferbatch_is_whole() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    legs record;
BEGIN
    SELECT count(*) AS asked, count(made.id) AS moved, coalesce(sum(made.amount), 0) AS total
      INTO legs
      FROM transactions_transferbatchleg leg
      LEFT JOIN transactions_transaction made ON made.id = leg.transaction_id
     WHERE leg.batch_id = NEW.id;
    IF (legs.asked, legs.moved, legs.total) <> (NEW.count, NEW.succeeded, NEW.total) THEN
        RAISE EXCEPTION 'batch %: % legs, % of them moved %, but it says %, % and %',
            NEW.id, legs.asked, legs.moved, legs.total, NEW.count, NEW.succeeded, NEW.total
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transferbatch_is_whole';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transferbatch_is_whole
    AFTER INSERT ON transactions_transferbatch DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transactions_transferbatch_is_whole();

CREATE FUNCTION transactions_transferbatchleg_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    stray record;
BEGIN
    SELECT leg.batch_id, leg.index INTO stray
      FROM joined leg
      JOIN transactions_transferbatch batch ON batch.id = leg.batch_id
      LEFT JOIN transactions_transaction made ON made.id = leg.transaction_id
     WHERE leg.index >= batch.count
        OR (made.type, made.from_user_id, made.currency, made.created_at)
           <> ('transfer', batch.user_id, batch.currency, batch.created_at)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'batch %: leg % is none of its own', stray.batch_id, stray.index
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transferbatchleg_fits';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER transactions_transferbatchleg_fits AFTER INSERT ON transactions_transferbatchleg
    REFERENCING NEW TABLE AS joined
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_transferbatchleg_fits();
"""

NO_LEGS = """
DROP TRIGGER transactions_transferbatchleg_fits ON transactions_transferbatchleg;
DROP FUNCTION transactions_transferbatchleg_fits();
DROP TRIGGER transactions_transferbatch_is_whole ON transactions_transferbatch;
DROP FUNCTION transactions_transferbatch_is_whole();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("transactions", "0008_adjustments"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="TransferBatch",
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
                (
                    "mode",
                    models.CharField(
                        choices=[("atomic", "Atomic"), ("independent", "Independent")],
                        max_length=11,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("completed", "Completed"),
                            ("partial", "Partial"),
                            ("failed", "Failed"),
                        ],
                        max_length=9,
                    ),
                ),
                ("count", models.IntegerField()),
                ("succeeded", models.IntegerField()),
                ("failed", models.IntegerField()),
                ("total", fintech_core.money.AmountColumn(decimal_places=2, max_digits=15)),
                ("currency", fintech_core.money.CurrencyColumn(max_length=3)),
                ("created_at", models.DateTimeField(editable=False)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("count__gte", 1), ("count__lte", 1000)),
                        name="transactions_transferbatch_count_within_bounds",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("count", models.F("succeeded") + models.F("failed")),
                            ("failed__gte", 0),
                            ("succeeded__gte", 0),
                        ),
                        name="transactions_transferbatch_each_leg_counted_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("failed", 0), ("status", "completed")),
                            models.Q(
                                ("failed__gt", 0), ("status", "partial"), ("succeeded__gt", 0)
                            ),
                            models.Q(("status", "failed"), ("succeeded", 0)),
                            _connector="OR",
                        ),
                        name="transactions_transferbatch_status_says_what_failed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("mode", "independent"),
                            models.Q(("failed", 0), ("mode", "atomic")),
                            _connector="OR",
                        ),
                        name="transactions_transferbatch_atomic_is_whole",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("succeeded", 0), ("total", 0)),
                            models.Q(
                                ("succeeded__gt", 0),
                                ("total__gt", 0),
                                ("total__lt", Decimal("1E+13")),
                            ),
                            _connector="OR",
                        ),
                        name="transactions_transferbatch_total_of_what_succeeded",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("currency__regex", "^[A-Z]{3}$")),
                        name="transactions_transferbatch_currency_is_a_code",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="TransferBatchLeg",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "batch_id",
                        "index",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("index", models.SmallIntegerField(editable=False)),
                ("error_code", models.CharField(blank=True, default="", max_length=40)),
                (
                    "batch",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="legs",
                        to="transactions.transferbatch",
                    ),
                ),
                (
                    "transaction",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="batch_leg",
                        to="transactions.transaction",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("error_code", ""), ("transaction__isnull", False)),
                            models.Q(("error_code__gt", ""), ("transaction__isnull", True)),
                            _connector="OR",
                        ),
                        name="transactions_transferbatchleg_moved_or_refused",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("index__gte", 0)),
                        name="transactions_transferbatchleg_numbered_from_zero",
                    ),
                ],
            },
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([APPEND_ONLY], [NO_APPEND_ONLY]),
        migrations.RunSQL([LEGS], [NO_LEGS]),
    ]
