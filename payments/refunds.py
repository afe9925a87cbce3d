"""Refunds to source: staff have a gateway send a deposit back, whole or in parts.

An order is committed first, together with the money's way out of the wallet; then the gateway is
asked, with a key derived from the order and without any lock; then its answer is stored. Whatever
is cut short in between, the sweeper takes up: `next_attempt_at` in PostgreSQL says what is due.
"""

import logging
import random
import time
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from rest_framework.exceptions import ErrorDetail, ValidationError
from uuid_utils.compat import uuid7

from fintech_core.database import retry_on_conflict, violated_constraint
from fintech_core.exceptions import DomainError, InvalidState
from payments import effects, gateways, payouts
from payments.effects import Disagreement
from payments.effects.disagreement import NEVER_SENT
from payments.effects.refunds import fail
from payments.exceptions import GatewayRefused, GatewayUnavailable, NotFound
from payments.gateways.base import NewRefund, Statement, Subject
from payments.models import DepositRefund, PaymentIntent
from transactions.services import SourceRefund, TransactionService
from users.exceptions import NotOnOneself
from users.models import User
from users.services import require_staff

logger = logging.getLogger(__name__)

REFUND_PERMISSION = "payments.refund_deposit"
SETTLE_PERMISSION = "payments.settle_refund"
# The first question is the orderer's; a sweeper asks in their place if they do not come back.
RETRY_FIRST = timedelta(seconds=30)
RETRY_LONGEST = timedelta(hours=6)
_FORM_IS_NEW = "payments_depositrefund_form_id_key"


@dataclass(frozen=True, kw_only=True)
class RefundOrder:
    """`amount`, in major units of the intent's currency; None: all that is left of it. The customer
    reads the `reason` on their statement. Of two with the same `form_id` the second is refused."""

    intent_id: UUID
    amount: Decimal | None
    reason: str
    form_id: UUID | None = None


@transaction.atomic
def order(staff: User, asked: RefundOrder) -> DepositRefund:
    """Take the money out of the wallet and write down that the gateway has to send it back.

    Rows are locked in this order: intent, deposit, wallet. Raises PermissionDenied unless `staff`
    is active staff with `payments.refund_deposit` and it is not their own money; NotFound;
    InvalidState for an intent that has not succeeded and for a form that was sent before;
    ValidationError for an empty reason; and what `TransactionService.refund_deposit` raises.
    """
    require_staff(staff, REFUND_PERMISSION)
    reason = _written(asked.reason)
    intent = _lock_intent(staff, asked.intent_id)
    try:
        with transaction.atomic():
            return _write_down(staff, intent, asked, reason)
    except IntegrityError as exc:
        if violated_constraint(exc) != _FORM_IS_NEW:
            raise
        raise InvalidState("This was ordered already. Open the form anew for another.") from exc


def send(refund_id: UUID) -> None:
    """Ask the gateway about a pending refund, if that is due: to send it, or what became of it.

    Call it outside a database transaction. Safe to run any number of times, also at once: whoever
    asks has a lease, and the gateway answers the same to the same key. Whatever goes wrong is
    logged; the refund stands, and is asked about again later.
    """
    if refund := _claim(refund_id):
        _ask(refund)


def sweep(*, seconds_max: float) -> int:
    """Ask about whatever is due, one refund at a time, until nothing is or the time is used up.

    Any number of sweepers may run at once: each skips what another holds. One that fails is tried
    again later, and keeps none of the others waiting.
    """
    stop_at = time.monotonic() + seconds_max
    asked = 0
    while time.monotonic() < stop_at and (refund := _claim(None)) is not None:
        asked += 1
        _ask(refund)
    return asked


# --- Ordering ------------------------------------------------------------------------------------


def _lock_intent(staff: User, intent_id: UUID) -> PaymentIntent:
    rows = PaymentIntent.objects.select_for_update(no_key=True)
    intent = rows.filter(pk=intent_id).first()
    if intent is None:
        raise NotFound
    if intent.user_id == staff.pk:
        raise NotOnOneself("Nobody refunds their own deposit.")
    if intent.status != PaymentIntent.Status.SUCCEEDED:
        raise InvalidState(f"The payment is {intent.status}: there is nothing to send back.")
    return intent


def _write_down(
    staff: User, intent: PaymentIntent, asked: RefundOrder, reason: str
) -> DepositRefund:
    assert intent.transaction_id is not None  # noqa: S101 - it has succeeded
    refund_id = uuid7()
    made = TransactionService.refund_deposit(
        SourceRefund(
            deposit_id=intent.transaction_id,
            amount=asked.amount,
            effect_key=f"deposit_refund:{refund_id}",
            description=reason,
        )
    )
    return DepositRefund.objects.create(
        id=refund_id,
        intent=intent,
        amount=made.amount,
        currency=made.currency,
        gateway=intent.gateway,
        transaction=made,
        reason=reason,
        requested_by=staff,
        form_id=asked.form_id,
    )


def _written(reason: str) -> str:
    if not (reason := reason.strip()):
        raise ValidationError({"reason": [ErrorDetail("Say why.", code="blank")]})
    return reason


# --- Asking the gateway --------------------------------------------------------------------------


@transaction.atomic
def _claim(refund_id: UUID | None) -> DepositRefund | None:
    """This refund, or the one that has been due for longest; None if there is none to ask about.

    Its next attempt moves on at once: that is the lease which keeps others away.
    """
    due = DepositRefund.objects.select_for_update(no_key=True, skip_locked=True).filter(
        status=DepositRefund.Status.PENDING, next_attempt_at__lte=Now()
    )
    if refund_id is not None:
        due = due.filter(pk=refund_id)
    refund = due.order_by("next_attempt_at").first()
    if refund is not None:
        refund.attempts += 1
        refund.next_attempt_at = Now() + _backoff(refund.attempts)
        refund.save(update_fields=["attempts", "next_attempt_at"])
    return refund


def _backoff(attempts: int) -> timedelta:
    """Twice as long after each; jitter, so that what failed together is not tried together."""
    delay = min(RETRY_FIRST * 2 ** min(attempts - 1, 10), RETRY_LONGEST)
    return delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter


def _ask(refund: DepositRefund) -> None:
    about = {"deposit_refund": str(refund.pk)}
    try:
        if refund.gateway_reference is not None:
            _ask_what_became(refund, refund.gateway_reference)
        elif payouts.is_forgotten(refund):
            logger.error("refund got no reference in time: staff must find out", extra=about)
        else:
            _ask_to_send(refund)
    except GatewayUnavailable:
        logger.warning("gateway did not answer", extra=about)
    except (Disagreement, DomainError) as reason:
        logger.error("refund is not what its gateway says", extra=about | {"reason": str(reason)})
    except Exception:  # whatever it was, it is recorded, and tried again
        logger.exception("deposit refund failed", extra=about)


def _ask_to_send(refund: DepositRefund) -> None:
    intent = PaymentIntent.objects.only("gateway_reference").get(pk=refund.intent_id)
    assert intent.gateway_reference is not None  # noqa: S101 - its gateway reported success by it
    try:
        reference = gateways.gateway_named(refund.gateway).refund(
            NewRefund(
                id=refund.pk,
                intent_reference=intent.gateway_reference,
                amount=refund.amount,
                currency=refund.currency,
                idempotency_key=f"deposit_refund:{refund.pk}",
            )
        )
    except GatewayRefused as refusal:
        code = refusal.failure_code
        retry_on_conflict(lambda: _refused(refund.pk, code))
        return
    retry_on_conflict(lambda: _attach(refund.pk, reference))


@transaction.atomic
def _attach(refund_id: UUID, reference: str) -> None:
    """Store what the gateway answered. It answers the same to the same key, so once is enough.

    A refund that has failed keeps it, too: by it whatever comes of the order is told from others.
    """
    refund = DepositRefund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if reference == refund.gateway_reference:
        return
    if refund.gateway_reference is not None or refund.status != DepositRefund.Status.PENDING:
        about = {"deposit_refund": str(refund_id), "reference": reference}
        logger.error("gateway took a refund that is settled, or has another reference", extra=about)
    if refund.gateway_reference is None:
        refund.gateway_reference = reference
        refund.save(update_fields=["gateway_reference"])


@transaction.atomic
def _refused(refund_id: UUID, failure_code: str) -> None:
    """The gateway will not do it: the money comes back, if nobody asked but once.

    Refused when asked again, or while somebody else asks, it may have taken the order the other
    time: that is for staff to find out.
    """
    refund = DepositRefund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if refund.status != DepositRefund.Status.PENDING or refund.gateway_reference is not None:
        return
    if refund.attempts > 1:
        about = {"deposit_refund": str(refund_id), "code": failure_code}
        logger.error("gateway refuses a refund that it may have taken before", extra=about)
        return
    fail(refund, failure_code)


def _ask_what_became(refund: DepositRefund, reference: str) -> None:
    said = gateways.gateway_named(refund.gateway).fetch(Subject.REFUND, reference)
    if said is not None:
        retry_on_conflict(lambda: transaction.atomic(effects.apply)(said, refund.gateway))


# --- What staff put right ------------------------------------------------------------------------


def is_lost(refund: DepositRefund) -> bool:
    """Whether nobody but staff can find out what became of it."""
    return _is_unknown(refund) and not _is_asked(refund)


def _is_unknown(refund: DepositRefund) -> bool:
    """Whether the gateway has not said that it knows it."""
    return refund.status == DepositRefund.Status.PENDING and refund.gateway_reference is None


def _is_asked(refund: DepositRefund) -> bool:
    """Whether the gateway is asked to send it, or will be."""
    return refund.attempts == 0 or not payouts.is_forgotten(refund)


def name_reference(refund_id: UUID, *, by: User, reference: str) -> DepositRefund:
    """See `PaymentService.name_refund_reference`."""
    given = payouts.read_reference(reference)
    refund = _require_lost(DepositRefund.objects.filter(pk=refund_id).first(), by)
    said = payouts.ask_about(refund, Subject.REFUND, given)
    if said is None:
        raise InvalidState("The gateway does not say what this reference is.")
    return _name(refund_id, by, said)


@transaction.atomic
def _name(refund_id: UUID, by: User, said: Statement) -> DepositRefund:
    refund = _lock_lost(refund_id, by)
    if effects.named(said, refund.gateway) is not None:
        raise InvalidState("Another refund has this reference.")
    refund.gateway_reference, refund.next_attempt_at = said.gateway_reference, Now()
    refund.save(update_fields=["gateway_reference", "next_attempt_at"])
    effects.apply(said, refund.gateway)
    refund.refresh_from_db()
    return refund


@transaction.atomic
def give_up(refund_id: UUID, *, by: User) -> DepositRefund:
    """See `PaymentService.give_up_refund`."""
    refund = _lock_lost(refund_id, by)
    fail(refund, NEVER_SENT)
    refund.refresh_from_db()
    return refund


def _lock_lost(refund_id: UUID, by: User) -> DepositRefund:
    rows = DepositRefund.objects.select_for_update(no_key=True)
    return _require_lost(rows.filter(pk=refund_id).first(), by)


def _require_lost(refund: DepositRefund | None, by: User) -> DepositRefund:
    """Raises PermissionDenied, NotFound and InvalidState."""
    require_staff(by, SETTLE_PERMISSION)
    if refund is None:
        raise NotFound
    payouts.require_for_staff(
        "refund",
        is_own=refund.intent.user_id == by.pk,
        is_unknown=_is_unknown(refund),
        is_asked=_is_asked(refund),
    )
    return refund
