"""What a gateway says of a deposit's refund, and the money that comes back if it could not send it.

The first of succeeded and failed wins. Rows are locked in this order: refund, wallet.
"""

from django.db.models import QuerySet
from django.db.models.functions import Now

from payments.effects.disagreement import Disagreement, given_back
from payments.gateways.base import Outcome, Statement
from payments.models import DepositRefund
from transactions.services import TransactionService

FAILURE_CODE_MAX = 100
REFUSED_AND_SENT = (
    "Nothing of ours has this reference, but a refund of this amount was refused or given up: it"
    " may have been sent back all the same."
)
_FINAL = {
    Outcome.SUCCEEDED: DepositRefund.Status.SUCCEEDED,
    Outcome.PAID: DepositRefund.Status.SUCCEEDED,
    Outcome.FAILED: DepositRefund.Status.FAILED,
    Outcome.CANCELED: DepositRefund.Status.FAILED,
}


def apply(said: Statement, gateway: str) -> DepositRefund | None:
    """The refund, moved on as far as the statement leads; None: there is no such refund."""
    refund = _lock(said, gateway)
    if refund is None:
        _require_not_refused(said, gateway)
        return None
    _require_agreement(refund, said)
    status = _FINAL.get(said.outcome)
    if status is None or status == refund.status:
        return refund
    if refund.status != DepositRefund.Status.PENDING:
        raise Disagreement(f"The refund {refund.status} before; now it is said to be {status}.")
    if status == DepositRefund.Status.FAILED:
        fail(refund, said.failure_code)
    else:
        _finish(refund, status)
    return refund


def fail(refund: DepositRefund, failure_code: str) -> None:
    """The gateway will not send a pending, locked refund: its money comes back, once."""
    refund.reversal = TransactionService.return_refund(
        refund_id=refund.transaction_id,
        effect_key=f"deposit_refund_failed:{refund.pk}",
        description=f"Refund that {refund.gateway} could not send",
    )
    refund.failure_code = failure_code[:FAILURE_CODE_MAX]
    _finish(refund, DepositRefund.Status.FAILED)


def named(said: Statement) -> QuerySet[DepositRefund]:
    return DepositRefund.objects.filter(gateway_reference=said.gateway_reference)


def _lock(said: Statement, gateway: str) -> DepositRefund | None:
    """The refund that is meant, locked. Raises Disagreement if another gateway has it."""
    same_reference = named(said)
    refund = same_reference.select_for_update(no_key=True).filter(gateway=gateway).first()
    if refund is None and (other := same_reference.first()):
        raise Disagreement(f"The reference is that of a refund of the {other.gateway} gateway.")
    return refund


def _require_not_refused(said: Statement, gateway: str) -> None:
    """Raises Disagreement if it may be a refund whose money came back: then it is paid twice.

    Which one it is nobody can tell, for one that was refused or given up has no reference.
    """
    is_sent = _FINAL.get(said.outcome) == DepositRefund.Status.SUCCEEDED
    if is_sent and given_back(DepositRefund.objects.all(), said, gateway).exists():
        raise Disagreement(REFUSED_AND_SENT)


def _require_agreement(refund: DepositRefund, said: Statement) -> None:
    if (said.amount, said.currency) != (refund.amount, refund.currency):
        raise Disagreement(
            f"The gateway says {said.amount} {said.currency}, the refund {refund.amount}"
            f" {refund.currency}."
        )


def _finish(refund: DepositRefund, status: DepositRefund.Status) -> None:
    refund.status = status
    refund.next_attempt_at = None
    refund.completed_at = Now()
    refund.save(
        update_fields=["status", "reversal", "failure_code", "next_attempt_at", "completed_at"]
    )
