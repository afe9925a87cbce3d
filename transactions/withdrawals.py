"""Withdrawals: money leaves a wallet for the outside, waits there, and arrives or comes back.

`TransactionService` is the door. Each function wants a database transaction around it. What makes a
withdrawal arrive or fail is locked by whoever calls, before the wallet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from fintech_core.database import database_time
from fintech_core.exceptions import InvalidState
from transactions.limit_use import Allowance
from transactions.models import Account, Transaction
from transactions.posting import Posting, post
from transactions.transfers import require_sender, require_spendable
from users.models import User
from wallet.exceptions import CurrencyMismatch
from wallet.locking import LockedParties, lock_wallets


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """What a customer wants to be paid out. `amount` is in major units of `currency`.

    `effect_key` names what it is for; two withdrawals cannot have the same.
    """

    amount: Decimal
    currency: str
    effect_key: str
    description: str = ""
    metadata: Mapping[str, str] | None = None


def withdraw(owner: User, asked: Withdrawal) -> Transaction:
    """Find, lock, look, write: the money goes to `payout_clearing` at once, and waits there."""
    require_sender(owner)
    parties = LockedParties(owner.pk, [])
    source = parties.source
    require_sender(source.user)
    if asked.currency != source.currency:
        raise CurrencyMismatch
    allowance = Allowance(source, parties.spent)
    require_spendable(source, asked.amount, allowance)
    allowance.take(asked.amount)
    return post(
        Posting(
            kind=Transaction.Type.WITHDRAWAL,
            status=Transaction.Status.PENDING,
            debit=source,
            credit=Account.PAYOUT_CLEARING,
            amount=asked.amount,
            currency=source.currency,
            description=asked.description,
            metadata=asked.metadata,
            effect_key=asked.effect_key,
        ),
        allowance.taken,
    )


def complete(withdrawal_id: UUID) -> Transaction:
    """The money has arrived."""
    withdrawal = _lock_pending(withdrawal_id)
    withdrawal.status = Transaction.Status.COMPLETED
    # Clocks step back; nothing is completed before it began.
    withdrawal.completed_at = max(database_time(), withdrawal.created_at)
    withdrawal.save(update_fields=["status", "completed_at"])
    return withdrawal


def fail(withdrawal_id: UUID, wallet_id: UUID, description: str) -> Transaction:
    """The money comes back to its wallet, frozen or not; the reversal that brings it.

    No closed wallet is met: none can be closed while a withdrawal of its owner is pending.
    """
    withdrawal = _lock_pending(withdrawal_id)
    wallet = lock_wallets(wallet_id)[wallet_id]
    reversal = post(
        Posting(
            kind=Transaction.Type.REVERSAL,
            debit=Account.PAYOUT_CLEARING,
            credit=wallet,
            amount=withdrawal.amount,
            currency=withdrawal.currency,
            description=description,
            parent=withdrawal,
            effect_key=f"reversal:{withdrawal.pk}",
        )
    )
    withdrawal.status = Transaction.Status.FAILED
    withdrawal.save(update_fields=["status"])
    return reversal


def _lock_pending(withdrawal_id: UUID) -> Transaction:
    """Raises InvalidState for one that is settled."""
    withdrawal = Transaction.objects.select_for_update(no_key=True).get(pk=withdrawal_id)
    if withdrawal.status != Transaction.Status.PENDING:
        raise InvalidState(f"The withdrawal is {withdrawal.status} already.")
    return withdrawal
