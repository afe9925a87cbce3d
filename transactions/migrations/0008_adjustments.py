"""Adjustments with four eyes, and what one never does: PostgreSQL raises, whoever writes. And the
index that a trial balance reads.

Breaches carry SQLSTATE 23514 and the name of the rule, so that Django raises IntegrityError.
"""

from decimal import Decimal

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

import fintech_core.money

# Everything but these five columns is frozen, columns added later included.
ADJUSTMENT = """
CREATE FUNCTION transactions_adjustment_begins() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status <> 'proposed' THEN
        RAISE EXCEPTION 'adjustment %: none begins %', NEW.id, NEW.status
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_begins_proposed';
    END IF;
    IF EXISTS (SELECT FROM wallet_wallet
                WHERE id = NEW.wallet_id AND currency <> NEW.currency) THEN
        RAISE EXCEPTION 'adjustment %: its wallet holds no %', NEW.id, NEW.currency
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_currency_is_the_wallets';
    END IF;
    IF EXISTS (SELECT FROM wallet_wallet
                WHERE id = NEW.wallet_id AND user_id = NEW.proposed_by_id) THEN
        RAISE EXCEPTION 'adjustment %: nobody adjusts their own wallet', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_not_ones_own_wallet';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION transactions_adjustment_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    movable constant text[] := ARRAY[
        'status', 'decided_by_id', 'decided_at', 'rejection_reason', 'transaction_id'
    ];
BEGIN
    IF to_jsonb(NEW) - movable <> to_jsonb(OLD) - movable THEN
        RAISE EXCEPTION 'adjustment %: what was proposed never changes', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_is_frozen';
    END IF;
    IF OLD.status <> 'proposed' THEN
        RAISE EXCEPTION 'adjustment %: it is % already', OLD.id, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_decided_once';
    END IF;
    IF NEW.status <> 'approved' THEN
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT FROM wallet_wallet
                WHERE id = NEW.wallet_id AND user_id = NEW.decided_by_id) THEN
        RAISE EXCEPTION 'adjustment %: nobody adjusts their own wallet', NEW.id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_not_ones_own_wallet';
    END IF;
    IF NOT EXISTS (
        SELECT FROM transactions_transaction made
          JOIN transactions_transactionledger entry ON entry.transaction_id = made.id
         WHERE made.id = NEW.transaction_id
           AND made.effect_key = 'adjustment:' || NEW.id
           AND (made.type, made.amount, made.currency, entry.wallet_id, entry.entry_type)
             = ('adjustment', NEW.amount, NEW.currency, NEW.wallet_id, NEW.direction)
    ) THEN
        RAISE EXCEPTION 'adjustment %: transaction % does not do it', NEW.id, NEW.transaction_id
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_effect_is_its_own';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transactions_adjustment_begins BEFORE INSERT ON transactions_adjustment
    FOR EACH ROW EXECUTE FUNCTION transactions_adjustment_begins();
CREATE TRIGGER transactions_adjustment_guard BEFORE UPDATE ON transactions_adjustment
    FOR EACH ROW EXECUTE FUNCTION transactions_adjustment_guard();
CREATE TRIGGER transactions_adjustment_no_delete BEFORE DELETE ON transactions_adjustment
    FOR EACH ROW EXECUTE FUNCTION transactions_append_only();
CREATE TRIGGER transactions_adjustment_no_truncate BEFORE TRUNCATE ON transactions_adjustment
    FOR EACH STATEMENT EXECUTE FUNCTION transactions_append_only();
"""

NO_ADJUSTMENT = """
DROP TRIGGER transactions_adjustment_no_truncate ON transactions_adjustment;
DROP TRIGGER transactions_adjustment_no_delete ON transactions_adjustment;
DROP TRIGGER transactions_adjustment_guard ON transactions_adjustment;
DROP TRIGGER transactions_adjustment_begins ON transactions_adjustment;
DROP FUNCTION transactions_adjustment_guard();
DROP FUNCTION transactions_adjustment_begins();
"""

# At commit, for the transaction is written before the approval that names it. Other transactions
# pay for nothing but the conditions.
APPROVED = """
CREATE FUNCTION transactions_adjustment_is_approved(posted uuid) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transactions_adjustment
                    WHERE transaction_id = posted AND status = 'approved') THEN
        RAISE EXCEPTION 'transaction %: nobody approved this adjustment', posted
            USING ERRCODE = '23514', CONSTRAINT = 'transactions_adjustment_is_approved';
    END IF;
END $$;

CREATE FUNCTION transactions_transaction_is_approved() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_adjustment_is_approved(NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION transactions_ledger_is_approved() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM transactions_adjustment_is_approved(NEW.transaction_id);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transactions_transaction_adjustment_is_approved
    AFTER INSERT ON transactions_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'adjustment')
    EXECUTE FUNCTION transactions_transaction_is_approved();
CREATE CONSTRAINT TRIGGER transactions_ledger_adjustment_is_approved
    AFTER INSERT ON transactions_transactionledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.account = 'adjustments')
    EXECUTE FUNCTION transactions_ledger_is_approved();
"""

NOT_APPROVED = """
DROP TRIGGER transactions_ledger_adjustment_is_approved ON transactions_transactionledger;
DROP TRIGGER transactions_transaction_adjustment_is_approved ON transactions_transaction;
DROP FUNCTION transactions_ledger_is_approved();
DROP FUNCTION transactions_transaction_is_approved();
DROP FUNCTION transactions_adjustment_is_approved(uuid);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("transactions", "0007_hold_rules"),
        ("wallet", "0003_admin_index"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Adjustment",
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
                        choices=[
                            ("proposed", "Proposed"),
                            ("approved", "Approved"),
                            ("rejected", "Rejected"),
                        ],
                        default="proposed",
                        max_length=8,
                    ),
                ),
                (
                    "direction",
                    models.CharField(
                        choices=[("debit", "Debit"), ("credit", "Credit")], max_length=6
                    ),
                ),
                ("amount", fintech_core.money.AmountColumn(decimal_places=2, max_digits=15)),
                ("currency", fintech_core.money.CurrencyColumn(max_length=3)),
                ("reason", models.CharField(max_length=255)),
                ("rejection_reason", models.CharField(blank=True, default="", max_length=255)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("decided_at", models.DateTimeField(editable=False, null=True)),
                (
                    "decided_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "proposed_by",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "transaction",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="adjustment",
                        to="transactions.transaction",
                    ),
                ),
                (
                    "wallet",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="wallet.wallet",
                    ),
                ),
            ],
            options={
                "permissions": [
                    ("propose_adjustment", "Can propose adjustments"),
                    ("approve_adjustment", "Can approve and reject adjustments"),
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "proposed")),
                        fields=["id"],
                        name="transactions_adjustment_open",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("status", "approved"), _negated=True),
                            models.Q(("decided_by", models.F("proposed_by")), _negated=True),
                            _connector="OR",
                        ),
                        name="transactions_adjustment_two_people",
                    ),
                    models.CheckConstraint(
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
                                ("rejection_reason__gt", ""),
                                ("status", "rejected"),
                                ("transaction__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="transactions_adjustment_decided_means_by_whom",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0), ("amount__lt", Decimal("1E+13"))),
                        name="transactions_adjustment_amount_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("direction__in", ["debit", "credit"])),
                        name="transactions_adjustment_direction_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reason__gt", "")),
                        name="transactions_adjustment_says_why",
                    ),
                ],
            },
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([ADJUSTMENT], [NO_ADJUSTMENT]),
        migrations.RunSQL([APPROVED], [NOT_APPROVED]),
        # With what a trial balance sums, so that it reads the system accounts from the index alone.
        migrations.RemoveIndex("transactionledger", "transactions_ledger_account"),
        migrations.AddIndex(
            "transactionledger",
            models.Index(
                name="transactions_ledger_account",
                fields=["account", "created_at"],
                include=["currency", "entry_type", "amount"],
                condition=models.Q(("wallet__isnull", True)),
            ),
        ),
    ]
