"""Refunds that staff made. `migrations/0013_by_whom.py` enforces what is said here."""

from django.conf import settings
from django.db import models

from transactions.models.ledger import Transaction


class StaffRefund(models.Model):
    """Who gave a payment back in the place of its recipient.

    Invariants
    * It names a refund, was written together with it, and `staff` is neither of its parties.
    * Never changed, never deleted.
    """

    transaction = models.OneToOneField(
        Transaction, on_delete=models.PROTECT, primary_key=True, related_name="staff_refund"
    )
    staff = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )

    def __str__(self) -> str:
        return f"refund by {self.staff}"
