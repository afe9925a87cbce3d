"""What an event is about is looked for among the events that are about one.

Three indexes of all events were each written to whenever one was stored, begun or settled, though
its row names nothing until it is settled, and then one of the three. They go in the next migration:
whoever makes an index and drops one in the same transaction waits for writers while it holds others
up, and they for it.
"""

from django.db import migrations, models
from django.db.models import Q


def _index(subject):
    return migrations.AddIndex(
        model_name="webhookevent",
        index=models.Index(
            name=f"payments_event_of_{subject}",
            fields=[subject],
            condition=Q((f"{subject}__isnull", False)),
        ),
    )


class Migration(migrations.Migration):
    dependencies = [("payments", "0013_reconciliation_texts")]

    operations = [_index(subject) for subject in ("intent", "payout", "refund")]
