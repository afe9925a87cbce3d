"""What a payment gateway is to us: one module each, named in `settings.PAYMENT_GATEWAYS`.

An adapter translates and nothing more: it keeps no state, reads no table and decides nothing about
money. Amounts are `Decimal` in major units on our side; an adapter converts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, Protocol, Self
from uuid import UUID

# Bounds on what a gateway may send; PostgreSQL's columns are as wide.
EVENT_ID_MAX = 255
EVENT_TYPE_MAX = 100
REFERENCE_MAX = 255


class Subject(StrEnum):
    """What of ours a gateway speaks about."""

    INTENT = "payment_intent"
    PAYOUT = "payout"
    REFUND = "refund"


class Outcome(StrEnum):
    """What a gateway says became of a subject. Not every subject knows every outcome."""

    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    PAID = "paid"


@dataclass(frozen=True)
class NewIntent:
    """What a gateway is asked to collect. The same `idempotency_key` must get the same answer."""

    id: UUID
    amount: Decimal
    currency: str
    idempotency_key: str


@dataclass(frozen=True)
class CreatedIntent:
    """What the gateway answered."""

    gateway_reference: str
    client_secret: str
    checkout_url: str | None = None


@dataclass(frozen=True)
class NewPayout:
    """Money to be sent to a bank account. The same `idempotency_key` must get the same answer."""

    id: UUID
    amount: Decimal
    currency: str
    idempotency_key: str
    iban: str = field(repr=False)
    name: str = field(repr=False)


@dataclass(frozen=True)
class NewRefund:
    """Money of a paid intent to be sent back to where it came from, whole or in part."""

    id: UUID
    intent_reference: str
    amount: Decimal
    currency: str
    idempotency_key: str


@dataclass(frozen=True)
class ReportLine:
    """One order that a gateway settled: collected, paid out or sent back; `at` is in UTC."""

    subject: Subject
    gateway_reference: str
    amount: Decimal
    currency: str
    at: datetime


@dataclass(frozen=True)
class Statement:
    """What a gateway says of one of our orders, in an event or when it is asked.

    `amount` is in major units. `failure_code` is the gateway's word for why it failed.
    """

    subject: Subject
    outcome: Outcome
    gateway_reference: str
    amount: Decimal
    currency: str
    failure_code: str = ""


@dataclass(frozen=True)
class GatewayEvent:
    """One event, as its signed bytes tell it; no statement if its type means nothing to us."""

    event_id: str
    type: str
    statement: Statement | None = None

    @property
    def gateway_reference(self) -> str | None:
        return self.statement.gateway_reference if self.statement else None


class Gateway(Protocol):
    """The adapter of one gateway. What talks to the network is never called under a lock."""

    name: ClassVar[str]
    # In lower case: the headers that a signature needs, and the only ones that are stored.
    signature_headers: ClassVar[tuple[str, ...]]
    # For how many days after a day its report may still change.
    settles_within_days: ClassVar[int]

    @classmethod
    def from_settings(cls) -> Self | None:
        """The adapter as configured, or None where this gateway is switched off."""

    def create(self, intent: NewIntent) -> CreatedIntent:
        """Ask the gateway to collect money. Raises GatewayUnavailable and GatewayRefused."""

    def payout(self, payout: NewPayout) -> str:
        """Ask it to pay money out; its reference. Raises as `create` does."""

    def refund(self, refund: NewRefund) -> str:
        """Ask it to send money back; its reference. Raises as `create` does."""

    def fetch(self, subject: Subject, gateway_reference: str) -> Statement | None:
        """What became of an order; None: nothing yet. Raises GatewayUnavailable."""

    def report(self, day: date) -> Iterable[ReportLine]:
        """What it settled on a day (UTC), for reconciliation. Raises GatewayUnavailable."""

    def verify(self, *, headers: Mapping[str, str], body: bytes) -> None:
        """Raises InvalidSignature unless the gateway signed exactly these bytes just now."""

    def parse(self, *, headers: Mapping[str, str], body: bytes) -> GatewayEvent:
        """Read an event whose signature was verified. Raises MalformedEvent."""
