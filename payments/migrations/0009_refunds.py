"""Refunds of deposits through the gateway, and what they never do, in PostgreSQL.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from decimal import Decimal

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

import fintech_core.money

# Columns added later are frozen too, until they are named here.
REFUND_RULES = """
CREATE FUNCTION payments_refund_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'gateway_reference', 'reversal_id', 'failure_code', 'attempts',
        'next_attempt_at', 'completed_at'
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'refund %: what was ordered never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_depositrefund_is_frozen';
    END IF;
    IF OLD.gateway_reference IS NOT NULL
       AND NEW.gateway_reference IS DISTINCT FROM OLD.gateway_reference THEN
        RAISE EXCEPTION 'refund %: the gateway has answered once', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_depositrefund_reference_set_once';
    END IF;
    IF OLD.status <> 'pending'
       AND (NEW.status, NEW.reversal_id, NEW.failure_code, NEW.completed_at)
           IS DISTINCT FROM (OLD.status, OLD.reversal_id, OLD.failure_code, OLD.completed_at) THEN
        RAISE EXCEPTION 'refund %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_depositrefund_first_word_wins';
    END IF;
    IF NEW.reversal_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE id = NEW.reversal_id
           AND effect_key = 'deposit_refund_failed:' || NEW.id
           AND (type, parent_id, amount, currency)
             = ('reversal', NEW.transaction_id, NEW.amount, NEW.currency)
    ) THEN
        RAISE EXCEPTION 'refund %: transaction % does not bring it back', NEW.id, NEW.reversal_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_depositrefund_reversal_is_its_own';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION payments_refund_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    paid record;
BEGIN
    IF (NEW.status, NEW.attempts) <> ('pending', 0) OR NEW.gateway_reference IS NOT NULL THEN
        RAISE EXCEPTION 'refund %: none begins % or known to the gateway', NEW.id, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_depositrefund_begins_pending';
    END IF;
    SELECT user_id, gateway, currency, transaction_id INTO paid
      FROM payments_paymentintent WHERE id = NEW.intent_id AND status = 'succeeded';
    IF NEW.requested_by_id = paid.user_id THEN
        RAISE EXCEPTION 'refund %: nobody refunds their own money', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_depositrefund_not_ones_own';
    END IF;
    IF paid.transaction_id IS NULL
       OR (NEW.gateway, NEW.currency) <> (paid.gateway, paid.currency)
       OR NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE id = NEW.transaction_id
           AND effect_key = 'deposit_refund:' || NEW.id
           AND posted_in = pg_current_xact_id()
           AND to_user_id IS NULL
           AND (type, parent_id, amount, currency, from_user_id)
             = ('refund', paid.transaction_id, NEW.amount, NEW.currency, paid.user_id)
    ) THEN
        RAISE EXCEPTION 'refund %: transaction % is not its own', NEW.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_depositrefund_fits_its_transaction';
    END IF;
    RETURN NEW;
END $$;

-- The other way round: no money goes back out, or comes back in, without its order.
CREATE FUNCTION payments_refund_is_ordered() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM payments_depositrefund WHERE transaction_id = NEW.id) THEN
        RAISE EXCEPTION 'transaction %: nobody ordered this refund', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_refund_is_ordered';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION payments_refund_has_failed() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM transactions_transaction
                WHERE id = NEW.parent_id AND type = 'refund')
       AND NOT EXISTS (SELECT FROM payments_depositrefund WHERE reversal_id = NEW.id) THEN
        RAISE EXCEPTION 'transaction %: its refund has not failed', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_transaction_refund_has_failed';
    END IF;
    RETURN NULL;
END $$;

-- Its money might come back, and a closed wallet takes none. Whoever orders a refund has locked the
-- wallet, so the order is committed when the wallet can be closed.
CREATE FUNCTION payments_wallet_closes() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM payments_depositrefund refund
                 JOIN payments_paymentintent intent ON intent.id = refund.intent_id
                WHERE refund.status = 'pending' AND intent.wallet_id = NEW.id) THEN
        RAISE EXCEPTION 'wallet %: a refund of its deposits is still on its way', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'wallet_wallet_closes_when_settled';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER wallet_wallet_closes_when_refunded BEFORE UPDATE ON wallet_wallet
    FOR EACH ROW WHEN (OLD.status <> 'closed' AND NEW.status = 'closed')
    EXECUTE FUNCTION payments_wallet_closes();
CREATE TRIGGER payments_refund_guard BEFORE UPDATE ON payments_depositrefund
    FOR EACH ROW EXECUTE FUNCTION payments_refund_guard();
CREATE TRIGGER payments_refund_begins BEFORE INSERT ON payments_depositrefund
    FOR EACH ROW EXECUTE FUNCTION payments_refund_begins();
CREATE TRIGGER payments_refund_no_delete BEFORE DELETE ON payments_depositrefund
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_refund_no_truncate BEFORE TRUNCATE ON payments_depositrefund
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();
CREATE CONSTRAINT TRIGGER transactions_transaction_refund_is_ordered
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'refund' AND NEW.to_user_id IS NULL)
    EXECUTE FUNCTION payments_refund_is_ordered();
CREATE CONSTRAINT TRIGGER transactions_transaction_refund_has_failed
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'reversal')
    EXECUTE FUNCTION payments_refund_has_failed();
"""

NO_REFUND_RULES = """
DROP TRIGGER wallet_wallet_closes_when_refunded ON wallet_wallet;
DROP FUNCTION payments_wallet_closes();
DROP TRIGGER transactions_transaction_refund_has_failed ON transactions_transaction;
DROP TRIGGER transactions_transaction_refund_is_ordered ON transactions_transaction;
DROP TRIGGER payments_refund_no_truncate ON payments_depositrefund;
DROP TRIGGER payments_refund_no_delete ON payments_depositrefund;
DROP TRIGGER payments_refund_begins ON payments_depositrefund;
DROP TRIGGER payments_refund_guard ON payments_depositrefund;
DROP FUNCTION payments_refund_has_failed();
DROP FUNCTION payments_refund_is_ordered();
DROP FUNCTION payments_refund_begins();
DROP FUNCTION payments_refund_guard();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0008_polling_and_suspense"),
        ("transactions", "0016_refunds_to_source"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="DepositRefund",
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
                ("amount", fintech_core.money.AmountColumn(decimal_places=2, max_digits=15)),
                ("currency", fintech_core.money.CurrencyColumn(max_length=3)),
                ("gateway", models.CharField(max_length=20)),
                ("gateway_reference", models.CharField(max_length=255, null=True)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ("reason", models.CharField(max_length=255)),
                ("failure_code", models.CharField(blank=True, max_length=100)),
                ("form_id", models.UUIDField(editable=False, null=True, unique=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                (
                    "next_attempt_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), null=True
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("completed_at", models.DateTimeField(editable=False, null=True)),
                (
                    "intent",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refunds",
                        to="payments.paymentintent",
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "reversal",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="returned_deposit_refund",
                        to="transactions.transaction",
                    ),
                ),
                (
                    "transaction",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="deposit_refund",
                        to="transactions.transaction",
                    ),
                ),
            ],
            options={
                "permissions": [("refund_deposit", "Can send deposits back to their source")],
            },
        ),
        migrations.AddField(
            model_name="webhookevent",
            name="refund",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="webhook_events",
                to="payments.depositrefund",
            ),
        ),
        migrations.AddIndex(
            model_name="depositrefund",
            index=models.Index(
                condition=models.Q(("status", "pending")),
                fields=["next_attempt_at"],
                name="payments_refund_due",
            ),
        ),
        migrations.AddIndex(
            model_name="depositrefund",
            index=models.Index(fields=["status", "-id"], name="payments_refund_by_status"),
        ),
        migrations.AddIndex(
            model_name="depositrefund",
            index=models.Index(
                fields=["gateway", "completed_at"], name="payments_refund_completed"
            ),
        ),
        migrations.AddConstraint(
            model_name="depositrefund",
            constraint=models.UniqueConstraint(
                fields=("gateway_reference", "gateway"),
                name="payments_depositrefund_one_per_reference",
            ),
        ),
        migrations.AddConstraint(
            model_name="depositrefund",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gt", 0), ("amount__lt", Decimal("1E+13"))),
                name="payments_depositrefund_amount_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="depositrefund",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["pending", "succeeded", "failed"])),
                name="payments_depositrefund_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="depositrefund",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason__regex", "\\S")), name="payments_depositrefund_says_why"
            ),
        ),
        migrations.AddConstraint(
            model_name="depositrefund",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("reversal__isnull", False), ("status", "failed")),
                    models.Q(
                        models.Q(("status", "failed"), _negated=True),
                        ("failure_code", ""),
                        ("reversal__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="payments_depositrefund_failed_iff_returned",
            ),
        ),
        migrations.AddConstraint(
            model_name="depositrefund",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status", "succeeded"), _negated=True),
                    ("gateway_reference__isnull", False),
                    _connector="OR",
                ),
                name="payments_depositrefund_succeeded_is_known_there",
            ),
        ),
        migrations.AddConstraint(
            model_name="depositrefund",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("completed_at__isnull", True),
                        ("next_attempt_at__isnull", False),
                        ("status", "pending"),
                    ),
                    models.Q(
                        models.Q(("status", "pending"), _negated=True),
                        ("completed_at__isnull", False),
                        ("next_attempt_at__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="payments_depositrefund_pending_iff_due",
            ),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([REFUND_RULES], [NO_REFUND_RULES]),
    ]
