"""Intents and events in states that production can reach, made through the same services."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import factory
from django.conf import settings
from django.test import override_settings

from fintech_core.idempotency import IdempotentCall
from payments.gateways.base import Outcome
from payments.gateways.sandbox import SandboxGateway
from payments.models import PaymentIntent, Payout, WebhookEvent
from payments.payouts import Destination, NewOrder
from payments.services import PaymentService
from transactions.tests.helpers import person
from users.models import User
from users.tests.factories import UserFactory


def signed(
    body: bytes,
    *,
    event_id: str | None = None,
    age: timedelta = timedelta(0),
    secret: str | None = None,
) -> dict[str, str]:
    """The headers of a delivery of exactly these bytes."""
    gateway = SandboxGateway([secret or settings.SANDBOX_WEBHOOK_SECRETS[0]])
    at = datetime.now(tz=UTC) - age
    return gateway.sign(event_id=event_id or f"evt_{uuid4().hex}", at=at, body=body)


def event_body(
    intent: PaymentIntent | Payout | None = None, outcome: str = "succeeded", **data: Any
) -> bytes:
    """What the sandbox says of the intent; `data` overrides it member by member."""
    facts = {
        "gateway_reference": intent.gateway_reference if intent else "sbx_unknown",
        "amount": f"{intent.amount:.2f}" if intent else "10.00",
        "currency": intent.currency if intent else "USD",
    }
    event = {
        "type": outcome if "." in outcome else f"payment_intent.{outcome}",
        "timestamp": "2026-11-22T13:00:00Z",
        "data": facts | data,
    }
    return json.dumps(event).encode()


def deliver(body: bytes, *, event_id: str | None = None, **how: Any) -> WebhookEvent:
    """A signed delivery, stored and not yet processed."""
    headers = signed(body, event_id=event_id, **how)
    PaymentService.receive_webhook(gateway="sandbox", headers=headers, body=body)
    return WebhookEvent.objects.get(gateway="sandbox", event_id=headers["webhook-id"])


def settle(intent: PaymentIntent | Payout, outcome: str = "succeeded", **data: Any) -> WebhookEvent:
    """The whole path: the gateway reports, a worker handles it."""
    event = deliver(event_body(intent, outcome, **data))
    PaymentService.process_payment_webhook(event.pk)
    event.refresh_from_db()
    intent.refresh_from_db()
    return event


class PaymentIntentFactory(factory.django.DjangoModelFactory):
    """An intent; `status` names where it stands, and it gets there as it would in production.

    PaymentIntentFactory(user=alice, amount="25.00")
    PaymentIntentFactory(status="succeeded")            the money is in the wallet
    """

    class Meta:
        model = PaymentIntent

    user = factory.SubFactory(UserFactory, kyc="approved")
    amount = "100.00"
    status = "requires_payment"

    @classmethod
    def _create(cls, model_class: type[PaymentIntent], *_: Any, **facts: Any) -> PaymentIntent:
        lifetime = timedelta(0) if facts["status"] == "expired" else timedelta(hours=24)
        with override_settings(PAYMENT_INTENT_LIFETIME=lifetime):
            intent = _begin(facts["user"], Decimal(facts["amount"]))
        if facts["status"] == "canceled":
            PaymentService.cancel_payment_intent(user=intent.user, intent_id=intent.pk)
        elif facts["status"] == "expired":
            PaymentService.expire_payment_intents()
        elif facts["status"] in [*Outcome]:
            settle(intent, facts["status"])
        intent.refresh_from_db()
        return intent


def _begin(user: Any, amount: Decimal) -> PaymentIntent:
    call = IdempotentCall.internal(
        user_id=user.pk, operation="PaymentIntentFactory", key=uuid4().hex, asked={}
    )
    answer = PaymentService.create_payment_intent(
        user=user,
        amount=amount,
        currency=user.wallet.currency,
        gateway="sandbox",
        idempotency=call,
    )
    return PaymentIntent.objects.get(pk=answer.content["id"])


IBAN = "DE89370400440532013000"


def pay_out(user: User, amount: str = "40.00", gateway: str = "sandbox") -> Payout:
    """As the API does it, without HTTP."""
    order = NewOrder(
        amount=Decimal(amount),
        currency=user.wallet.currency,
        gateway=gateway,
        destination=Destination(iban=IBAN, name="Ada Lovelace"),
    )
    call = IdempotentCall.internal(
        user_id=user.pk, operation="pay out", key=uuid4().hex, asked={"amount": amount}
    )
    answer = PaymentService.create_payout(user=user, order=order, idempotency=call)
    return Payout.objects.get(pk=answer.content["id"])


class PayoutFactory(factory.django.DjangoModelFactory):
    """A payout of 40.00 by somebody who had 100.00; `status` names what became of it."""

    class Meta:
        model = Payout

    status = "pending"

    @classmethod
    def _create(cls, model_class: type[Payout], *_: Any, **facts: Any) -> Payout:
        payout = pay_out(facts.get("user") or person("100.00"), facts.get("amount", "40.00"))
        if facts["status"] != "pending":
            settle(payout, f"payout.{facts['status']}")
        return payout


class WebhookEventFactory(factory.django.DjangoModelFactory):
    """An event about a new intent; `status` names what became of it.

    WebhookEventFactory(status="parked")     the amounts disagree
    """

    class Meta:
        model = WebhookEvent

    status = "received"

    @classmethod
    def _create(cls, model_class: type[WebhookEvent], *_: Any, **facts: Any) -> WebhookEvent:
        bodies = {
            "ignored": lambda: event_body(),
            "parked": lambda: event_body(PaymentIntentFactory(), amount="1.23"),
        }
        body = bodies.get(facts["status"], lambda: event_body(PaymentIntentFactory()))()
        event = deliver(body)
        if facts["status"] != "received":
            PaymentService.process_payment_webhook(event.pk)
        event.refresh_from_db()
        return event
