"""When a gateway and we do not mean the same."""

from datetime import timedelta
from typing import TypeVar

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from payments.gateways.base import Statement
from payments.models import DepositRefund, PaymentIntent, Payout

NEVER_SENT = "never_sent"  # staff gave it up: the gateway, they found, never had it
DOUBTED_FOR = timedelta(days=30)
_Out = TypeVar("_Out", Payout, DepositRefund)
_Order = TypeVar("_Order", PaymentIntent, Payout)


class Disagreement(Exception):
    """The statement must not have its effect; the message tells staff why."""


def lock_same(same_reference: QuerySet[_Order], gateway: str, word: str) -> _Order | None:
    """The gateway's own order, locked; None: nobody's. Raises Disagreement if another gateway has
    it. `word` is what staff call it."""
    order = same_reference.select_for_update(no_key=True).filter(gateway=gateway).first()
    if order is None and (other := same_reference.first()):
        raise Disagreement(
            f"The reference is that of an order ({word}) of the {other.gateway} gateway."
        )
    return order


def require_same_money(order: PaymentIntent | Payout, said: Statement, word: str) -> None:
    """Raises Disagreement about the amount or the currency."""
    if (said.amount, said.currency) != (order.amount, order.currency):
        raise Disagreement(
            f"The event says {said.amount} {said.currency}, the {word} {order.amount}"
            f" {order.currency}."
        )


def given_back(orders: QuerySet[_Out], said: Statement, gateway: str) -> QuerySet[_Out]:
    """Those whose money came back, and of which the statement may be all the same: it says that
    money of that amount went out, by a reference that nobody has.

    Refusals are doubted for a month, for others may pay by the same account, and the gateway hardly
    took what it refused; what staff gave up is doubted for ever.
    """
    return orders.filter(
        Q(failure_code=NEVER_SENT) | Q(completed_at__gt=Now() - DOUBTED_FOR),
        gateway=gateway,
        gateway_reference=None,
        status="failed",
        amount=said.amount,
        currency=said.currency,
    )
