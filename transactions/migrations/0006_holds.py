"""Money reserved for somebody. What a hold never does is in `0007_hold_rules.py`."""

from decimal import Decimal

import django.db.models.deletion
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

import fintech_core.money


class Migration(migrations.Migration):
    dependencies = [
        ("transactions", "0005_checkpoints"),
        ("wallet", "0003_admin_index"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Hold",
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
                            ("active", "Active"),
                            ("captured", "Captured"),
                            ("voided", "Voided"),
                            ("expired", "Expired"),
                        ],
                        default="active",
                        max_length=8,
                    ),
                ),
                ("amount", fintech_core.money.AmountColumn(decimal_places=2, max_digits=15)),
                (
                    "captured_amount",
                    fintech_core.money.AmountColumn(
                        decimal_places=2, default=Decimal("0.00"), max_digits=15
                    ),
                ),
                ("currency", fintech_core.money.CurrencyColumn(max_length=3)),
                ("description", models.CharField(blank=True, max_length=255)),
                ("metadata", models.JSONField(default=dict)),
                ("expires_at", models.DateTimeField(editable=False)),
                ("created_at", models.DateTimeField(editable=False)),
                ("resolved_at", models.DateTimeField(editable=False, null=True)),
                (
                    "from_user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "payee_wallet",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="wallet.wallet",
                    ),
                ),
                (
                    "payer_wallet",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="wallet.wallet",
                    ),
                ),
                (
                    "to_user",
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
                        related_name="hold",
                        to="transactions.transaction",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["from_user", "id"], name="transactions_hold_payer"),
                    models.Index(fields=["to_user", "id"], name="transactions_hold_payee"),
                    models.Index(
                        condition=models.Q(("status", "active")),
                        fields=["payer_wallet"],
                        include=("amount",),
                        name="transactions_hold_active",
                    ),
                    models.Index(
                        condition=models.Q(("status", "active")),
                        fields=["expires_at"],
                        name="transactions_hold_due",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0), ("amount__lt", Decimal("1E+13"))),
                        name="transactions_hold_amount_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status__in", ["active", "captured", "voided", "expired"])
                        ),
                        name="transactions_hold_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("captured_amount__gt", 0),
                                ("captured_amount__lte", models.F("amount")),
                                ("status", "captured"),
                                ("transaction__isnull", False),
                            ),
                            models.Q(
                                models.Q(("status", "captured"), _negated=True),
                                ("captured_amount", 0),
                                ("transaction__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="transactions_hold_captured_within_amount",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("resolved_at__isnull", True), ("status", "active")),
                            models.Q(
                                models.Q(("status", "active"), _negated=True),
                                ("resolved_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="transactions_hold_resolved_at_iff_resolved",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("from_user", models.F("to_user")), _negated=True),
                        name="transactions_hold_two_different_parties",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("expires_at__gt", models.F("created_at"))),
                        name="transactions_hold_expires_after_it_begins",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("currency__regex", "^[A-Z]{3}$")),
                        name="transactions_hold_currency_is_a_code",
                    ),
                ],
            },
        ),
    ]
