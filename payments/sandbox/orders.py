"""The sandbox's books: what it was asked for, and what it says became of that."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare, salted_hmac

from payments.exceptions import GatewayRefused
from payments.models import SandboxOrder

_MOVED = (SandboxOrder.Status.SUCCEEDED, SandboxOrder.Status.PAID)
_PAGES = {
    SandboxOrder.Subject.INTENT: "checkout",
    SandboxOrder.Subject.PAYOUT: "payouts",
    SandboxOrder.Subject.REFUND: "refunds",
}


def place(
    *,
    subject: str,
    reference: str,
    amount: Decimal,
    currency: str,
    intent_reference: str = "",
) -> SandboxOrder:
    """Take an order, once per reference. Raises GatewayRefused if it was another before.

    In a transaction of its own, and never in one of the caller's: another company's books are not
    undone together with ours.
    """
    asked = {
        "subject": subject,
        "amount": amount,
        "currency": currency,
        "intent_reference": intent_reference,
    }
    with transaction.atomic(durable=True):
        SandboxOrder.objects.bulk_create(
            [SandboxOrder(reference=reference, **asked)], ignore_conflicts=True
        )
        order = SandboxOrder.objects.get(reference=reference)
    if any(getattr(order, name) != value for name, value in asked.items()):
        raise GatewayRefused("idempotency_key_reused")
    return order


@transaction.atomic
def settle(reference: str, outcome: str, amount: Decimal) -> SandboxOrder | None:
    """Decide what became of an order; money that moved stays moved. None: it knows no such order.

    `amount`: what moved, if it did.
    """
    order = SandboxOrder.objects.select_for_update(no_key=True).filter(reference=reference).first()
    if order is None or order.status in _MOVED:
        return order
    order.status = SandboxOrder.Status(outcome)
    if order.status in _MOVED:
        order.settled_amount = amount
        order.settled_at = Now()
    order.save(update_fields=["status", "settled_amount", "settled_at"])
    return order


def find(subject: str, reference: str) -> SandboxOrder | None:
    return SandboxOrder.objects.filter(subject=subject, reference=reference).first()


def settled_on(day: date) -> Iterator[SandboxOrder]:
    """What moved on a day (UTC)."""
    begin = datetime.combine(day, time.min, tzinfo=UTC)
    return (
        SandboxOrder.objects.filter(settled_at__gte=begin, settled_at__lt=begin + timedelta(days=1))
        .order_by("settled_at")
        .iterator()
    )


def page_url(subject: str, reference: str) -> str:
    """Where whoever has this address decides what becomes of the order."""
    page = _PAGES[SandboxOrder.Subject(subject)]
    return f"{settings.PUBLIC_BASE_URL}/sandbox/{page}/{reference}/{_token(subject, reference)}/"


def find_by_page(page: str, reference: str, token: str) -> SandboxOrder | None:
    """The order of a page's address; None also if the address was guessed."""
    subject = next((subject for subject, name in _PAGES.items() if name == page), None)
    if subject is None or not constant_time_compare(token, _token(subject, reference)):
        return None
    return find(subject, reference)


def _token(subject: str, reference: str) -> str:
    key = f"{subject}:{reference}"
    return salted_hmac("payments.sandbox.page", key, algorithm="sha256").hexdigest()[:32]
