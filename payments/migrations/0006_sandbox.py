"""The sandbox's own books, and what they never do, in PostgreSQL: it raises, whoever writes."""

from decimal import Decimal

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.db import migrations, models

import fintech_core.money

ORDER_RULES = """
CREATE FUNCTION payments_sandbox_order_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY['status', 'settled_amount', 'settled_at'];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'sandbox order %: what was ordered never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_sandboxorder_is_frozen';
    END IF;
    IF OLD.settled_at IS NOT NULL
       AND (NEW.status, NEW.settled_amount, NEW.settled_at)
           IS DISTINCT FROM (OLD.status, OLD.settled_amount, OLD.settled_at) THEN
        RAISE EXCEPTION 'sandbox order %: money that moved stays moved', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_sandboxorder_settled_is_final';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER payments_sandbox_order_guard BEFORE UPDATE ON payments_sandboxorder
    FOR EACH ROW EXECUTE FUNCTION payments_sandbox_order_guard();
CREATE TRIGGER payments_sandbox_order_no_delete BEFORE DELETE ON payments_sandboxorder
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_sandbox_order_no_truncate BEFORE TRUNCATE ON payments_sandboxorder
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();
"""

NO_ORDER_RULES = """
DROP TRIGGER payments_sandbox_order_no_truncate ON payments_sandboxorder;
DROP TRIGGER payments_sandbox_order_no_delete ON payments_sandboxorder;
DROP TRIGGER payments_sandbox_order_guard ON payments_sandboxorder;
DROP FUNCTION payments_sandbox_order_guard();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0004_list_indexes"),
    ]

    operations = [
        migrations.CreateModel(
            name="SandboxOrder",
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
                    "subject",
                    models.CharField(
                        choices=[
                            ("payment_intent", "Payment intent"),
                            ("payout", "Payout"),
                            ("refund", "Refund"),
                        ],
                        max_length=14,
                    ),
                ),
                ("reference", models.CharField(max_length=255)),
                ("intent_reference", models.CharField(blank=True, max_length=255)),
                ("amount", fintech_core.money.AmountColumn(decimal_places=2, max_digits=15)),
                ("currency", fintech_core.money.CurrencyColumn(max_length=3)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("open", "Open"),
                            ("processing", "Processing"),
                            ("succeeded", "Succeeded"),
                            ("paid", "Paid"),
                            ("failed", "Failed"),
                            ("canceled", "Canceled"),
                        ],
                        default="open",
                        max_length=10,
                    ),
                ),
                (
                    "settled_amount",
                    fintech_core.money.AmountColumn(decimal_places=2, max_digits=15, null=True),
                ),
                ("settled_at", models.DateTimeField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("settled_at__isnull", False)),
                        fields=["settled_at"],
                        name="payments_sandbox_settled",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("reference",), name="payments_sandboxorder_one_per_reference"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0), ("amount__lt", Decimal("1E+13"))),
                        name="payments_sandboxorder_amount_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status__in", ["open", "processing", "failed", "canceled"]),
                            models.Q(
                                ("status", "succeeded"),
                                ("subject__in", ["payment_intent", "refund"]),
                            ),
                            models.Q(("status", "paid"), ("subject", "payout")),
                            _connector="OR",
                        ),
                        name="payments_sandboxorder_status_of_its_subject",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("subject__in", ["payment_intent", "payout", "refund"])),
                        name="payments_sandboxorder_subject_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("settled_amount__gt", 0),
                                ("settled_amount__lt", Decimal("1E+13")),
                                ("settled_at__isnull", False),
                                ("status__in", ["succeeded", "paid"]),
                            ),
                            models.Q(
                                ("settled_amount__isnull", True),
                                ("settled_at__isnull", True),
                                ("status__in", ["open", "processing", "failed", "canceled"]),
                            ),
                            _connector="OR",
                        ),
                        name="payments_sandboxorder_settled_iff_money_moved",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="SandboxDelivery",
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
                ("event_id", models.CharField(max_length=255)),
                ("event_type", models.CharField(max_length=100)),
                ("body", models.TextField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("delivered", "Delivered"),
                            ("given_up", "Given up"),
                        ],
                        default="waiting",
                        max_length=9,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("next_attempt_at", models.DateTimeField(null=True)),
                ("answer_status", models.PositiveSmallIntegerField(null=True)),
                ("answer", models.CharField(blank=True, max_length=500)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("delivered_at", models.DateTimeField(null=True)),
                (
                    "order",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="deliveries",
                        to="payments.sandboxorder",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "sandbox deliveries",
                "indexes": [
                    models.Index(fields=["order", "id"], name="payments_sandbox_of_order"),
                    models.Index(
                        condition=models.Q(("status", "waiting")),
                        fields=["next_attempt_at"],
                        name="payments_sandbox_due",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["waiting", "delivered", "given_up"])),
                        name="payments_sandboxdelivery_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("next_attempt_at__isnull", False), ("status", "waiting")),
                            models.Q(
                                models.Q(("status", "waiting"), _negated=True),
                                ("next_attempt_at__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="payments_sandboxdelivery_due_iff_waiting",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("delivered_at__isnull", False), ("status", "delivered")),
                            models.Q(
                                models.Q(("status", "delivered"), _negated=True),
                                ("delivered_at__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="payments_sandboxdelivery_delivered_iff_dated",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("attempts__gte", 0), ("attempts__lte", 6)),
                        name="payments_sandboxdelivery_attempts_bounded",
                    ),
                ],
            },
        ),
        migrations.RunSQL([ORDER_RULES], [NO_ORDER_RULES]),
    ]
