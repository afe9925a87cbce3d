"""The sandbox: a gateway of our own that collects no money, for development and tests.

It mints money, so it exists only where `PAYMENTS_SANDBOX` is true. It speaks Standard Webhooks
(https://www.standardwebhooks.com) with the secrets in `SANDBOX_WEBHOOK_SECRET`.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from math import floor
from typing import Any, ClassVar, Self
from uuid import uuid4

from django.conf import settings
from django.utils.crypto import salted_hmac
from standardwebhooks.webhooks import Webhook, WebhookVerificationError, hmac_data

from fintech_core.money import AmountInvalid, format_amount, parse_amount
from fintech_core.parsers import MalformedJSON, load_json
from payments.exceptions import InvalidSignature, MalformedEvent
from payments.gateways.base import (
    EVENT_ID_MAX,
    EVENT_TYPE_MAX,
    REFERENCE_MAX,
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
from payments.models import SandboxOrder
from payments.sandbox import orders

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"

_MEANINGS = {
    f"{subject}.{outcome}": (subject, outcome)
    for subject, outcomes in {
        Subject.INTENT: (Outcome.PROCESSING, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELED),
        Subject.PAYOUT: (Outcome.PAID, Outcome.FAILED),
        Subject.REFUND: (Outcome.SUCCEEDED, Outcome.FAILED),
    }.items()
    for outcome in outcomes
}

FAILURE_CODE_MAX = 100
_OUTCOMES = {
    SandboxOrder.Status.SUCCEEDED: Outcome.SUCCEEDED,
    SandboxOrder.Status.PAID: Outcome.PAID,
    SandboxOrder.Status.FAILED: Outcome.FAILED,
    SandboxOrder.Status.CANCELED: Outcome.CANCELED,
}

_EPOCH_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class SandboxGateway:
    """Speaks our own dialect. What it is asked for it keeps in books of its own, as any other
    company would: in a transaction of its own, never in ours."""

    name: ClassVar[str] = "sandbox"
    signature_headers: ClassVar[tuple[str, ...]] = (ID, TIMESTAMP, SIGNATURE)
    settles_within_days: ClassVar[int] = 0

    def __init__(self, secrets: list[str]) -> None:
        """The first secret signs; each of them verifies, so that secrets can be rotated."""
        self._keys = [_Key(secret) for secret in secrets]

    @classmethod
    def from_settings(cls) -> Self | None:
        if not (settings.PAYMENTS_SANDBOX and settings.SANDBOX_WEBHOOK_SECRETS):
            return None
        return cls(settings.SANDBOX_WEBHOOK_SECRETS)

    def create(self, intent: NewIntent) -> CreatedIntent:
        """Derived from the idempotency key, so that the same question has the same answer."""
        reference = f"sbx_{_derived('reference', intent.idempotency_key)[:24]}"
        secret = _derived("client_secret", intent.idempotency_key)[:32]
        orders.place(
            subject=Subject.INTENT,
            reference=reference,
            amount=intent.amount,
            currency=intent.currency,
        )
        return CreatedIntent(
            gateway_reference=reference,
            client_secret=f"{reference}_secret_{secret}",
            checkout_url=orders.page_url(Subject.INTENT, reference),
        )

    def payout(self, payout: NewPayout) -> str:
        """It pays nobody, so it keeps neither the name nor the account number."""
        reference = f"sbx_po_{_derived('payout', payout.idempotency_key)[:24]}"
        orders.place(
            subject=Subject.PAYOUT,
            reference=reference,
            amount=payout.amount,
            currency=payout.currency,
        )
        return reference

    def refund(self, refund: NewRefund) -> str:
        reference = f"sbx_re_{_derived('refund', refund.idempotency_key)[:24]}"
        orders.place(
            subject=Subject.REFUND,
            reference=reference,
            amount=refund.amount,
            currency=refund.currency,
            intent_reference=refund.intent_reference,
        )
        return reference

    def fetch(self, subject: Subject, gateway_reference: str) -> Statement | None:
        order = orders.find(subject, gateway_reference)
        outcome = _OUTCOMES.get(SandboxOrder.Status(order.status)) if order else None
        if order is None or outcome is None:
            return None
        return Statement(
            subject=subject,
            outcome=outcome,
            gateway_reference=order.reference,
            amount=order.settled_amount or order.amount,
            currency=order.currency,
            failure_code="sandbox_failed" if outcome == Outcome.FAILED else "",
        )

    def report(self, day: date) -> Iterator[ReportLine]:
        for order in orders.settled_on(day):
            if order.settled_at and order.settled_amount:
                yield ReportLine(
                    subject=Subject(order.subject),
                    gateway_reference=order.reference,
                    amount=order.settled_amount,
                    currency=order.currency,
                    at=order.settled_at,
                )

    def verify(self, *, headers: Mapping[str, str], body: bytes) -> None:
        # The library reads more spellings of a number than one, "nan" among them.
        if not _EPOCH_SECONDS.fullmatch(headers.get(TIMESTAMP, "")):
            raise InvalidSignature
        if not any(key.signed(body, headers) for key in self._keys):
            raise InvalidSignature

    def parse(self, *, headers: Mapping[str, str], body: bytes) -> GatewayEvent:
        event_id = _event_id(headers.get(ID))
        members = _members(body)
        kind = _text(members.get("type"), EVENT_TYPE_MAX, "type")
        if kind not in _MEANINGS:
            return GatewayEvent(event_id=event_id, type=kind)
        facts = members.get("data")
        if not isinstance(facts, dict):
            raise MalformedEvent("`data` must be an object.")
        subject, outcome = _MEANINGS[kind]
        said = Statement(
            subject=subject,
            outcome=outcome,
            gateway_reference=_text(
                facts.get("gateway_reference"), REFERENCE_MAX, "data.gateway_reference"
            ),
            amount=_amount(facts.get("amount")),
            currency=_currency(facts.get("currency")),
            failure_code=_failure_code(facts.get("failure_code")),
        )
        return GatewayEvent(event_id=event_id, type=kind, statement=said)

    def simulate(
        self, *, outcome: Outcome, gateway_reference: str, amount: Decimal, currency: str
    ) -> tuple[dict[str, str], bytes]:
        """Let an intent end so; headers and body of the event that tells it."""
        orders.settle(gateway_reference, outcome, amount)
        return self.signed_event(
            outcome=outcome,
            gateway_reference=gateway_reference,
            amount=amount,
            currency=currency,
        )

    def signed_event(
        self, *, outcome: Outcome, gateway_reference: str, amount: Decimal, currency: str
    ) -> tuple[dict[str, str], bytes]:
        """Headers and body of a new event of an intent, as the sandbox would deliver it."""
        body = event_body(
            subject=Subject.INTENT,
            outcome=outcome,
            gateway_reference=gateway_reference,
            amount=amount,
            currency=currency,
        )
        now = datetime.now(tz=UTC)
        return self.sign(event_id=f"evt_{uuid4().hex}", at=now, body=body), body

    def sign(self, *, event_id: str, at: datetime, body: bytes) -> dict[str, str]:
        """The headers under which exactly these bytes are accepted."""
        signature = self._keys[0].sign(event_id, at, _as_text(body))
        return {ID: event_id, TIMESTAMP: str(floor(at.timestamp())), SIGNATURE: signature}


def event_body(
    *, subject: str, outcome: str, gateway_reference: str, amount: Decimal, currency: str
) -> bytes:
    """An event in the sandbox's own form; a failure has a reason."""
    about = {
        "gateway_reference": gateway_reference,
        "amount": format_amount(amount),
        "currency": currency,
    }
    if outcome == Outcome.FAILED:
        about["failure_code"] = "sandbox_failed"
    moment = datetime.now(tz=UTC).isoformat().replace("+00:00", "Z")
    event = {"type": f"{subject}.{outcome}", "timestamp": moment, "data": about}
    return json.dumps(event).encode()


class _Key(Webhook):
    """The library's Webhook, over any bytes.

    Its own takes only UTF-8, and so cannot tell a wrong signature from a right one over garbage.
    """

    def signed(self, body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            self.verify(_as_text(body), dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError, TypeError, OverflowError, OSError):
            # Everything but the first is what hostile headers make the library stumble over.
            return False
        return True

    def sign(self, msg_id: str, timestamp: datetime, data: str) -> str:
        seconds = floor(timestamp.replace(tzinfo=UTC).timestamp())
        content = f"{msg_id}.{seconds}.{data}".encode("utf-8", "surrogateescape")
        return "v1," + base64.b64encode(hmac_data(self._whsecret, content)).decode()


def _as_text(body: bytes) -> str:
    """The bytes as text that `_Key.sign` turns back into exactly these bytes."""
    return body.decode("utf-8", "surrogateescape")


def _derived(purpose: str, key: str) -> str:
    return salted_hmac(f"payments.sandbox.{purpose}", key, algorithm="sha256").hexdigest()


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = load_json(body)
    except MalformedJSON as refusal:
        raise MalformedEvent(str(refusal)) from refusal
    if not isinstance(members, dict):
        raise MalformedEvent("An event is a JSON object.")
    return members


def _event_id(value: object) -> str:
    event_id = _text(value, EVENT_ID_MAX, ID)
    # Dots separate what is signed: with one inside, two ids could share a signature.
    if "." in event_id:
        raise MalformedEvent(f"`{ID}` may not have a dot.")
    return event_id


def _failure_code(value: object) -> str:
    return "" if value is None else _text(value, FAILURE_CODE_MAX, "data.failure_code")


def _text(value: object, length_max: int, name: str) -> str:
    if not isinstance(value, str) or len(value) > length_max or not _PRINTABLE.fullmatch(value):
        raise MalformedEvent(
            f"`{name}` must be text of at most {length_max} printable ASCII characters."
        )
    return value


def _amount(value: object) -> Decimal:
    if not isinstance(value, str):
        raise MalformedEvent("`data.amount` must be a decimal string.")
    try:
        return parse_amount(value)
    except AmountInvalid as refusal:
        raise MalformedEvent(f"`data.amount`: {refusal}") from refusal


def _currency(value: object) -> str:
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise MalformedEvent("`data.currency` must be an ISO 4217 code.")
    return value
