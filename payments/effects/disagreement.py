"""When a gateway and we do not mean the same."""

from typing import TypeVar

from django.db.models import QuerySet

from payments.gateways.base import Statement
from payments.models import PaymentIntent, Payout

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
