"""What an order needs to be asked about when no event comes."""

from django.db import models


class Polled(models.Model):
    """An order that the gateway is asked about until it is settled; see `payments.polling`.

    `next_poll_at` is when the next question is due, and the lease of whoever asks; null: nothing
    more is asked. A question is counted, and committed, before it is put.
    """

    next_poll_at = models.DateTimeField(null=True, editable=False)
    polls = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    last_polled_at = models.DateTimeField(null=True, editable=False)
    # What became of the last question, in words for staff.
    last_answer = models.CharField(max_length=500, blank=True, db_default="", editable=False)
    needs_staff = models.BooleanField(default=False, db_default=False, editable=False)

    class Meta:
        abstract = True

    def stop_polling(self) -> list[str]:
        """It is settled. The names of what changed, for `update_fields`."""
        self.next_poll_at, self.needs_staff = None, False
        return ["next_poll_at", "needs_staff"]
