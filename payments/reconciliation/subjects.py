"""What gateways' reports are compared with: one line for each kind of order that we keep.

A new kind of order is reconciled as soon as it is described here.
"""

from dataclasses import dataclass

from payments.gateways.base import Subject


@dataclass(frozen=True, kw_only=True)
class Described:
    """A table with the columns gateway, gateway_reference, amount, currency, status, transaction_id
    (all SQL below is ours, none of it a user's)."""

    subject: Subject
    table: str
    settled: str  # its status once the money has moved
    # When it was settled, in its own row; empty: when its transaction was posted.
    settled_at: str = ""
    # The side of its transaction that is the gateway's.
    account: str
    entry_type: str


DESCRIBED = (
    Described(
        subject=Subject.INTENT,
        table="payments_paymentintent",
        settled="succeeded",
        account="gateway_clearing",
        entry_type="debit",
    ),
    Described(
        subject=Subject.PAYOUT,
        table="payments_payout",
        settled="paid",
        settled_at="completed_at",
        account="payout_clearing",
        entry_type="credit",
    ),
    Described(
        subject=Subject.REFUND,
        table="payments_depositrefund",
        settled="succeeded",
        settled_at="completed_at",
        account="gateway_clearing",
        entry_type="credit",
    ),
)
