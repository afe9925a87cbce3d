"""Who captured or voided a hold, which of staff refunded, and one proposal for each form sent.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# Everything but these columns is frozen, columns added later included.
_GUARD = """
CREATE OR REPLACE FUNCTION transactions_hold_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[MOVABLE];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'hold %: who, how much and until when never change', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_is_frozen';
    END IF;
    IF OLD.status <> 'active' THEN
        RAISE EXCEPTION 'hold %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_resolved_once';
    END IF;
    -- The capture was decided within this database transaction, so not before it began.
    IF NEW.status = 'captured' AND OLD.expires_at <= now()
       OR NEW.status = 'expired' AND OLD.expires_at > clock_timestamp() THEN
        RAISE EXCEPTION 'hold %: it cannot be %, it expires at %',
            OLD.id, NEW.status, OLD.expires_at
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_expires_in_time';
    END IF;
    IF NEW.status = 'captured' AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE id = NEW.transaction_id
           AND type = 'capture'
           AND (amount, currency, from_user_id, to_user_id)
             = (NEW.captured_amount, NEW.currency, NEW.from_user_id, NEW.to_user_id)
    ) THEN
        RAISE EXCEPTION 'hold %: transaction % is not its capture', OLD.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_capture_is_its_own';
    END IF;BY_WHOM
    RETURN NEW;
END $$;
"""
_RESOLUTION = "'status', 'captured_amount', 'transaction_id', 'resolved_at'"
_BY_WHOM = """
    IF NEW.status = 'captured' AND NEW.resolved_by_id IS DISTINCT FROM NEW.to_user_id
       OR NEW.status = 'voided'
          AND coalesce(NEW.resolved_by_id, NEW.from_user_id) = NEW.from_user_id THEN
        RAISE EXCEPTION 'hold %: % cannot have % it', OLD.id, NEW.resolved_by_id, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_hold_resolved_by_whom';
    END IF;"""
BY_SOMEBODY = _GUARD.replace("MOVABLE", f"{_RESOLUTION}, 'resolved_by_id'").replace(
    "BY_WHOM", _BY_WHOM
)
BY_ANYBODY = _GUARD.replace("MOVABLE", _RESOLUTION).replace("BY_WHOM", "")

STAFF_REFUNDS = """
CREATE FUNCTION transactions_staffrefund_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transactions_transaction
                    WHERE id = NEW.transaction_id
                      AND type = 'refund'
                      AND posted_in = pg_current_xact_id()
                      AND NEW.staff_id NOT IN (from_user_id, to_user_id)) THEN
        RAISE EXCEPTION 'transaction %: it is no refund that % makes for its recipient',
            NEW.transaction_id, NEW.staff_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_staffrefund_fits';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_staffrefund_fits BEFORE INSERT ON transactions_staffrefund
    FOR EACH ROW EXECUTE FUNCTION transactions_staffrefund_fits();
CREATE TRIGGER transactions_staffrefund_no_change BEFORE UPDATE OR DELETE
    ON transactions_staffrefund FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_staffrefund_no_truncate BEFORE TRUNCATE
    ON transactions_staffrefund FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();
"""

NO_STAFF_REFUNDS = """
DROP TRIGGER transactions_staffrefund_no_truncate ON transactions_staffrefund;
DROP TRIGGER transactions_staffrefund_no_change ON transactions_staffrefund;
DROP TRIGGER transactions_staffrefund_fits ON transactions_staffrefund;
DROP FUNCTION transactions_staffrefund_fits();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("transactions", "0012_what_it_says"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="StaffRefund",
            fields=[
                (
                    "transaction",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="staff_refund",
                        serialize=False,
                        to="transactions.transaction",
                    ),
                ),
                (
                    "staff",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="hold",
            name="resolved_by",
            field=models.ForeignKey(
                db_index=False,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status__in", ["captured", "voided"]),
                    ("resolved_by__isnull", True),
                    _connector="OR",
                ),
                name="transactions_hold_runs_out_by_itself",
            ),
        ),
        migrations.AddField(
            model_name="adjustment",
            name="form_id",
            field=models.UUIDField(editable=False, null=True, unique=True),
        ),
        migrations.RemoveConstraint("adjustment", "transactions_adjustment_says_why"),
        migrations.AddConstraint(
            model_name="adjustment",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason__regex", "\\S")),
                name="transactions_adjustment_says_why",
            ),
        ),
        migrations.RemoveConstraint("adjustment", "transactions_adjustment_decided_means_by_whom"),
        migrations.AddConstraint(
            model_name="adjustment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("decided_at__isnull", True),
                        ("decided_by__isnull", True),
                        ("rejection_reason", ""),
                        ("status", "proposed"),
                        ("transaction__isnull", True),
                    ),
                    models.Q(
                        ("decided_at__isnull", False),
                        ("decided_by__isnull", False),
                        ("rejection_reason", ""),
                        ("status", "approved"),
                        ("transaction__isnull", False),
                    ),
                    models.Q(
                        ("decided_at__isnull", False),
                        ("decided_by__isnull", False),
                        ("rejection_reason__regex", "\\S"),
                        ("status", "rejected"),
                        ("transaction__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="transactions_adjustment_decided_means_by_whom",
            ),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([BY_SOMEBODY], [BY_ANYBODY]),
        migrations.RunSQL([STAFF_REFUNDS], [NO_STAFF_REFUNDS]),
    ]
