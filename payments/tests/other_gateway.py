"""A second gateway, made up: other headers, other words, minor units. It shows that one module and
one line in `settings.PAYMENT_GATEWAYS` are all that a gateway needs."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import ClassVar, Self

from payments.exceptions import InvalidSignature
from payments.gateways.base import (
    CreatedIntent,
    GatewayEvent,
    NewIntent,
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
    "refund.ok": (Subject.REFUND, Outcome.SUCCEEDED),
    "refund.failed": (Subject.REFUND, Outcome.FAILED),
}


def signature(body: bytes) -> str:
    return hmac.new(KEY, body, hashlib.sha256).hexdigest()


class OtherGateway:
    name: ClassVar[str] = "other"
    signature_headers: ClassVar[tuple[str, ...]] = ("other-signature",)

    @classmethod
    def from_settings(cls) -> Self | None:
        return cls()

    def create(self, intent: NewIntent) -> CreatedIntent:
        return CreatedIntent(f"ch_{intent.id.hex}", "secret", "https://pay.example.com/ch")

    def refund(self, refund: NewRefund) -> str:
        return f"re_{refund.id.hex}"

    def fetch(self, subject: Subject, gateway_reference: str) -> Statement | None:
        return None

    def report(self, day: date) -> Iterable[ReportLine]:
        return []

    def verify(self, *, headers: Mapping[str, str], body: bytes) -> None:
        if not hmac.compare_digest(headers.get("other-signature", ""), signature(body)):
            raise InvalidSignature

    def parse(self, *, headers: Mapping[str, str], body: bytes) -> GatewayEvent:
        told = json.loads(body)
        meaning = WORDS.get(told["kind"])
        said = meaning and Statement(
            subject=meaning[0],
            outcome=meaning[1],
            gateway_reference=told["charge"],
            amount=Decimal(told["cents"]) / 100,
            currency=told["currency"].upper(),
        )
        return GatewayEvent(event_id=told["id"], type=told["kind"], statement=said)
