"""A gateway of a test's own, with a memory: it answers the same to the same key, and tells what
became of an order. It misbehaves when it is told to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Self

from django.test import override_settings

from payments.exceptions import (
    GatewayRefused,
    GatewayUnavailable,
    InvalidSignature,
    MalformedEvent,
)
from payments.gateways.base import (
    CreatedIntent,
    GatewayEvent,
    NewIntent,
    NewPayout,
    Outcome,
    Statement,
    Subject,
)
from payments.models import PaymentIntent, Payout


class Bank:
    name: ClassVar[str] = "bank"
    signature_headers: ClassVar[tuple[str, ...]] = ()

    # What the bank knows, and how it behaves; fresh for each test by `bank_open`.
    orders: ClassVar[dict[str, NewIntent | NewPayout]] = {}
    says: ClassVar[dict[str, Statement]] = {}
    asked: ClassVar[list[str]] = []
    is_away: ClassVar[bool] = False
    refuses_with: ClassVar[str] = ""
    loses_answers: ClassVar[bool] = False  # it takes the order, and nobody hears of it

    @classmethod
    def from_settings(cls) -> Self | None:
        return cls()

    def create(self, intent: NewIntent) -> CreatedIntent:
        return CreatedIntent(self._take(intent), "secret", "https://bank.example.com/pay")

    def payout(self, payout: NewPayout) -> str:
        return self._take(payout)

    def fetch(self, subject: Subject, gateway_reference: str) -> Statement | None:
        self._answer(f"fetch {gateway_reference}")
        return self.says.get(gateway_reference)

    def verify(self, *, headers: Mapping[str, str], body: bytes) -> None:
        raise InvalidSignature

    def parse(self, *, headers: Mapping[str, str], body: bytes) -> GatewayEvent:
        raise MalformedEvent("This bank sends no events: it has to be asked.")

    def _take(self, order: NewIntent | NewPayout) -> str:
        self._answer(order.idempotency_key)
        if self.refuses_with:
            raise GatewayRefused(self.refuses_with)
        self.orders.setdefault(order.idempotency_key, order)
        if self.loses_answers:
            raise GatewayUnavailable
        return f"bank_{self.orders[order.idempotency_key].id.hex}"

    def _answer(self, question: str) -> None:
        self.asked.append(question)
        if self.is_away:
            raise GatewayUnavailable


@contextmanager
def bank_open() -> Iterator[type[Bank]]:
    """The bank is a gateway of ours for as long as this lasts."""

    class Open(Bank):
        orders: ClassVar[dict[str, NewIntent | NewPayout]] = {}
        says: ClassVar[dict[str, Statement]] = {}
        asked: ClassVar[list[str]] = []

    global _open
    _open = Open
    gateways = {
        "sandbox": "payments.gateways.sandbox.SandboxGateway",
        "bank": "payments.tests.bank.current",
    }
    with override_settings(PAYMENT_GATEWAYS=gateways):
        yield Open


_open: type[Bank] = Bank


class current:  # noqa: N801 - the settings name it; it stands for whichever bank is open
    @staticmethod
    def from_settings() -> Bank:
        return _open()


def statement(order: PaymentIntent | Payout, outcome: Outcome, **changes: object) -> Statement:
    """What the bank says of the order; `changes` make it say something else."""
    subject = Subject.PAYOUT if isinstance(order, Payout) else Subject.INTENT
    facts = {
        "subject": subject,
        "outcome": outcome,
        "gateway_reference": order.gateway_reference or "",
        "amount": order.amount,
        "currency": order.currency,
    }
    return Statement(**{**facts, **changes})  # type: ignore[arg-type]
