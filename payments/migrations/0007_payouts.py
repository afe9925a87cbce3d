"""Payouts: what they never do, and how they go with their withdrawals, in PostgreSQL.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from decimal import Decimal

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

import fintech_core.money
import users.fields

# Columns added later are frozen too, until they are named here.
PAYOUT_RULES = """
CREATE FUNCTION payments_payout_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'pending' OR NEW.gateway_reference IS NOT NULL THEN
        RAISE EXCEPTION 'payout %: none begins settled, or known to its gateway', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_begins_pending';
    END IF;
    IF NOT EXISTS (
        SELECT FROM transactions_transaction made
          JOIN transactions_transactionledger entry ON entry.transaction_id = made.id
          JOIN wallet_wallet wallet ON wallet.id = entry.wallet_id
         WHERE made.id = NEW.transaction_id
           AND made.type = 'withdrawal'
           AND made.effect_key = 'payout:' || NEW.id
           AND made.posted_in = pg_current_xact_id()
           AND (made.amount, made.currency, made.from_user_id, wallet.id, wallet.user_id)
             = (NEW.amount, NEW.currency, NEW.user_id, NEW.wallet_id, NEW.user_id)
    ) THEN
        RAISE EXCEPTION 'payout %: transaction % is not its withdrawal', NEW.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_withdrawal_is_its_own';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION payments_payout_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'gateway_reference', 'failure_code', 'reversal_id', 'completed_at', 'updated_at',
        'next_poll_at', 'polls', 'last_polled_at', 'last_answer', 'needs_staff'
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'payout %: who, how much, where to and through whom never change', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_is_frozen';
    END IF;
    IF OLD.gateway_reference IS NOT NULL
       AND NEW.gateway_reference IS DISTINCT FROM OLD.gateway_reference THEN
        RAISE EXCEPTION 'payout %: the gateway has answered once', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_reference_set_once';
    END IF;
    IF OLD.status <> 'pending'
       AND (NEW.status, NEW.failure_code, NEW.reversal_id, NEW.completed_at)
           IS DISTINCT FROM (OLD.status, OLD.failure_code, OLD.reversal_id, OLD.completed_at) THEN
        RAISE EXCEPTION 'payout %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_settled_once';
    END IF;
    IF OLD.status = 'pending' AND NEW.status = 'paid' AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE (id, status, completed_at) = (NEW.transaction_id, 'completed', NEW.completed_at)
    ) THEN
        RAISE EXCEPTION 'payout %: its withdrawal was not completed with it', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_agrees_with_its_withdrawal';
    END IF;
    IF OLD.status = 'pending' AND NEW.status = 'failed' AND NOT EXISTS (
        SELECT FROM transactions_transaction
         WHERE (id, type, parent_id) = (NEW.reversal_id, 'reversal', NEW.transaction_id)
           AND posted_in = pg_current_xact_id()
    ) THEN
        RAISE EXCEPTION 'payout %: transaction % is not its reversal', OLD.id, NEW.reversal_id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_reversal_is_its_own';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER payments_payout_begins BEFORE INSERT ON payments_payout
    FOR EACH ROW EXECUTE FUNCTION payments_payout_begins();
CREATE TRIGGER payments_payout_guard BEFORE UPDATE ON payments_payout
    FOR EACH ROW EXECUTE FUNCTION payments_payout_guard();
CREATE TRIGGER payments_payout_no_delete BEFORE DELETE ON payments_payout
    FOR EACH ROW EXECUTE FUNCTION payments_keep();
CREATE TRIGGER payments_payout_no_truncate BEFORE TRUNCATE ON payments_payout
    FOR EACH STATEMENT EXECUTE FUNCTION payments_keep();

-- A token of Fernet begins with its version and the high bytes of its time.
ALTER TABLE payments_payout ADD CONSTRAINT payments_payout_destination_is_encrypted
    CHECK (starts_with(iban, 'gAAAA') AND starts_with(holder, 'gAAAA'));
"""

NO_PAYOUT_RULES = """
ALTER TABLE payments_payout DROP CONSTRAINT payments_payout_destination_is_encrypted;
DROP TRIGGER payments_payout_no_truncate ON payments_payout;
DROP TRIGGER payments_payout_no_delete ON payments_payout;
DROP TRIGGER payments_payout_guard ON payments_payout;
DROP TRIGGER payments_payout_begins ON payments_payout;
DROP FUNCTION payments_payout_guard();
DROP FUNCTION payments_payout_begins();
"""

# The other way round: no withdrawal without its payout, and none that says otherwise than it.
WITHDRAWALS_HAVE_PAYOUTS = """
CREATE FUNCTION payments_withdrawal_has_its_payout() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM payments_payout payout
          JOIN transactions_transaction made ON made.id = payout.transaction_id
         WHERE made.id = NEW.id
           AND (made.status, payout.status)
            IN (('pending', 'pending'), ('completed', 'paid'), ('failed', 'failed'))
    ) THEN
        RAISE EXCEPTION 'transaction %: no payout says what this withdrawal says', NEW.id
            USING ERRCODE = '23514',
                  CONSTRAINT = 'transactions_transaction_withdrawal_has_its_payout';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_withdrawal_has_its_payout
    AFTER INSERT OR UPDATE OF status ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'withdrawal')
    EXECUTE FUNCTION payments_withdrawal_has_its_payout();
"""

WITHDRAWALS_ALONE = """
DROP TRIGGER transactions_transaction_withdrawal_has_its_payout ON transactions_transaction;
DROP FUNCTION payments_withdrawal_has_its_payout();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0006_sandbox"),
        ("transactions", "0014_payouts"),
        ("transactions", "0022_list_indexes"),
        ("wallet", "0002_wallet_rules"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Payout",
            fields=[
                ("next_poll_at", models.DateTimeField(editable=False, null=True)),
                ("polls", models.PositiveIntegerField(db_default=0, default=0, editable=False)),
                ("last_polled_at", models.DateTimeField(editable=False, null=True)),
                (
                    "last_answer",
                    models.CharField(blank=True, db_default="", editable=False, max_length=500),
                ),
                (
                    "needs_staff",
                    models.BooleanField(db_default=False, default=False, editable=False),
                ),
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
                ("iban", users.fields.EncryptedTextField(editable=False)),
                ("holder", users.fields.EncryptedTextField(editable=False)),
                (
                    "status",
                    models.CharField(
                        choices=[("pending", "Pending"), ("paid", "Paid"), ("failed", "Failed")],
                        default="pending",
                        max_length=7,
                    ),
                ),
                ("failure_code", models.CharField(max_length=100, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("completed_at", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "permissions": [("settle_payout", "Can put right payouts that the gateway lost")],
            },
        ),
        migrations.AddField(
            model_name="payout",
            name="reversal",
            field=models.OneToOneField(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="failed_payout",
                to="transactions.transaction",
            ),
        ),
        migrations.AddField(
            model_name="payout",
            name="transaction",
            field=models.OneToOneField(
                editable=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="payout",
                to="transactions.transaction",
            ),
        ),
        migrations.AddField(
            model_name="payout",
            name="user",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="payouts",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="payout",
            name="wallet",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="payouts",
                to="wallet.wallet",
            ),
        ),
        migrations.AddField(
            model_name="webhookevent",
            name="payout",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="webhook_events",
                to="payments.payout",
            ),
        ),
        migrations.AddIndex(
            model_name="payout",
            index=models.Index(fields=["user", "-id"], name="payments_payout_newest_of_user"),
        ),
        migrations.AddIndex(
            model_name="payout",
            index=models.Index(fields=["status", "-id"], name="payments_payout_by_status"),
        ),
        migrations.AddIndex(
            model_name="payout",
            index=models.Index(
                condition=models.Q(("next_poll_at__isnull", False)),
                fields=["next_poll_at"],
                name="payments_payout_to_ask",
            ),
        ),
        migrations.AddIndex(
            model_name="payout",
            index=models.Index(
                condition=models.Q(("needs_staff", True)),
                fields=["-id"],
                name="payments_payout_for_staff",
            ),
        ),
        migrations.AddConstraint(
            model_name="payout",
            constraint=models.UniqueConstraint(
                fields=("gateway_reference", "gateway"), name="payments_payout_one_per_reference"
            ),
        ),
        migrations.AddConstraint(
            model_name="payout",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gt", 0), ("amount__lt", Decimal("1E+13"))),
                name="payments_payout_amount_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="payout",
            constraint=models.CheckConstraint(
                condition=models.Q(("currency__regex", "^[A-Z]{3}$")),
                name="payments_payout_currency_is_a_code",
            ),
        ),
        migrations.AddConstraint(
            model_name="payout",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["pending", "paid", "failed"])),
                name="payments_payout_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="payout",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("completed_at__isnull", True), ("status", "pending")),
                    models.Q(
                        models.Q(("status", "pending"), _negated=True),
                        ("completed_at__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="payments_payout_settled_iff_dated",
            ),
        ),
        migrations.AddConstraint(
            model_name="payout",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("failure_code__isnull", False),
                        ("reversal__isnull", False),
                        ("status", "failed"),
                    ),
                    models.Q(
                        models.Q(("status", "failed"), _negated=True),
                        ("failure_code__isnull", True),
                        ("reversal__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="payments_payout_failed_iff_reversed",
            ),
        ),
        migrations.AddConstraint(
            model_name="payout",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("next_poll_at__isnull", False), ("status", "pending")),
                    models.Q(
                        models.Q(("status", "pending"), _negated=True),
                        ("next_poll_at__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="payments_payout_asked_about_while_pending",
            ),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([PAYOUT_RULES], [NO_PAYOUT_RULES]),
        migrations.RunSQL([WITHDRAWALS_HAVE_PAYOUTS], [WITHDRAWALS_ALONE]),
    ]
