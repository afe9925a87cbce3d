"""Paying out: the order and its withdrawal are committed first, then the gateway is asked.

`PaymentService` is the door. Whatever happens in between, the order is asked about again with the
same key: by the client's retry, and by `payments.polling`.
"""

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.crypto import salted_hmac
from uuid_utils.compat import uuid7

from fintech_core.database import retry_on_conflict
from fintech_core.exceptions import InvalidState
from fintech_core.idempotency import Answer, IdempotentCall
from payments import gateways
from payments.effects import payouts as effects
from payments.effects.disagreement import NEVER_SENT
from payments.exceptions import GatewayRefused, GatewayUnavailable, NotFound
from payments.gateways.base import REFERENCE_MAX, NewPayout, Statement, Subject
from payments.models import DepositRefund, Payout
from transactions.services import TransactionService, Withdrawal
from users.models import User
from users.services import require_staff
from wallet.models import Wallet

logger = logging.getLogger(__name__)

FIRST_POLL_AFTER = timedelta(minutes=10)
# Gateways forget idempotency keys (Stripe: after 24 hours), and would pay out a second time.
ASKED_WITHIN = timedelta(hours=23)
SETTLE_PERMISSION = "payments.settle_payout"


@dataclass(frozen=True)
class Destination:
    """A bank account. `iban` is as ISO 13616 writes it in machines: upper case, no spaces."""

    iban: str = field(repr=False)
    name: str = field(repr=False)

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
        return _send(begun, idempotency)
    except GatewayUnavailable:
        idempotency.release()
        raise


def _send(payout_id: UUID, idempotency: IdempotentCall) -> Answer:
    try:
        reference = ask(Payout.objects.get(pk=payout_id))
    except GatewayRefused as refusal:
        code = refusal.failure_code
        return idempotency.finish(lambda: refused(payout_id, code))
    answer = idempotency.finish(lambda: attach(payout_id, reference))
    if answer.replayed:  # somebody else has finished it: what they stored need not be this
        retry_on_conflict(transaction.atomic(lambda: attach(payout_id, reference)))
    return answer


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


class Undecided(GatewayUnavailable):
    """Asking again has not told what became of the payout, or must not be done."""


def ask(payout: Payout) -> str:
    """The gateway's reference: the one that it gave, or else what it answers now.

    Raises GatewayRefused, which is for `refused` to decide about, and GatewayUnavailable; as
    Undecided once the gateway may have forgotten that it was asked, and while the wallet is frozen.
    Call it without a lock or a database transaction.
    """
    if payout.gateway_reference is not None:
        return payout.gateway_reference
    if payout.status != Payout.Status.PENDING:
        return ""
    if is_forgotten(payout):
        raise Undecided("The gateway did not answer in time. We are looking into it.")
    _begin_asking(payout)
    return _ask(payout)


def _begin_asking(payout: Payout) -> None:
    """Commits that the gateway is asked now, and whether it was asked before. Raises Undecided.

    Each statement decides for itself, so that of any number who ask at once one is the first, and
    none asks about what is settled before it has said so.
    """
    active = Wallet.objects.filter(pk=OuterRef("wallet_id"), status=Wallet.Status.ACTIVE)
    pending = Payout.objects.filter(pk=payout.pk, status=Payout.Status.PENDING)
    may_be_sent = pending.filter(Exists(active))
    if may_be_sent.filter(asked_at=None).update(asked_at=Now()):
        return
    if not may_be_sent.update(asked_again=True):
        raise Undecided("It is settled, or its wallet is frozen; it is not ordered again.")


def _ask(payout: Payout) -> str:
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


def is_forgotten(order: Payout | DepositRefund) -> bool:
    """Whether asking once more might pay twice."""
    return timezone.now() - order.created_at > ASKED_WITHIN


def is_lost(payout: Payout) -> bool:
    """Whether nobody but staff can find out what became of it."""
    return _is_unknown(payout) and is_forgotten(payout)


def _is_unknown(payout: Payout) -> bool:
    """Whether the gateway has not said that it knows it."""
    unconfirmed = payout.gateway_reference is None or payout.named_by_staff
    return payout.status == Payout.Status.PENDING and unconfirmed


def attach(payout_id: UUID, reference: str) -> Payout:
    """Store what the gateway answered; once, for it answers the same to the same key.

    A payout that has failed keeps it, too: by it whatever comes of the order is told from others.
    """
    payout = _lock(payout_id)
    if not reference or reference == payout.gateway_reference:
        return payout
    if payout.gateway_reference is not None or payout.status != Payout.Status.PENDING:
        about = {"payout": str(payout_id), "status": payout.status, "reference": reference}
        logger.error("gateway took a payout that is settled, or has another reference", extra=about)
    if payout.gateway_reference is None:
        payout.gateway_reference = reference
        payout.save(update_fields=["gateway_reference", "updated_at"])
    return payout


def refused(payout_id: UUID, failure_code: str) -> Payout:
    """The gateway will not do it: the money comes back, unless it is settled meanwhile.

    Raises Undecided if the gateway was asked more than once, be it before or just now by somebody
    else: it may have taken the order the other time.
    """
    payout = _lock(payout_id)
    if payout.status != Payout.Status.PENDING or payout.gateway_reference is not None:
        return payout
    if payout.asked_again:
        raise Undecided(
            f"The gateway refuses ({failure_code}) what it may have taken before."
            " We are looking into it."
        )
    effects.fail(payout, failure_code)
    return payout


def _lock(payout_id: UUID) -> Payout:
    payout = Payout.objects.select_for_update(no_key=True).filter(pk=payout_id).first()
    if payout is None:
        raise NotFound
    return payout


# --- What staff put right ------------------------------------------------------------------------


def name_reference(payout_id: UUID, *, by: User, reference: str) -> Payout:
    """See `PaymentService.name_payout_reference`."""
    given = read_reference(reference)
    payout = _require_lost(Payout.objects.filter(pk=payout_id).first(), by)
    said = ask_about(payout, Subject.PAYOUT, given)
    return _name(payout_id, by, given, is_confirmed=said is not None)


def read_reference(text: str) -> str:
    """Raises InvalidState for what no gateway calls anything."""
    given = text.strip()
    if not given or len(given) > REFERENCE_MAX or not given.isascii() or not given.isprintable():
        raise InvalidState("That is no reference.")
    return given


def ask_about(order: Payout | DepositRefund, subject: Subject, reference: str) -> Statement | None:
    """What the gateway says of the reference that staff give to the order; None: nothing.

    Raises InvalidState if it is something else there, and GatewayUnavailable. Call it without a
    lock.
    """
    said = gateways.gateway_named(order.gateway).fetch(subject, reference)
    if said is not None and (said.subject, said.gateway_reference, said.amount, said.currency) != (
        subject,
        reference,
        order.amount,
        order.currency,
    ):
        raise InvalidState("At the gateway this reference is something else.")
    return said


@transaction.atomic
def _name(payout_id: UUID, by: User, reference: str, *, is_confirmed: bool) -> Payout:
    payout = _require_lost(_lock(payout_id), by)
    others = Payout.objects.filter(gateway_reference=reference, gateway=payout.gateway)
    if others.exclude(pk=payout.pk).exists():
        raise InvalidState("Another payout has this reference.")
    payout.gateway_reference, payout.named_by_staff = reference, not is_confirmed
    payout.next_poll_at = Now()
    payout.save(update_fields=["gateway_reference", "named_by_staff", "next_poll_at", "updated_at"])
    return payout


@transaction.atomic
def give_up(payout_id: UUID, *, by: User) -> Payout:
    """See `PaymentService.give_up_payout`."""
    require_staff(by, SETTLE_PERMISSION)
    payout = _require_lost(_lock(payout_id), by)
    if payout.named_by_staff:  # what the gateway says of that reference is about another order
        payout.gateway_reference, payout.named_by_staff = None, False
        payout.save(update_fields=["gateway_reference", "named_by_staff", "updated_at"])
    effects.fail(payout, NEVER_SENT)
    return payout


def _require_lost(payout: Payout | None, by: User) -> Payout:
    """Raises PermissionDenied, NotFound and InvalidState."""
    require_staff(by, SETTLE_PERMISSION)
    if payout is None:
        raise NotFound
    require_for_staff(
        "payout",
        is_own=payout.user_id == by.pk,
        is_unknown=_is_unknown(payout),
        is_asked=not is_forgotten(payout),
    )
    return payout


def require_for_staff(word: str, *, is_own: bool, is_unknown: bool, is_asked: bool) -> None:
    """Raises InvalidState unless staff may decide about an order, which they call by the word."""
    if is_own:
        raise InvalidState(f"Nobody decides about their own {word}.")
    if not is_unknown:
        raise InvalidState(f"The gateway knows this {word}: what it says counts.")
    if is_asked:
        raise InvalidState("The gateway is still being asked.")
