"""What a developer can have the sandbox do with an order: how it ends, and which events tell it.

Gateways deliver late, twice, out of order, never, or with other amounts. So does this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from django.conf import settings
from django.db import transaction

from fintech_core.exceptions import InvalidState
from fintech_core.money import CENT
from payments.gateways.base import Outcome, Subject
from payments.gateways.sandbox import event_body
from payments.models import SandboxDelivery, SandboxOrder
from payments.sandbox import delivery, orders

LATE_SECONDS = 20
AFTERWARDS_SECONDS = 3  # long enough for the first to be handled before the second comes
DELIVERIES_MAX = 60  # of one order: it is to be played with, not to flood anybody


@dataclass(frozen=True)
class Scenario:
    """`events`: outcomes to tell, each so many seconds after it was picked."""

    title: str
    explanation: str
    outcome: Outcome
    events: tuple[tuple[Outcome, int], ...]
    is_same_event: bool = False
    is_wrong_amount: bool = False
    after_expiry: bool = False


def _family(noun: str, good: Outcome) -> dict[str, Scenario]:
    """What every subject can go through. `good`: how its success is called."""
    return {
        good.value: Scenario(good.value.capitalize(), "One event, at once.", good, ((good, 0),)),
        "failed": Scenario("Failed", "One event, at once.", Outcome.FAILED, ((Outcome.FAILED, 0),)),
        "late": Scenario(
            "Late",
            f"The {noun} {good.value}; its event comes after {LATE_SECONDS} seconds.",
            good,
            ((good, LATE_SECONDS),),
        ),
        "twice": Scenario(
            "Twice",
            "The same event is delivered twice.",
            good,
            ((good, 0), (good, AFTERWARDS_SECONDS)),
            is_same_event=True,
        ),
        "silent": Scenario(
            "No event", f"The {noun} {good.value}, and no event ever tells it.", good, ()
        ),
        "wrong_amount": Scenario(
            "Wrong amount",
            "The event names another amount than the one ordered.",
            good,
            ((good, 0),),
            is_wrong_amount=True,
        ),
    }


_SECOND = AFTERWARDS_SECONDS
SCENARIOS: Mapping[str, Mapping[str, Scenario]] = {
    Subject.INTENT: _family("payment", Outcome.SUCCEEDED)
    | {
        "expired": Scenario(
            "After it expired",
            "The payment succeeded; its event comes when the intent has expired.",
            Outcome.SUCCEEDED,
            ((Outcome.SUCCEEDED, 120),),
            after_expiry=True,
        ),
        "out_of_order": Scenario(
            "Out of order",
            "“Succeeded” comes first, “processing” after it.",
            Outcome.SUCCEEDED,
            ((Outcome.SUCCEEDED, 0), (Outcome.PROCESSING, _SECOND)),
        ),
        "processing": Scenario(
            "Processing",
            "One event; the payment stays open.",
            Outcome.PROCESSING,
            ((Outcome.PROCESSING, 0),),
        ),
    },
    Subject.PAYOUT: _family("payout", Outcome.PAID)
    | {
        "out_of_order": Scenario(
            "Out of order",
            "“Paid” comes first, “failed” after it.",
            Outcome.PAID,
            ((Outcome.PAID, 0), (Outcome.FAILED, _SECOND)),
        ),
    },
    Subject.REFUND: _family("refund", Outcome.SUCCEEDED),
}


def of(order: SandboxOrder) -> Mapping[str, Scenario]:
    return SCENARIOS[order.subject]


@transaction.atomic
def play(order: SandboxOrder, name: str) -> None:
    """Let the order end so, and its events be sent. Raises InvalidState once there were many.

    KeyError: there is no such scenario for it.
    """
    scenario = of(order)[name]
    amount = _amount(order, scenario)
    # Settling locks the order, so that the count below holds.
    orders.settle(order.reference, scenario.outcome, amount)
    if order.deliveries.count() + len(scenario.events) > DELIVERIES_MAX:
        raise InvalidState("This order has had its share of events: make a new one.")
    begin = _begin(order, scenario)
    same_id = _event_id()
    for outcome, seconds in scenario.events:
        made = SandboxDelivery.objects.create(
            order=order,
            event_id=same_id if scenario.is_same_event else _event_id(),
            event_type=f"{order.subject}.{outcome}",
            body=event_body(
                subject=order.subject,
                outcome=outcome,
                gateway_reference=order.reference,
                amount=amount,
                currency=order.currency,
            ).decode(),
            next_attempt_at=begin + timedelta(seconds=seconds),
        )
        delivery.enqueue_on_commit(made)


def _amount(order: SandboxOrder, scenario: Scenario) -> Decimal:
    """Another amount is a cent less; of a cent, there is only more."""
    if not scenario.is_wrong_amount:
        return order.amount
    return order.amount - CENT or order.amount + CENT


def _begin(order: SandboxOrder, scenario: Scenario) -> datetime:
    if scenario.after_expiry:
        return order.created_at + settings.PAYMENT_INTENT_LIFETIME
    return datetime.now(tz=UTC)


def _event_id() -> str:
    return f"evt_{uuid4().hex}"
