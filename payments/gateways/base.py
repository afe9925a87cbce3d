"""What a payment gateway is to us: one module each, named in `settings.PAYMENT_GATEWAYS`.

An adapter translates and nothing more: it keeps no state, reads no table and decides nothing about
money. Amounts are `Decimal` in major units on our side; an adapter converts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, Protocol, Self
from uuid import UUID

# Bounds on what a gateway may send; PostgreSQL's columns are as wide.
EVENT_ID_MAX = 255
EVENT_TYPE_MAX = 100
REFERENCE_MAX = 255


class Outcome(StrEnum):
    """What an event says of an intent. The values are statuses of `PaymentIntent`."""

    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


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
class GatewayEvent:
    """One event, as its signed bytes tell it.

    `outcome` is None for an event that is not about an intent, or of a type unknown to us; then
    the other facts may be missing. With an outcome, reference, amount and currency are all there.
    """

    event_id: str
    type: str
    outcome: Outcome | None = None
    gateway_reference: str | None = None
    amount: Decimal | None = None
    currency: str | None = None


class Gateway(Protocol):
    """The adapter of one gateway. Only `create` talks to the network, never under a lock."""

    name: ClassVar[str]
    # In lower case: the headers that a signature needs, and the only ones that are stored.
    signature_headers: ClassVar[tuple[str, ...]]

    @classmethod
    def from_settings(cls) -> Self | None:
        """The adapter as configured, or None where this gateway is switched off."""

    def create(self, intent: NewIntent) -> CreatedIntent:
        """Ask the gateway to collect money. Raises GatewayUnavailable."""

    def verify(self, *, headers: Mapping[str, str], body: bytes) -> None:
        """Raises InvalidSignature unless the gateway signed exactly these bytes just now."""

    def parse(self, *, headers: Mapping[str, str], body: bytes) -> GatewayEvent:
        """Read an event whose signature was verified. Raises MalformedEvent."""
