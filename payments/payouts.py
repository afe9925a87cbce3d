"""Paying out: the order and its withdrawal are committed first, then the gateway is asked.

`PaymentService` is the door. Whatever happens in between, the order is asked about again with the
same key: by the client's retry, and by `payments.polling`.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.crypto import salted_hmac
from uuid_utils.compat import uuid7

from fintech_core.exceptions import InvalidState
from fintech_core.idempotency import Answer, IdempotentCall
from payments import gateways
from payments.effects import payouts as effects
from payments.exceptions import GatewayRefused, GatewayUnavailable, NotFound
from payments.gateways.base import REFERENCE_MAX, NewPayout
from payments.models import Payout
from transactions.services import TransactionService, Withdrawal
from users.models import User
from users.services import require_staff

logger = logging.getLogger(__name__)

FIRST_POLL_AFTER = timedelta(minutes=10)
# Gateways forget idempotency keys (Stripe: after 24 hours), and would pay out a second time.
ASKED_WITHIN = timedelta(hours=23)
SETTLE_PERMISSION = "payments.settle_payout"


@dataclass(frozen=True)
class Destination:
    """A bank account. `iban` is as ISO 13616 writes it in machines: upper case, no spaces."""

    iban: str
    name: str

    @property
    def fingerprint(self) -> str:
        """It stands for the account in the record of a request.

        Keyed, for the accounts of a country are few enough to be tried against a plain hash.
        """
        text = f"{self.iban}\n{self.name}"
        return salted_hmac("payments.payouts.destination", text, algorithm="sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class NewOrder:
    """What a customer asks for. `amount` is in major units of `currency`."""

    amount: Decimal
    currency: str
    gateway: str
    destination: Destination


def create(user: User, order: NewOrder, idempotency: IdempotentCall) -> Answer:
    """See `PaymentService.create_payout`."""
    gateways.gateway_named(order.gateway)
    begun = idempotency.begin(lambda: _order(user, order))
    if isinstance(begun, Answer):
        return begun
    try:
        reference = ask(Payout.objects.get(pk=begun))
    except GatewayUnavailable:
        idempotency.release()
        raise
    except GatewayRefused as refusal:
        code = refusal.failure_code
        return idempotency.finish(lambda: refused(begun, code))
    return idempotency.finish(lambda: attach(begun, reference))


def _order(user: User, order: NewOrder) -> Payout:
    payout_id = uuid7()
    withdrawal = TransactionService.withdraw(
        owner=user,
        withdrawal=Withdrawal(
            amount=order.amount,
            currency=order.currency,
            effect_key=f"payout:{payout_id}",
            description=f"Payout through {order.gateway}",
            metadata={"payout_id": str(payout_id)},
        ),
    )
    return Payout.objects.create(
        id=payout_id,
        user=user,
        wallet_id=user.wallet.pk,
        amount=order.amount,
        currency=order.currency,
        gateway=order.gateway,
        iban=order.destination.iban,
        holder=order.destination.name,
        transaction=withdrawal,
        next_poll_at=Now() + FIRST_POLL_AFTER,
    )


def ask(payout: Payout) -> str:
    """The gateway's reference: the one that it gave, or else what it answers now.

    Raises GatewayRefused, and GatewayUnavailable, too once it may have forgotten that it was asked.
    Call it without a lock or a database transaction.
    """
    if payout.gateway_reference is not None:
        return payout.gateway_reference
    if payout.status != Payout.Status.PENDING:
        return ""
    if is_forgotten(payout):
        raise GatewayUnavailable("The gateway did not answer in time. We are looking into it.")
    return gateways.gateway_named(payout.gateway).payout(
        NewPayout(
            id=payout.pk,
            amount=payout.amount,
            currency=payout.currency,
            idempotency_key=f"payout:{payout.pk}",
            iban=payout.iban,
            name=payout.holder,
        )
    )


def is_forgotten(payout: Payout) -> bool:
    """Whether asking once more might pay out twice."""
    return timezone.now() - payout.created_at > ASKED_WITHIN


def is_lost(payout: Payout) -> bool:
    """Whether nobody but staff can find out what became of it."""
    is_open = payout.status == Payout.Status.PENDING and payout.gateway_reference is None
    return is_open and is_forgotten(payout)


def attach(payout_id: UUID, reference: str) -> Payout:
    """Store what the gateway answered; once, for it answers the same to the same key."""
    payout = _lock(payout_id)
    if payout.gateway_reference is None and reference:
        payout.gateway_reference = reference
        payout.save(update_fields=["gateway_reference", "updated_at"])
    return payout


def refused(payout_id: UUID, failure_code: str) -> Payout:
    """The gateway will not do it: the money comes back, unless it is settled meanwhile."""
    payout = _lock(payout_id)
    if payout.status == Payout.Status.PENDING and payout.gateway_reference is None:
        effects.fail(payout, failure_code)
    return payout


def _lock(payout_id: UUID) -> Payout:
    payout = Payout.objects.select_for_update(no_key=True).filter(pk=payout_id).first()
    if payout is None:
        raise NotFound
    return payout


# --- What staff put right ------------------------------------------------------------------------


@transaction.atomic
def name_reference(payout_id: UUID, *, by: User, reference: str) -> Payout:
    """See `PaymentService.name_payout_reference`."""
    payout = _lock_forgotten(payout_id, by)
    given = reference.strip()
    if not given or len(given) > REFERENCE_MAX or not given.isascii() or not given.isprintable():
        raise InvalidState("That is no reference.")
    if Payout.objects.filter(gateway_reference=given, gateway=payout.gateway).exists():
        raise InvalidState("Another payout has this reference.")
    payout.gateway_reference, payout.next_poll_at = given, Now()
    payout.save(update_fields=["gateway_reference", "next_poll_at", "updated_at"])
    return payout


@transaction.atomic
def give_up(payout_id: UUID, *, by: User) -> Payout:
    """See `PaymentService.give_up_payout`."""
    payout = _lock_forgotten(payout_id, by)
    effects.fail(payout, "never_sent")
    return payout


def _lock_forgotten(payout_id: UUID, by: User) -> Payout:
    require_staff(by, SETTLE_PERMISSION)
    payout = _lock(payout_id)
    if payout.user_id == by.pk:
        raise InvalidState("Nobody decides about their own payout.")
    if payout.status != Payout.Status.PENDING or payout.gateway_reference is not None:
        raise InvalidState("The gateway knows this payout: what it says counts.")
    if not is_forgotten(payout):
        raise InvalidState("The gateway is still being asked.")
    return payout
