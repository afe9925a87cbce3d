"""The indexes of all events, instead of which there are now those of `0014_events_by_subject`."""

from django.db import migrations, models
from django.db.models import PROTECT

# The model that an event may be about, and Django's name of the index of all events.
_SUBJECTS = {
    "intent": ("payments.paymentintent", "payments_webhookevent_intent_id_bc241b71"),
    "payout": ("payments.payout", "payments_webhookevent_payout_id_7ad8720d"),
    "refund": ("payments.depositrefund", "payments_webhookevent_refund_id_9308420e"),
}


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
    dependencies = [("payments", "0014_events_by_subject")]

    operations = [_no_index_of_all(subject, *rest) for subject, rest in _SUBJECTS.items()]
