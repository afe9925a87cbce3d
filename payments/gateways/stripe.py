"""Stripe, by its official SDK, with nothing of it global.

Top-ups are PaymentIntents of the account that `STRIPE_API_KEY` belongs to. Stripe's payouts go to
bank accounts of a Stripe account, never straight to anybody's IBAN. So ours are made by the
connected account `STRIPE_PAYOUT_ACCOUNT`, whose external accounts the platform may manage
(https://docs.stripe.com/connect/payouts-bank-accounts): the IBAN becomes one of them, then it is
paid. Whoever runs the platform keeps that account funded.
"""

import hmac
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar, Self

import stripe
from django.conf import settings
from stripe.params import (
    BalanceTransactionListParams,
    PaymentIntentCreateParams,
    PayoutCreateParams,
    RefundCreateParams,
)

from fintech_core.parsers import MalformedJSON, load_json
from payments.exceptions import (
    GatewayRefused,
    GatewayUnavailable,
    InvalidSignature,
    MalformedEvent,
)
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
from payments.gateways.stripe_amounts import NotRepresentable, to_major, to_minor

logger = logging.getLogger(__name__)

# The version whose requests and answers this module was written for; the SDK may be newer.
API_VERSION = "2026-10-28.endive"
# Together, with the retries, shorter than a call may hold its idempotency key (LEASE).
CONNECT_SECONDS, READ_SECONDS, RETRIES = 3.0, 8.0, 1
TOLERANCE_SECONDS = 300
SIGNATURE = "stripe-signature"
_SIGNATURES_MAX = 16
FAILURE_CODE_MAX = 100
PAGE = 100

# What Stripe calls the state of each of its objects, as far as it means something to us.
_INTENT_OUTCOMES = {"succeeded": Outcome.SUCCEEDED, "canceled": Outcome.CANCELED}
_PAYOUT_OUTCOMES = {
    "paid": Outcome.PAID,
    "failed": Outcome.FAILED,
    "canceled": Outcome.FAILED,
}
_REFUND_OUTCOMES = {
    "succeeded": Outcome.SUCCEEDED,
    "failed": Outcome.FAILED,
    "canceled": Outcome.FAILED,
}
# Event types that say the outcome themselves: the object may have moved on, or back, since.
_SAYING = {
    "payment_intent.processing": (Subject.INTENT, Outcome.PROCESSING),
    "payment_intent.succeeded": (Subject.INTENT, Outcome.SUCCEEDED),
    "payment_intent.payment_failed": (Subject.INTENT, Outcome.FAILED),
    "payment_intent.canceled": (Subject.INTENT, Outcome.CANCELED),
    "payout.paid": (Subject.PAYOUT, Outcome.PAID),
    "payout.failed": (Subject.PAYOUT, Outcome.FAILED),
    "payout.canceled": (Subject.PAYOUT, Outcome.FAILED),
    "refund.failed": (Subject.REFUND, Outcome.FAILED),
}
# Those that only say that a refund changed; its `status` tells to what.
_REFUND_CHANGED = {"refund.created", "refund.updated", "charge.refund.updated"}

_EPOCH_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)
_CURRENCY = re.compile(r"[a-z]{3}", re.ASCII)

Members = Mapping[str, Any]


class StripeGateway:
    """Exists where `STRIPE_WEBHOOK_SECRET` is set; asks nobody anything without an API key."""

    name: ClassVar[str] = "stripe"
    signature_headers: ClassVar[tuple[str, ...]] = (SIGNATURE,)
    # Until a payout or a refund has arrived, or came back.
    settles_within_days: ClassVar[int] = 7

    def __init__(
        self, *, api_key: str, webhook_secrets: list[str], api_base: str, payout_account: str
    ) -> None:
        """Each of the secrets verifies, so that they can be rotated; Stripe signs with both."""
        self._api_key = api_key
        self._webhook_secrets = webhook_secrets
        self._api_base = api_base
        self._payout_account = payout_account

    @classmethod
    def from_settings(cls) -> Self | None:
        if not settings.STRIPE_WEBHOOK_SECRETS:
            return None
        return cls(
            api_key=settings.STRIPE_API_KEY,
            webhook_secrets=settings.STRIPE_WEBHOOK_SECRETS,
            api_base=settings.STRIPE_API_BASE,
            payout_account=settings.STRIPE_PAYOUT_ACCOUNT,
        )

    # --- Asking

    def create(self, intent: NewIntent) -> CreatedIntent:
        asked: PaymentIntentCreateParams = {
            "amount": _minor(intent),
            "currency": intent.currency.lower(),
            "automatic_payment_methods": {"enabled": True},
            "metadata": {"payment_intent_id": str(intent.id)},
        }
        made = _asking(
            lambda: self._client.v1.payment_intents.create(
                asked, {"idempotency_key": intent.idempotency_key}
            )
        )
        return CreatedIntent(
            gateway_reference=_answered(made, "id"),
            client_secret=_answered(made, "client_secret"),
        )

    def payout(self, payout: NewPayout) -> str:
        """To the IBAN, by way of `STRIPE_PAYOUT_ACCOUNT`; refused where there is none."""
        if not self._payout_account:
            raise GatewayRefused("payouts_not_configured")
        minor = _minor(payout, paid_out=True)
        bank_account = self._bank_account(payout)
        mine = {"payout_id": str(payout.id)}
        earlier = self._earlier(
            lambda: self._client.v1.payouts.list(
                {"destination": bank_account, "limit": PAGE}, self._on_behalf()
            ),
            mine,
        )
        if earlier:
            return earlier
        asked: PayoutCreateParams = {
            "amount": minor,
            "currency": payout.currency.lower(),
            "destination": bank_account,
            "metadata": mine,
        }
        made = _asking(
            lambda: self._client.v1.payouts.create(asked, self._on_behalf(payout.idempotency_key))
        )
        return _answered(made, "id")

    def refund(self, refund: NewRefund) -> str:
        mine = {"refund_id": str(refund.id)}
        earlier = self._earlier(
            lambda: self._client.v1.refunds.list(
                {"payment_intent": refund.intent_reference, "limit": PAGE}
            ),
            mine,
        )
        if earlier:
            return earlier
        asked: RefundCreateParams = {
            "payment_intent": refund.intent_reference,
            "amount": _minor(refund),
            "metadata": mine,
        }
        made = _asking(
            lambda: self._client.v1.refunds.create(
                asked, {"idempotency_key": refund.idempotency_key}
            )
        )
        return _answered(made, "id")

    def fetch(self, subject: Subject, gateway_reference: str) -> Statement | None:
        try:
            found = _asking(lambda: self._retrieve(subject, gateway_reference))
            return _state_of(subject, found)
        except GatewayRefused as refusal:
            # Nothing became of what Stripe does not know: a reference of another mode or account.
            logger.warning(
                "stripe does not tell what became of an order",
                extra={"reference": gateway_reference, "code": refusal.failure_code},
            )
            return None
        except MalformedEvent as fault:
            raise GatewayUnavailable(f"Stripe's answer makes no sense: {fault.detail}") from None

    def report(self, day: date) -> Iterable[ReportLine]:
        """By balance transactions, each with the order behind it as it stands now.

        Amounts are those of the orders, before fees and in their own currency. A payout has its
        line on the day on which it left the balance, and a refund likewise, once they succeeded,
        days later; it has none any more if they fail after that.
        """
        begin = datetime.combine(day, clock.min, tzinfo=UTC)
        yield from self._lines(begin, {"charge", "payment", "refund", "payment_refund"}, {})
        if self._payout_account:
            yield from self._lines(begin, {"payout"}, self._on_behalf())

    # --- Being told

    def verify(self, *, headers: Mapping[str, str], body: bytes) -> None:
        """`Stripe-Signature`, over bytes: the SDK's own takes only text, and any future time."""
        moment, signatures = _signature_of(headers.get(SIGNATURE, ""))
        if abs(time.time() - int(moment)) > TOLERANCE_SECONDS:
            raise InvalidSignature
        content = moment.encode() + b"." + body
        for secret in self._webhook_secrets:
            right = hmac.new(secret.encode(), content, sha256).hexdigest()
            if any(hmac.compare_digest(right.encode(), each.encode()) for each in signatures):
                return
        raise InvalidSignature

    def parse(self, *, headers: Mapping[str, str], body: bytes) -> GatewayEvent:
        members = _members(body)
        event_id = _text(members.get("id"), EVENT_ID_MAX, "id")
        kind = _text(members.get("type"), EVENT_TYPE_MAX, "type")
        if kind not in _SAYING and kind not in _REFUND_CHANGED:
            return GatewayEvent(event_id=event_id, type=kind)
        about = members.get("data")
        found = about.get("object") if isinstance(about, dict) else None
        if not isinstance(found, dict):
            raise MalformedEvent("`data.object` must be an object.")
        if kind in _REFUND_CHANGED:
            said = _state_of(Subject.REFUND, found)
        else:
            said = _statement(*_SAYING[kind], found)
        return GatewayEvent(event_id=event_id, type=kind, statement=said)

    # --- How it is asked

    @cached_property
    def _client(self) -> stripe.StripeClient:
        """Raises GatewayUnavailable without an API key."""
        if not self._api_key:
            raise GatewayUnavailable("Stripe is not connected here: there is no API key.")
        return stripe.StripeClient(
            self._api_key,
            stripe_version=API_VERSION,
            base_addresses={"api": self._api_base} if self._api_base else None,
            max_network_retries=RETRIES,
            http_client=stripe.RequestsClient(timeout=(CONNECT_SECONDS, READ_SECONDS)),
        )

    def _on_behalf(self, idempotency_key: str | None = None) -> stripe.RequestOptions:
        return {"stripe_account": self._payout_account, "idempotency_key": idempotency_key}

    def _bank_account(self, payout: NewPayout) -> str:
        """The id of the IBAN among the bank accounts that may be paid; it is added at first."""
        token = _asking(lambda: self._client.v1.tokens.create(*self._new_token(payout)))
        try:
            added = _asking(
                lambda: self._client.v1.accounts.external_accounts.create(
                    self._payout_account,
                    {"external_account": _answered(token, "id")},
                    {"idempotency_key": f"{payout.idempotency_key}:account"},
                )
            )
        except GatewayRefused as refusal:
            if refusal.failure_code != "bank_account_exists":
                raise
            return self._known_bank_account(token)
        return _answered(added, "id")

    def _new_token(self, payout: NewPayout) -> tuple[Any, Any]:
        asked = {
            "bank_account": {
                "country": payout.iban[:2],
                "currency": payout.currency.lower(),
                "account_holder_name": payout.name,
                "account_holder_type": "individual",
                "account_number": payout.iban,
            }
        }
        return asked, {"idempotency_key": f"{payout.idempotency_key}:token"}

    def _known_bank_account(self, token: Members) -> str:
        """Stripe's fingerprint of an account number tells which of the accounts it is."""
        wanted = (token.get("bank_account") or {}).get("fingerprint")
        accounts = self._all(
            lambda: self._client.v1.accounts.external_accounts.list(
                self._payout_account, {"object": "bank_account", "limit": PAGE}
            )
        )
        for account in accounts:
            if wanted and account.get("fingerprint") == wanted:
                return _answered(account, "id")
        raise GatewayUnavailable("Stripe knows this bank account, and does not list it.")

    def _earlier(self, listing: Callable[[], Any], mine: dict[str, str]) -> str | None:
        """The order that an earlier try made. Stripe forgets idempotency keys after a day, and an
        order that pays money out must not be made twice even then.

        Raises GatewayUnavailable also if the list is refused: that says nothing of the order.
        """
        try:
            for order in self._all(listing):
                metadata = order.get("metadata") or {}
                if mine.items() <= metadata.items():
                    return _answered(order, "id")
        except GatewayRefused as refusal:
            raise GatewayUnavailable(
                f"Stripe does not list earlier orders: {refusal.failure_code}"
            ) from None
        return None

    def _retrieve(self, subject: Subject, reference: str) -> Any:
        if subject == Subject.INTENT:
            return self._client.v1.payment_intents.retrieve(reference)
        if subject == Subject.PAYOUT:
            return self._client.v1.payouts.retrieve(reference, None, self._on_behalf())
        return self._client.v1.refunds.retrieve(reference)

    def _all(self, listing: Callable[[], Any]) -> Iterator[Members]:
        """Every object of a list, page after page. Raises GatewayUnavailable and GatewayRefused."""
        pages = _translated(lambda: listing().auto_paging_iter())
        while (found := _translated(lambda: next(pages, None))) is not None:
            yield found.to_dict(recursive=True)

    def _lines(
        self, begin: datetime, types: set[str], options: stripe.RequestOptions
    ) -> Iterator[ReportLine]:
        asked: BalanceTransactionListParams = {
            "created": {
                "gte": int(begin.timestamp()),
                "lt": int((begin + timedelta(days=1)).timestamp()),
            },
            "limit": PAGE,
            "expand": ["data.source"],
        }
        try:
            listed = self._all(lambda: self._client.v1.balance_transactions.list(asked, options))
            for booked in listed:
                if booked.get("type") in types and (line := _line(booked)):
                    yield line
        except (GatewayRefused, MalformedEvent) as fault:
            raise GatewayUnavailable(f"Stripe's report cannot be read: {fault}") from None


# --- Errors --------------------------------------------------------------------------------------


def _asking(call: Callable[[], Any]) -> Members:
    """The answer. Raises GatewayUnavailable and GatewayRefused."""
    answer: Members = _translated(call).to_dict(recursive=True)
    return answer


def _translated(call: Callable[[], Any]) -> Any:
    """Without the SDK's errors as causes: they quote requests, which hold account numbers."""
    try:
        return call()
    except (stripe.CardError, stripe.InvalidRequestError) as refusal:
        code = _failure_code(refusal)
        if code in ("lock_timeout", "idempotency_key_in_use"):
            raise _unavailable(refusal) from None
        logger.info("stripe refuses", extra=_safe_facts(refusal))
        raise GatewayRefused(code) from None
    except stripe.StripeError as fault:
        # Ours to mend, the likes of a wrong key, is no reason to refuse a customer for good.
        raise _unavailable(fault) from None


def _unavailable(fault: stripe.StripeError) -> GatewayUnavailable:
    logger.warning("stripe does not answer as it should", extra=_safe_facts(fault))
    return GatewayUnavailable("Stripe does not answer just now.")


def _failure_code(refusal: stripe.StripeError) -> str:
    """Stripe's word for why; a card's decline code says more than `card_declined`."""
    said = refusal.json_body.get("error") if isinstance(refusal.json_body, dict) else None
    members = said if isinstance(said, dict) else {}
    for name in ("decline_code", "code", "type"):
        if isinstance(word := members.get(name), str) and _PRINTABLE.fullmatch(word):
            return word[:FAILURE_CODE_MAX]
    return "refused"


def _safe_facts(fault: stripe.StripeError) -> dict[str, Any]:
    return {
        "error": type(fault).__name__,
        "status": fault.http_status,
        "code": fault.code,
        "stripe_request": fault.request_id,
    }


# --- Reading -------------------------------------------------------------------------------------


def _minor(order: NewIntent | NewPayout | NewRefund, *, paid_out: bool = False) -> int:
    try:
        return to_minor(order.amount, order.currency, paid_out=paid_out)
    except NotRepresentable:
        raise GatewayRefused("amount_not_representable") from None


def _answered(answer: Members, name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= REFERENCE_MAX:
        raise GatewayUnavailable(f"Stripe's answer has no `{name}`.")
    return value


def _signature_of(header: str) -> tuple[str, list[str]]:
    """The time (seconds since 1970) and the `v1` signatures. Raises InvalidSignature."""
    items = [item.partition("=") for item in header.split(",")]
    moments = [value for name, _, value in items if name.strip() == "t"]
    signatures = [value for name, _, value in items if name.strip() == "v1"]
    if len(moments) != 1 or not _EPOCH_SECONDS.fullmatch(moments[0]):
        raise InvalidSignature
    return moments[0], signatures[:_SIGNATURES_MAX]


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = load_json(body)
    except MalformedJSON as refusal:
        raise MalformedEvent(str(refusal)) from refusal
    if not isinstance(members, dict):
        raise MalformedEvent("An event is a JSON object.")
    return members


def _state_of(subject: Subject, found: Members) -> Statement | None:
    """What an object's `status` says; None while it is open."""
    outcomes = {
        Subject.INTENT: _INTENT_OUTCOMES,
        Subject.PAYOUT: _PAYOUT_OUTCOMES,
        Subject.REFUND: _REFUND_OUTCOMES,
    }[subject]
    status = found.get("status")
    if not isinstance(status, str) or status not in outcomes:
        return None
    return _statement(subject, outcomes[status], found)


def _statement(subject: Subject, outcome: Outcome, found: Members) -> Statement:
    """Raises MalformedEvent if the object is not what its event type promises."""
    # Of an intent, what counts is what arrived.
    arrived = subject == Subject.INTENT and outcome == Outcome.SUCCEEDED
    currency = _currency(found.get("currency"))
    return Statement(
        subject=subject,
        outcome=outcome,
        gateway_reference=_text(found.get("id"), REFERENCE_MAX, "data.object.id"),
        amount=_amount(found, "amount_received" if arrived else "amount", currency),
        currency=currency,
        failure_code=_why(found) if outcome in (Outcome.FAILED, Outcome.CANCELED) else "",
    )


def _amount(found: Members, name: str, currency: str) -> Any:
    minor = found.get(name)
    if isinstance(minor, bool) or not isinstance(minor, int):
        raise MalformedEvent(f"`data.object.{name}` must be a whole number of minor units.")
    try:
        return to_major(minor, currency)
    except NotRepresentable:
        raise MalformedEvent(f"`data.object.{name}` is not an amount.") from None


def _currency(value: object) -> str:
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise MalformedEvent("`data.object.currency` must be an ISO 4217 code in lower case.")
    return value.upper()


def _why(found: Members) -> str:
    """In Stripe's words; a canceled order that gives no reason failed for being canceled."""
    error = found.get("last_payment_error")
    told = error if isinstance(error, dict) else {}
    for word in (
        told.get("decline_code"),
        told.get("code"),
        found.get("failure_code"),
        found.get("failure_reason"),
        found.get("cancellation_reason"),
        found.get("status"),
    ):
        if isinstance(word, str) and _PRINTABLE.fullmatch(word):
            return word[:FAILURE_CODE_MAX]
    return ""


def _text(value: object, length_max: int, name: str) -> str:
    if not isinstance(value, str) or len(value) > length_max or not _PRINTABLE.fullmatch(value):
        raise MalformedEvent(
            f"`{name}` must be text of at most {length_max} printable ASCII characters."
        )
    return value


def _line(booked: Members) -> ReportLine | None:
    """The order behind a balance transaction; None: none of the orders that are reported."""
    source = booked.get("source")
    found = source if isinstance(source, dict) else {}
    subject = {"charge": Subject.INTENT, "payout": Subject.PAYOUT, "refund": Subject.REFUND}.get(
        str(found.get("object"))
    )
    if subject is None or found.get("status") not in ("succeeded", "paid"):
        return None
    reference = found.get("payment_intent" if subject == Subject.INTENT else "id")
    if not isinstance(reference, str):
        return None
    currency = _currency(found.get("currency"))
    return ReportLine(
        subject=subject,
        gateway_reference=reference,
        amount=_amount(found, "amount", currency),
        currency=currency,
        at=datetime.fromtimestamp(booked["created"], tz=UTC),
    )
