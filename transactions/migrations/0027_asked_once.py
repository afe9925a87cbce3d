"""What a trigger asks, no foreign key asks again, and no index is kept that no query reads.

That a transaction, a wallet or a batch is there is part of `transactions_ledger_entry_fits` and
`transactions_transferbatchleg_fits`; that the parties are people follows, for they own the wallets
that the entries move (`transactions_transaction_seal`). None of them is ever deleted, which
triggers see to. Effect keys are indexed where there is one, and the second index of text keys, for
beginnings of them, goes.
"""

from importlib import import_module

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

_TOLD = import_module("transactions.migrations.0012_what_it_says")

# A batch or a transaction that is not there is none of its own, either.
LEGS_THERE = _TOLD.LEGS_MADE_WITH_IT.replace(
    "      JOIN transactions_transferbatch batch", " LEFT JOIN transactions_transferbatch batch"
).replace(
    "     WHERE leg.index >= batch.count\n",
    "     WHERE batch.id IS NULL\n"
    "        OR leg.transaction_id IS NOT NULL AND made.id IS NULL\n"
    "        OR leg.index >= batch.count\n",
)


class Migration(migrations.Migration):
    dependencies = [
        ("transactions", "0026_checked_in_sets"),
        ("wallet", "0008_heard"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        # As a list: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([LEGS_THERE], [_TOLD.LEGS_MADE_WITH_IT]),
        migrations.AlterField(
            model_name="transaction",
            name="effect_key",
            field=models.CharField(max_length=100, null=True),
        ),
        migrations.AlterField(
            model_name="transaction",
            name="from_user",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="transaction",
            name="reference_id",
            field=models.CharField(editable=False, max_length=32),
        ),
        migrations.AlterField(
            model_name="transaction",
            name="to_user",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="transactionledger",
            name="transaction",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="entries",
                to="transactions.transaction",
            ),
        ),
        migrations.AlterField(
            model_name="transactionledger",
            name="wallet",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="entries",
                to="wallet.wallet",
            ),
        ),
        migrations.AlterField(
            model_name="transferbatchleg",
            name="batch",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="legs",
                to="transactions.transferbatch",
            ),
        ),
        migrations.AlterField(
            model_name="transferbatchleg",
            name="transaction",
            field=models.OneToOneField(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="batch_leg",
                to="transactions.transaction",
            ),
        ),
        migrations.AddConstraint(
            model_name="transaction",
            constraint=models.UniqueConstraint(
                fields=("reference_id",), name="transactions_transaction_one_reference"
            ),
        ),
        migrations.AddConstraint(
            model_name="transaction",
            constraint=models.UniqueConstraint(
                condition=models.Q(("effect_key__isnull", False)),
                fields=("effect_key",),
                name="transactions_transaction_one_effect_per_cause",
            ),
        ),
    ]
