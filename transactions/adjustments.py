"""Adjustments: one member of staff proposes, another decides. `TransactionService` is the door."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, transaction
from rest_framework.exceptions import ErrorDetail, ValidationError

from fintech_core.database import database_time, violated_constraint
from fintech_core.exceptions import InvalidState
from fintech_core.money import MAX_AMOUNT, AmountInvalid, format_amount, parse_amount
from transactions.exceptions import NotFound
from transactions.models import Account, Adjustment, Transaction, TransactionLedger
from transactions.posting import Posting, post
from users.exceptions import NotOnOneself, NotPermitted
from users.models import User
from users.services import require_staff
from wallet.exceptions import InsufficientFunds, WalletClosed, WalletFrozen
from wallet.locking import lock_wallets
from wallet.models import Wallet

PROPOSE_PERMISSION = "transactions.propose_adjustment"
APPROVE_PERMISSION = "transactions.approve_adjustment"
_CREDIT = TransactionLedger.EntryType.CREDIT
_FORM_IS_NEW = "transactions_adjustment_form_id_key"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """`amount`, in major units of the wallet's currency, to or from the wallet; a credit raises
    it. The customer reads the `reason` on their statement. Of two with the same `form_id` the
    second is refused."""

    wallet_id: UUID
    direction: TransactionLedger.EntryType
    amount: Decimal
    reason: str
    form_id: UUID | None = None


def propose(proposer: User, proposal: Proposal) -> Adjustment:
    """Write the proposal down. Nothing moves."""
    require_staff(proposer, PROPOSE_PERMISSION)
    wallet = Wallet.objects.filter(pk=proposal.wallet_id).first()
    if wallet is None:
        raise NotFound("There is no such wallet.")
    _require_stranger(proposer, wallet)
    _require_open(wallet)
    try:
        with transaction.atomic():
            return _write_down(proposer, proposal, wallet)
    except IntegrityError as exc:
        if violated_constraint(exc) != _FORM_IS_NEW:
            raise
        raise InvalidState("This was proposed already. Open the form anew for another.") from exc


def _write_down(proposer: User, proposal: Proposal, wallet: Wallet) -> Adjustment:
    return Adjustment.objects.create(
        wallet=wallet,
        direction=TransactionLedger.EntryType(proposal.direction),
        amount=_amount(proposal.amount),
        currency=wallet.currency,
        reason=_written("reason", proposal.reason),
        proposed_by=proposer,
        form_id=proposal.form_id,
    )


def approve(approver: User, adjustment_id: UUID) -> Adjustment:
    """Find, lock, look, write: the proposal first, then the wallet."""
    require_staff(approver, APPROVE_PERMISSION)
    adjustment = _lock_proposed(adjustment_id)
    if adjustment.proposed_by_id == approver.pk:
        raise NotOnOneself("Somebody else has to approve what you proposed.")
    _require_proposer(adjustment.proposed_by)
    wallet = lock_wallets(adjustment.wallet_id)[adjustment.wallet_id]
    _require_stranger(approver, wallet)
    _require_possible(adjustment, wallet)
    made = post(_posting(adjustment, wallet))
    adjustment.transaction = made
    _decide(adjustment, Adjustment.Status.APPROVED, approver)
    return adjustment


def reject(decider: User, adjustment_id: UUID, reason: str) -> Adjustment:
    """Nothing moves. Whoever proposed it may withdraw it in this way, too."""
    adjustment = _lock_proposed(adjustment_id)
    _require_decider(decider, is_own=adjustment.proposed_by_id == decider.pk)
    _require_stranger(decider, adjustment.wallet)
    adjustment.rejection_reason = _written("reason", reason)
    _decide(adjustment, Adjustment.Status.REJECTED, decider)
    return adjustment


def _lock_proposed(adjustment_id: UUID) -> Adjustment:
    rows = Adjustment.objects.select_for_update(no_key=True)
    adjustment = rows.filter(pk=adjustment_id).first()
    if adjustment is None:
        raise NotFound("There is no such adjustment.")
    if adjustment.status != Adjustment.Status.PROPOSED:
        raise InvalidState(f"The adjustment is {adjustment.status} already.")
    return adjustment


def _require_proposer(proposer: User) -> None:
    """Four eyes, all of which may still look."""
    try:
        require_staff(proposer, PROPOSE_PERMISSION)
    except NotPermitted as exc:
        raise InvalidState(
            "Whoever proposed this may propose no more. Reject it, and propose it again."
        ) from exc


def _require_decider(decider: User, *, is_own: bool) -> None:
    """Either permission is enough to withdraw one's own."""
    try:
        require_staff(decider, APPROVE_PERMISSION)
    except NotPermitted:
        if not is_own:
            raise
        require_staff(decider, PROPOSE_PERMISSION)


def _require_stranger(staff: User, wallet: Wallet) -> None:
    if wallet.user_id == staff.pk:
        raise NotOnOneself("Nobody adjusts their own wallet.")


def _require_open(wallet: Wallet) -> None:
    if wallet.status == Wallet.Status.CLOSED:
        raise WalletClosed("The wallet is closed: no money moves in it any more.")


def _require_possible(adjustment: Adjustment, wallet: Wallet) -> None:
    """Raises WalletClosed, for a credit InvalidState if no wallet can hold so much, and for a debit
    WalletFrozen and InsufficientFunds."""
    _require_open(wallet)
    if adjustment.direction == _CREDIT:
        if wallet.balance + adjustment.amount > MAX_AMOUNT:
            raise InvalidState("No wallet can hold as much as this one would.")
        return
    if wallet.status != Wallet.Status.ACTIVE:
        raise WalletFrozen("The wallet is frozen: unfreeze it before money is taken from it.")
    if wallet.available < adjustment.amount:
        available = f"{format_amount(wallet.available)} {wallet.currency}"
        raise InsufficientFunds(f"Only {available} is available in the wallet.")


def _posting(adjustment: Adjustment, wallet: Wallet) -> Posting:
    arrives = adjustment.direction == _CREDIT
    return Posting(
        kind=Transaction.Type.ADJUSTMENT,
        debit=Account.ADJUSTMENTS if arrives else wallet,
        credit=wallet if arrives else Account.ADJUSTMENTS,
        amount=adjustment.amount,
        currency=adjustment.currency,
        description=adjustment.reason,
        effect_key=f"adjustment:{adjustment.pk}",
    )


def _decide(adjustment: Adjustment, status: Adjustment.Status, decider: User) -> None:
    adjustment.status, adjustment.decided_by = status, decider
    made = adjustment.transaction
    adjustment.decided_at = made.created_at if made else database_time()
    adjustment.save(
        update_fields=["status", "decided_by", "decided_at", "transaction", "rejection_reason"]
    )


def _amount(amount: Decimal) -> Decimal:
    try:
        return parse_amount(amount)
    except AmountInvalid as refusal:
        raise ValidationError({"amount": [ErrorDetail(str(refusal), code="invalid")]}) from refusal


def _written(field: str, text: str) -> str:
    if not (text := text.strip()):
        raise ValidationError({field: [ErrorDetail("Say why.", code="blank")]})
    return text
