"""What a gateway says of a payout: the money arrived, or it comes back."""

import logging

from django.db.models import QuerySet

from payments import events
from payments.effects.disagreement import (
    Disagreement,
    given_back,
    lock_same,
    require_same_money,
)
from payments.gateways.base import Outcome, Statement
from payments.models import Payout
from transactions.services import TransactionService

logger = logging.getLogger(__name__)

UNSPECIFIED = "unspecified"  # it failed, and the gateway has no word for why
GIVEN_BACK_AND_PAID = (
    "Nothing of ours has this reference, but a payout of this amount was refused or given up: it"
    " may have been paid out all the same."
)
FAILURE_CODE_LENGTH = 100
_MEANINGS = {
    Outcome.PAID: Payout.Status.PAID,
    Outcome.FAILED: Payout.Status.FAILED,
    Outcome.CANCELED: Payout.Status.FAILED,
}


def apply(said: Statement, gateway: str) -> Payout | None:
    """The payout, settled as the statement says; None: there is no such payout.

    The first of paid and failed wins. The same once more changes nothing; the other one is raised
    as a Disagreement, for the money is either here or there, and staff must find out. So is money
    that was paid out and might be that of a payout that was refused, or that staff gave up.
    """
    payout = lock_same(named(said), gateway, "payout")
    if payout is None:
        _require_not_given_back(said, gateway)
        return None
    require_same_money(payout, said, "payout")
    _confirm_reference(payout)
    if said.outcome == Outcome.PROCESSING:
        return payout
    if said.outcome not in _MEANINGS:
        raise Disagreement(f"No payout ends as {said.outcome}.")
    settle(payout, _MEANINGS[said.outcome], said.failure_code)
    return payout


def named(said: Statement) -> QuerySet[Payout]:
    return Payout.objects.filter(gateway_reference=said.gateway_reference)


def _require_not_given_back(said: Statement, gateway: str) -> None:
    """Raises Disagreement if it may be a payout whose money was given back: then it is paid twice.

    Which one it is nobody can tell, for one that was refused or given up has no reference.
    """
    if said.outcome == Outcome.PAID and given_back(Payout.objects.all(), said, gateway).exists():
        raise Disagreement(GIVEN_BACK_AND_PAID)


def _confirm_reference(payout: Payout) -> None:
    """The gateway means the same: what staff named is final now."""
    if payout.named_by_staff:
        payout.named_by_staff = False
        payout.save(update_fields=["named_by_staff", "updated_at"])


def settle(payout: Payout, status: Payout.Status, failure_code: str = "") -> None:
    """Settle a locked payout, and its withdrawal with it. Raises Disagreement if it is settled
    otherwise already."""
    if payout.status == Payout.Status.PENDING:
        if status == Payout.Status.PAID:
            _pay(payout)
        else:
            fail(payout, failure_code)
    elif payout.status != status:
        raise Disagreement(f"It says {status}, but the payout is {payout.status} for good.")


def fail(payout: Payout, failure_code: str) -> None:
    """Bring the money of a locked, pending payout back to its wallet."""
    payout.reversal = TransactionService.fail_withdrawal(
        withdrawal_id=payout.transaction_id,
        wallet_id=payout.wallet_id,
        description="The payout failed: the money is back",
    )
    payout.status = Payout.Status.FAILED
    payout.failure_code = failure_code[:FAILURE_CODE_LENGTH] or UNSPECIFIED
    payout.completed_at = payout.reversal.created_at
    _save(payout)


def _pay(payout: Payout) -> None:
    withdrawal = TransactionService.complete_withdrawal(withdrawal_id=payout.transaction_id)
    payout.status = Payout.Status.PAID
    payout.completed_at = withdrawal.completed_at
    _save(payout)


def _save(payout: Payout) -> None:
    changed = ["status", "reversal", "failure_code", "completed_at", "updated_at"]
    payout.save(update_fields=changed + payout.stop_polling())
    events.payout_settled(payout)
    logger.info("payout settled", extra={"payout": str(payout.pk), "status": payout.status})
