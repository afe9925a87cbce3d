"""What a gateway's statement does to our books, whether an event brought it or a question did.

One module for each subject, named in the tables below. Call `apply` inside a database transaction;
it locks what the gateway speaks of, then its wallet.
"""

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet

from payments.effects import intents, payouts, refunds
from payments.effects.disagreement import Disagreement
from payments.gateways.base import Statement, Subject
from payments.models import DepositRefund, PaymentIntent, Payout

__all__ = ["EVENT_FIELDS", "MODELS", "Disagreement", "Order", "apply", "named"]

Order = PaymentIntent | Payout | DepositRefund

_APPLY: dict[Subject, Callable[[Statement, str], Order | None]] = {
    Subject.INTENT: intents.apply,
    Subject.PAYOUT: payouts.apply,
    Subject.REFUND: refunds.apply,
}
_NAMED: dict[Subject, Callable[[Statement], QuerySet[Any]]] = {
    Subject.INTENT: intents.named,
    Subject.PAYOUT: payouts.named,
    Subject.REFUND: refunds.named,
}
# Where a stored event keeps what it is about.
EVENT_FIELDS = {Subject.INTENT: "intent", Subject.PAYOUT: "payout", Subject.REFUND: "refund"}
MODELS: tuple[type[Order], ...] = (PaymentIntent, Payout, DepositRefund)


def apply(said: Statement, gateway: str) -> Order | None:
    """Bring what the gateway speaks of to where it says that it is; None: it is nothing of ours.

    Raises Disagreement if the gateway and we do not mean the same, and DomainError if our books
    refuse.
    """
    effect = _APPLY.get(said.subject)
    order = effect(said, gateway) if effect else None
    if order is None:
        _require_unknown(said, gateway)
    return order


def _require_unknown(said: Statement, gateway: str) -> None:
    """Raises Disagreement if the reference is that of an order of another kind."""
    for subject, find in _NAMED.items():
        if subject != said.subject and find(said).filter(gateway=gateway).exists():
            raise Disagreement(
                f"It speaks of a {said.subject}, but the reference is a {subject}'s."
            )


def named(said: Statement, gateway: str) -> Order | None:
    """What the gateway speaks of, without a lock, for staff to see."""
    find = _NAMED.get(said.subject)
    return find(said).filter(gateway=gateway).first() if find else None
