"""What staff decide about a wallet, and what left it of late. Rules: `0005_record_rules.py`."""

from decimal import Decimal

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import fintech_core.money


class Migration(migrations.Migration):
    dependencies = [
        ("wallet", "0003_admin_index"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="wallet",
            options={
                "permissions": [
                    ("change_status", "Can freeze, unfreeze and close wallets"),
                    ("change_limits", "Can change the limits of single wallets"),
                ]
            },
        ),
        migrations.CreateModel(
            name="LimitOverride",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reason", models.CharField(max_length=500)),
                (
                    "transfer_max",
                    fintech_core.money.AmountColumn(
                        blank=True, decimal_places=2, max_digits=15, null=True
                    ),
                ),
                (
                    "daily_total",
                    fintech_core.money.AmountColumn(
                        blank=True, decimal_places=2, max_digits=15, null=True
                    ),
                ),
                ("daily_count", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "monthly_total",
                    fintech_core.money.AmountColumn(
                        blank=True, decimal_places=2, max_digits=15, null=True
                    ),
                ),
                ("monthly_count", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "balance_max",
                    fintech_core.money.AmountColumn(
                        blank=True, decimal_places=2, max_digits=15, null=True
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "actor",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "wallet",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="limit_overrides",
                        to="wallet.wallet",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="wallet",
            name="limit_override",
            field=models.ForeignKey(
                db_index=False,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="wallet.limitoverride",
            ),
        ),
        migrations.CreateModel(
            name="WalletStep",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "from_status",
                    models.CharField(
                        choices=[("active", "Active"), ("frozen", "Frozen"), ("closed", "Closed")],
                        max_length=6,
                    ),
                ),
                (
                    "to_status",
                    models.CharField(
                        choices=[("active", "Active"), ("frozen", "Frozen"), ("closed", "Closed")],
                        max_length=6,
                    ),
                ),
                ("reason", models.CharField(max_length=500)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "actor",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "wallet",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="steps",
                        to="wallet.wallet",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DebitBucket",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "wallet",
                        "hour",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("hour", models.DateTimeField()),
                ("total", fintech_core.money.AmountColumn(decimal_places=2, max_digits=15)),
                ("count", models.IntegerField()),
                (
                    "wallet",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="wallet.wallet",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["hour"], name="wallet_debitbucket_by_hour")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("count__gt", 0), ("total__gt", 0), ("total__lt", Decimal("1E+13"))
                        ),
                        name="wallet_debitbucket_in_range",
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="limitoverride",
            index=models.Index(fields=["wallet", "-id"], name="wallet_limitoverride_by_wallet"),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("transfer_max__gte", 0), ("transfer_max__lt", Decimal("1E+13"))
                ),
                name="wallet_limitoverride_transfer_max_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(("daily_total__gte", 0), ("daily_total__lt", Decimal("1E+13"))),
                name="wallet_limitoverride_daily_total_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("monthly_total__gte", 0), ("monthly_total__lt", Decimal("1E+13"))
                ),
                name="wallet_limitoverride_monthly_total_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(("balance_max__gte", 0), ("balance_max__lt", Decimal("1E+13"))),
                name="wallet_limitoverride_balance_max_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason__regex", "\\S")), name="wallet_limitoverride_says_why"
            ),
        ),
        migrations.AddIndex(
            model_name="walletstep",
            index=models.Index(fields=["wallet", "-id"], name="wallet_walletstep_by_wallet"),
        ),
        migrations.AddConstraint(
            model_name="walletstep",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("from_status", "active"), ("to_status", "frozen")),
                    models.Q(("from_status", "frozen"), ("to_status", "active")),
                    models.Q(("from_status__in", ["active", "frozen"]), ("to_status", "closed")),
                    _connector="OR",
                ),
                name="wallet_walletstep_is_a_known_step",
            ),
        ),
        migrations.AddConstraint(
            model_name="walletstep",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason__regex", "\\S")), name="wallet_walletstep_says_why"
            ),
        ),
    ]
