"""What an event is about is looked for among the events that are about one.

Three indexes of all events were each written to whenever one was stored, begun or settled, though
its row names nothing until it is settled, and then one of the three.
"""

from django.db import migrations, models
from django.db.models import PROTECT, Q

# The model that an event may be about, and Django's name of the index of all events.
_SUBJECTS = {
    "intent": ("payments.paymentintent", "payments_webhookevent_intent_id_bc241b71"),
    "payout": ("payments.payout", "payments_webhookevent_payout_id_7ad8720d"),
    "refund": ("payments.depositrefund", "payments_webhookevent_refund_id_9308420e"),
}


def _index(subject):
    return migrations.AddIndex(
        model_name="webhookevent",
        index=models.Index(
            name=f"payments_event_of_{subject}",
            fields=[subject],
            condition=Q((f"{subject}__isnull", False)),
        ),
    )


def _no_index_of_all(subject, model, index):
    """By hand: Django would make the foreign key anew, and read every event for it."""
    return migrations.SeparateDatabaseAndState(
        state_operations=[
            migrations.AlterField(
                model_name="webhookevent",
                name=subject,
                field=models.ForeignKey(
                    db_index=False,
                    null=True,
                    on_delete=PROTECT,
                    related_name="webhook_events",
                    to=model,
                ),
            )
        ],
        database_operations=[
            migrations.RunSQL(
                [f"DROP INDEX {index}"],
                [f"CREATE INDEX {index} ON payments_webhookevent ({subject}_id)"],
            )
        ],
    )


class Migration(migrations.Migration):
    dependencies = [("payments", "0013_reconciliation_texts")]

    operations = [
        *[_index(subject) for subject in _SUBJECTS],
        *[_no_index_of_all(subject, *rest) for subject, rest in _SUBJECTS.items()],
    ]
