"""Asking gateways about what stays open, payments that came late, and money in suspense.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

# Columns added later are frozen too, until they are named here.
_GUARD = """
CREATE OR REPLACE FUNCTION payments_intent_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'transaction_id', 'gateway_reference', 'client_secret', 'checkout_url',
        'updated_at'MOVABLE
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'intent %: who, how much and through whom never change', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_is_frozen';
    END IF;
    IF OLD.gateway_reference IS NOT NULL
       AND (NEW.gateway_reference, NEW.client_secret, NEW.checkout_url)
           IS DISTINCT FROM (OLD.gateway_reference, OLD.client_secret, OLD.checkout_url) THEN
        RAISE EXCEPTION 'intent %: the gateway has answered once', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_reference_set_once';
    END IF;
    IF OLD.transaction_id IS NOT NULL AND NEW.transaction_id IS DISTINCT FROM OLD.transaction_id
    THEN
        RAISE EXCEPTION 'intent %: it is credited once', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_credited_once';
    END IF;
    IF NEW.status <> OLD.status AND NOT (CASE OLD.status
        WHEN 'requires_payment' THEN true
        WHEN 'processing' THEN NEW.status <> 'requires_payment'
        WHEN 'succeeded' THEN false
        ELSE NEW.status = 'succeeded'
    END) THEN
        RAISE EXCEPTION 'intent %: % does not lead to %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_status_forward';
    END IF;LATE
    RETURN NEW;
END $$;
"""
_LATE = """
    IF NEW.late_after <> (CASE
        WHEN NEW.status = OLD.status THEN OLD.late_after
        WHEN NEW.status = 'succeeded' AND OLD.status IN ('failed', 'canceled', 'expired')
        THEN OLD.status
        ELSE ''
    END) THEN
        RAISE EXCEPTION 'intent %: it was %, not %', OLD.id, OLD.status, NEW.late_after
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_late_after_what_it_was';
    END IF;"""
GUARD = _GUARD.replace(
    "MOVABLE",
    ", 'late_after',\n        'next_poll_at', 'polls', 'last_polled_at', 'last_answer',"
    " 'needs_staff'",
).replace("LATE", _LATE)
GUARD_BEFORE = _GUARD.replace("MOVABLE", "").replace("LATE", "")

# A deposit for nobody went to suspense: the ledger lets it go nowhere else.
_CREDIT = """
CREATE OR REPLACE FUNCTION payments_intent_credit_fits() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM transactions_transaction made
         WHERE id = NEW.transaction_id
           AND type = 'deposit'
           AND effect_key = 'payment_intent:' || NEW.id
           AND FITS
    ) THEN
        RAISE EXCEPTION 'intent %: transaction % is not its credit', NEW.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_paymentintent_credit_is_its_own';
    END IF;
    RETURN NEW;
END $$;
"""
_TO_ITS_OWNER = "(amount, currency, to_user_id) = (NEW.amount, NEW.currency, NEW.user_id)"
_OR_SUSPENDED = """(amount, currency) = (NEW.amount, NEW.currency)
           AND (to_user_id = NEW.user_id
                OR to_user_id IS NULL AND EXISTS (
                    SELECT FROM payments_suspendeddeposit
                     WHERE (intent_id, transaction_id) = (NEW.id, made.id)))"""
CREDIT = _CREDIT.replace("FITS", _OR_SUSPENDED)
CREDIT_BEFORE = _CREDIT.replace("FITS", _TO_ITS_OWNER).replace("_transaction made", "_transaction")

SUSPENSE_RULES = """
CREATE FUNCTION payments_suspense_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'open' OR NOT EXISTS (
        SELECT FROM transactions_transaction made
          JOIN payments_paymentintent intent ON intent.id = NEW.intent_id
          JOIN wallet_wallet wallet ON wallet.id = intent.wallet_id
         WHERE made.id = NEW.transaction_id
           AND made.effect_key = 'payment_intent:' || NEW.intent_id
           AND made.posted_in = pg_current_xact_id()
           AND num_nonnulls(made.from_user_id, made.to_user_id) = 0
           AND (made.type, made.amount, made.currency, wallet.status)
             = ('deposit', intent.amount, intent.currency, 'closed')
    ) THEN
        RAISE EXCEPTION 'intent %: transaction % does not suspend its money',
            NEW.intent_id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_suspense_is_the_intents';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION payments_suspense_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY['status', 'note', 'resolved_by_id', 'resolved_at'];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'suspense %: what arrived never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_suspense_is_frozen';
    END IF;
    IF OLD.status <> 'open' THEN
        RAISE EXCEPTION 'suspense %: it is resolved already', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_suspense_resolved_once';
    END IF;
    IF EXISTS (SELECT FROM payments_paymentintent
                WHERE id = NEW.intent_id AND user_id = NEW.resolved_by_id) THEN
        RAISE EXCEPTION 'suspense %: nobody decides about their own money', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_suspense_not_ones_own';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER payments_suspense_begins BEFORE INSERT ON payments_suspendeddeposit
    FOR EACH ROW EXECUTE FUNCTION payments_suspense_begins();
CREATE TRIGGER payments_suspense_guard BEFORE UPDATE ON payments_suspendeddeposit
    FOR EACH ROW EXECUTE FUNCTION payments_suspense_guard();
CREATE TRIGGER payments_suspense_no_delete BEFORE DELETE ON payments_suspendeddeposit
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_suspense_no_truncate BEFORE TRUNCATE ON payments_suspendeddeposit
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();
"""

NO_SUSPENSE_RULES = """
DROP TRIGGER payments_suspense_no_truncate ON payments_suspendeddeposit;
DROP TRIGGER payments_suspense_no_delete ON payments_suspendeddeposit;
DROP TRIGGER payments_suspense_guard ON payments_suspendeddeposit;
DROP TRIGGER payments_suspense_begins ON payments_suspendeddeposit;
DROP FUNCTION payments_suspense_guard();
DROP FUNCTION payments_suspense_begins();
"""

ASK_ABOUT_OPEN_ONES = """
UPDATE payments_paymentintent SET next_poll_at = now()
 WHERE status IN ('requires_payment', 'processing');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0007_payouts"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="SuspendedDeposit",
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
                    "status",
                    models.CharField(
                        choices=[("open", "Open"), ("resolved", "Resolved")],
                        default="open",
                        max_length=8,
                    ),
                ),
                ("note", models.CharField(blank=True, max_length=500)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("resolved_at", models.DateTimeField(null=True)),
            ],
            options={
                "permissions": [("resolve_suspense", "Can say what became of money in suspense")],
            },
        ),
        migrations.AddField(
            model_name="paymentintent",
            name="last_answer",
            field=models.CharField(blank=True, db_default="", editable=False, max_length=500),
        ),
        migrations.AddField(
            model_name="paymentintent",
            name="last_polled_at",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="paymentintent",
            name="late_after",
            field=models.CharField(
                blank=True,
                choices=[("failed", "Failed"), ("canceled", "Canceled"), ("expired", "Expired")],
                db_default="",
                editable=False,
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="paymentintent",
            name="needs_staff",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        migrations.AddField(
            model_name="paymentintent",
            name="next_poll_at",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="paymentintent",
            name="polls",
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AddIndex(
            model_name="paymentintent",
            index=models.Index(
                condition=models.Q(("next_poll_at__isnull", False)),
                fields=["next_poll_at"],
                name="payments_intent_to_ask",
            ),
        ),
        migrations.AddIndex(
            model_name="paymentintent",
            index=models.Index(
                condition=models.Q(("needs_staff", True)),
                fields=["-id"],
                name="payments_intent_for_staff",
            ),
        ),
        migrations.AddIndex(
            model_name="paymentintent",
            index=models.Index(
                condition=models.Q(("late_after", ""), _negated=True),
                fields=["late_after", "-id"],
                name="payments_intent_late",
            ),
        ),
        migrations.AddConstraint(
            model_name="paymentintent",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("late_after", ""),
                    models.Q(
                        ("late_after__in", ["failed", "canceled", "expired"]),
                        ("status", "succeeded"),
                    ),
                    _connector="OR",
                ),
                name="payments_paymentintent_late_means_succeeded",
            ),
        ),
        migrations.AddField(
            model_name="suspendeddeposit",
            name="intent",
            field=models.OneToOneField(
                editable=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="suspended",
                to="payments.paymentintent",
            ),
        ),
        migrations.AddField(
            model_name="suspendeddeposit",
            name="resolved_by",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="suspendeddeposit",
            name="transaction",
            field=models.OneToOneField(
                editable=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="suspended",
                to="transactions.transaction",
            ),
        ),
        migrations.AddIndex(
            model_name="suspendeddeposit",
            index=models.Index(fields=["status", "-id"], name="payments_suspense_by_status"),
        ),
        migrations.AddConstraint(
            model_name="suspendeddeposit",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["open", "resolved"])),
                name="payments_suspense_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="suspendeddeposit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("note", ""),
                        ("resolved_at__isnull", True),
                        ("resolved_by__isnull", True),
                        ("status", "open"),
                    ),
                    models.Q(
                        ("note__regex", "\\S"),
                        ("resolved_at__isnull", False),
                        ("resolved_by__isnull", False),
                        ("status", "resolved"),
                    ),
                    _connector="OR",
                ),
                name="payments_suspense_resolved_means_by_whom_and_how",
            ),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([GUARD], [GUARD_BEFORE]),
        migrations.RunSQL([CREDIT], [CREDIT_BEFORE]),
        migrations.RunSQL([SUSPENSE_RULES], [NO_SUSPENSE_RULES]),
        migrations.RunSQL([ASK_ABOUT_OPEN_ONES], migrations.RunSQL.noop),
    ]
