"""A third gateway, made up: other headers, other words, minor units. One line in
`settings.PAYMENT_GATEWAYS` names it, and intents, payouts, refunds, events, polling and
reconciliation work with it."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import ClassVar, Self

from fintech_core.parsers import MalformedJSON, load_json
from payments.exceptions import GatewayRefused, InvalidSignature, MalformedEvent
from payments.gateways.base import (
    CreatedIntent,
    GatewayEvent,
    NewIntent,
    NewPayout,
    NewRefund,
    Outcome,
    ReportLine,
    Statement,
    Subject,
)

KEY = b"a key for tests only"
WORDS = {
    "charge.ok": (Subject.INTENT, Outcome.SUCCEEDED),
    "charge.declined": (Subject.INTENT, Outcome.FAILED),
    "transfer.ok": (Subject.PAYOUT, Outcome.PAID),
    "transfer.bounced": (Subject.PAYOUT, Outcome.FAILED),
    "return.ok": (Subject.REFUND, Outcome.SUCCEEDED),
    "return.failed": (Subject.REFUND, Outcome.FAILED),
}


@dataclass
class Order:
    cents: int
    currency: str
    word: str = ""  # what became of it, once something has
    at: datetime | None = None


# Stands for the other company. A real adapter asks over the network, with time limits, raises
# GatewayUnavailable when nobody answers, and keeps nothing itself.
REMOTE: dict[str, Order] = {}


def signature(body: bytes) -> str:
    return hmac.new(KEY, body, hashlib.sha256).hexdigest()


class OtherGateway:
    name: ClassVar[str] = "other"
    signature_headers: ClassVar[tuple[str, ...]] = ("other-signature",)
    settles_within_days: ClassVar[int] = 0

    @classmethod
    def from_settings(cls) -> Self | None:
        return cls()  # None where its own settings are missing

    def create(self, intent: NewIntent) -> CreatedIntent:
        reference = _order(f"ch_{intent.id.hex}", intent)
        return CreatedIntent(reference, "secret", "https://pay.example.com/ch")

    def payout(self, payout: NewPayout) -> str:
        if payout.iban.startswith("XX"):
            raise GatewayRefused("no_such_country")
        return _order(f"tr_{payout.id.hex}", payout)

    def refund(self, refund: NewRefund) -> str:
        return _order(f"rt_{refund.id.hex}", refund)

    def fetch(self, subject: Subject, gateway_reference: str) -> Statement | None:
        order = REMOTE.get(gateway_reference)
        return _said(gateway_reference, order) if order else None

    def report(self, day: date) -> Iterable[ReportLine]:
        for reference, order in REMOTE.items():
            said = _said(reference, order)
            if said is None or order.at is None or order.at.astimezone(UTC).date() != day:
                continue
            if said.outcome in (Outcome.SUCCEEDED, Outcome.PAID):
                yield ReportLine(said.subject, reference, said.amount, said.currency, order.at)

    def verify(self, *, headers: Mapping[str, str], body: bytes) -> None:
        given = headers.get("other-signature", "").encode()
        if not hmac.compare_digest(given, signature(body).encode()):
            raise InvalidSignature

    def parse(self, *, headers: Mapping[str, str], body: bytes) -> GatewayEvent:
        try:
            told = load_json(body)
            order = Order(int(told.get("cents", 0)), told.get("currency", ""), told["kind"])
            said = _said(told.get("order", ""), order)
            return GatewayEvent(event_id=told["id"], type=told["kind"], statement=said)
        except (MalformedJSON, KeyError, TypeError, ValueError, AttributeError) as fault:
            raise MalformedEvent("Not an event of this gateway.") from fault


def _order(reference: str, asked: NewIntent | NewPayout | NewRefund) -> str:
    """Once, however often it is asked."""
    REMOTE.setdefault(reference, Order(int(asked.amount * 100), asked.currency.lower()))
    return reference


def _said(reference: str, order: Order) -> Statement | None:
    if order.word not in WORDS:
        return None
    subject, outcome = WORDS[order.word]
    amount = Decimal(order.cents) / 100
    return Statement(subject, outcome, reference, amount, order.currency.upper())
