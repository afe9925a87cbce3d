"""When events never come: the gateway is asked about what stays open for too long.

A question is counted and committed before it is put: `next_poll_at` moves on, which is both the
lease that keeps other pollers away and the moment of the next question. Nothing is locked while the
gateway is asked. What it answers goes the way of an event, through `payments.effects`; twice is as
good as once. An order that never got its reference, because we died in between, is ordered again
with the same key.
"""

import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from fintech_core.database import retry_on_conflict
from fintech_core.exceptions import DomainError
from fintech_core.logs import scrub
from payments import effects, gateways, intents, payouts
from payments.effects import Disagreement
from payments.exceptions import GatewayRefused, GatewayUnavailable
from payments.gateways.base import Subject
from payments.models import PaymentIntent, Payout

logger = logging.getLogger(__name__)

Polled = PaymentIntent | Payout  # refunds are asked about by `refunds`, in step with their orders

POLL_FIRST = timedelta(minutes=10)
POLL_LONGEST = timedelta(days=1)
# How long after it ended without money an intent may still turn out to be paid.
LATE_WITHIN = timedelta(days=3)
PAYOUT_OVERDUE = timedelta(days=7)
ANSWER_LENGTH = 500
_ENDED = ("failed", "canceled", "expired")  # intents that only a late success would move
ASKING = "Asking; if this stays, whoever asked died."

_SUBJECTS: dict[type[PaymentIntent] | type[Payout], Subject] = {
    PaymentIntent: Subject.INTENT,
    Payout: Subject.PAYOUT,
}


class _Trouble(Exception):
    """Asking does not help: staff must look. The message says why."""


def poll_due(*, seconds_max: float) -> int:
    """Ask about what is due, the longest waiting first, until the time is used up; how many.

    Any number of pollers may run at once: each skips what another holds.
    """
    stop_at = time.monotonic() + seconds_max
    asked = 0
    waiting = list(_SUBJECTS)
    while waiting and time.monotonic() < stop_at:
        # In turn, so that many of one kind do not keep the other kind waiting.
        waiting = [model for model in waiting if _poll_next(model)]
        asked += len(waiting)
    return asked


def _poll_next(model: type[PaymentIntent] | type[Payout]) -> bool:
    order = _lease(model)
    if order is None:
        return False
    answer, is_trouble = _ask(order)
    _record(order, answer, needs_staff=is_trouble or _is_overdue(order))
    return True


@transaction.atomic
def _lease(model: type[PaymentIntent] | type[Payout]) -> Polled | None:
    due = model.objects.select_for_update(no_key=True, skip_locked=True)
    order: Polled | None = due.filter(next_poll_at__lte=Now()).order_by("next_poll_at").first()
    if order is None:
        return None
    order.polls += 1
    order.next_poll_at = Now() + _backoff(order.polls)
    order.last_polled_at = Now()
    order.last_answer = ASKING
    order.save(update_fields=["polls", "next_poll_at", "last_polled_at", "last_answer"])
    return order


def _backoff(polls: int) -> timedelta:
    """Twice as long after each question; jitter, so that what came together goes apart."""
    delay = min(POLL_FIRST * 2 ** min(polls, 10), POLL_LONGEST)
    return delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter


def _ask(order: Polled) -> tuple[str, bool]:
    """What came of the question, and whether staff must look."""
    try:
        if order.gateway_reference is not None:
            return _fetch(order), False
        again = _order_again if isinstance(order, Payout) else _create_again
        return again(order), False
    except GatewayUnavailable:
        return "The gateway did not answer.", False
    except (_Trouble, Disagreement, DomainError) as reason:
        return str(reason), True
    except Exception as exc:  # whatever it was, it is recorded, and asked again
        logger.exception("gateway not asked", extra={"order": str(order.pk)})
        return scrub(f"{type(exc).__name__}: {exc}"), True


def _fetch(order: Polled) -> str:
    subject = _SUBJECTS[type(order)]
    said = gateways.gateway_named(order.gateway).fetch(subject, str(order.gateway_reference))
    if said is None and isinstance(order, Payout) and order.named_by_staff:
        raise _Trouble("It says nothing yet of the reference that staff named.")
    if said is None:
        return "Nothing yet."
    if (said.subject, said.gateway_reference) != (subject, order.gateway_reference):
        raise _Trouble(f"Asked about one order, it spoke of another: {said.gateway_reference}.")
    _committed(partial(effects.apply, said, order.gateway))
    return f"It says: {said.outcome}."


def _create_again(order: Polled) -> str:
    """Nobody pays an intent that is closed and that the gateway does not know."""
    assert isinstance(order, PaymentIntent)  # noqa: S101 - see `_ask`
    if order.status != PaymentIntent.Status.REQUIRES_PAYMENT or order.expires_at <= timezone.now():
        return "It ended before the gateway knew it."
    try:
        created = intents.ask(order)
    except GatewayRefused as refusal:
        raise _Trouble(f"It will not collect the money: {refusal.failure_code}.") from refusal
    _committed(partial(intents.attach, order.pk, created))
    return "Ordered again, after a crash."


def _order_again(order: Polled) -> str:
    assert isinstance(order, Payout)  # noqa: S101 - see `_ask`
    if payouts.is_forgotten(order):
        raise _Trouble("It gave no reference in time. Find out there whether it was paid out.")
    try:
        return _order_anew(order)
    except payouts.Undecided as reason:
        raise _Trouble(reason.detail) from reason


def _order_anew(payout: Payout) -> str:
    try:
        reference = payouts.ask(payout)
    except GatewayRefused as refusal:
        _committed(partial(payouts.refused, payout.pk, refusal.failure_code))
        return f"It refuses: {refusal.failure_code}."
    _committed(partial(payouts.attach, payout.pk, reference))
    return "Ordered again, after a crash."


def _committed(work: Callable[[], object]) -> None:
    retry_on_conflict(transaction.atomic(work))


def _record(order: Polled, answer: str, *, needs_staff: bool) -> None:
    """What staff see. An order that is settled by now is asked about no more, and needs nobody."""
    rows = type(order).objects.filter(pk=order.pk)
    rows.update(last_answer=answer[:ANSWER_LENGTH])
    rows.filter(next_poll_at__isnull=False).update(needs_staff=needs_staff)
    if isinstance(order, PaymentIntent):
        hopeless = Q(expires_at__lt=Now() - LATE_WITHIN) | Q(gateway_reference__isnull=True)
        rows.filter(hopeless, status__in=_ENDED).update(next_poll_at=None)


def _is_overdue(order: Polled) -> bool:
    return isinstance(order, Payout) and timezone.now() - order.created_at > PAYOUT_OVERDUE
