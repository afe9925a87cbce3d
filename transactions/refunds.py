"""Refunds: whoever received a payment gives it back, whole or in parts, and never more than it.

`TransactionService` is the door. The original is locked first, then the wallets in id order.
"""

from decimal import Decimal
from uuid import UUID

from fintech_core.exceptions import InvalidState
from fintech_core.money import format_amount
from transactions import events, queries
from transactions.callers import is_staff_still
from transactions.exceptions import (
    AmountExceedsRemaining,
    NotAllowed,
    NotFound,
    RecipientUnavailable,
)
from transactions.models import StaffRefund, Transaction, TransactionLedger
from transactions.posting import Posting, post
from users.models import User
from wallet.exceptions import InsufficientFunds, WalletFrozen
from wallet.locking import lock_wallets
from wallet.models import Wallet

_DEBIT = TransactionLedger.EntryType.DEBIT
_CREDIT = TransactionLedger.EntryType.CREDIT
# What one customer paid another. Money from or to the outside goes back by the gateway.
REFUNDABLE = (Transaction.Type.TRANSFER, Transaction.Type.CAPTURE)


def refund(caller: User, transaction_id: UUID, amount: Decimal | None, reason: str) -> Transaction:
    """Send `amount` (the rest, if None) of a payment back the way it came.

    Staff who do it in the recipient's place are put on record. Call it inside a database
    transaction.
    """
    original = _lock_original(caller, transaction_id)
    taken = _amount(original, amount)
    source, target = _lock_wallets(original)
    _require_repayable(source, target, taken)
    made = post(
        Posting(
            kind=Transaction.Type.REFUND,
            debit=source,
            credit=target,
            amount=taken,
            currency=original.currency,
            description=reason,
            parent=original,
        )
    )
    original.refunded_amount += taken
    original.save(update_fields=["refunded_amount"])
    if caller.pk != original.to_user_id:
        StaffRefund.objects.create(transaction=made, staff=caller)
    events.refunded(made)
    return made


def _lock_original(caller: User, transaction_id: UUID) -> Transaction:
    """Raises NotFound, NotAllowed and InvalidState."""
    is_staff = is_staff_still(caller)
    visible = Transaction.objects.all() if is_staff else queries.transactions_of(caller.pk)
    original = (
        visible.select_for_update(no_key=True, of=("self",)).filter(pk=transaction_id).first()
    )
    if original is None:
        raise NotFound
    if caller.pk == original.from_user_id:
        raise NotAllowed("Only the recipient, or staff who are not the payer, can refund this.")
    if original.type not in REFUNDABLE:
        raise InvalidState(f"A {original.type} cannot be refunded.")
    return original


def _amount(original: Transaction, asked: Decimal | None) -> Decimal:
    """What to refund; at least a cent, at most the rest."""
    rest = original.amount - original.refunded_amount
    amount = rest if asked is None else asked
    if not 0 < amount <= rest:
        remaining = format_amount(rest)
        raise AmountExceedsRemaining(
            f"Of this transaction {remaining} can still be refunded.", remaining=remaining
        )
    return amount


def _lock_wallets(original: Transaction) -> tuple[Wallet, Wallet]:
    """The wallet that the payment went to, and the one that it came from."""
    sides = original.entries.filter(wallet__isnull=False).values_list("entry_type", "wallet_id")
    wallet_ids = {entry_type: wallet_id for entry_type, wallet_id in sides if wallet_id}
    source_id, target_id = wallet_ids[_CREDIT], wallet_ids[_DEBIT]
    locked = lock_wallets(source_id, target_id)
    return locked[source_id], locked[target_id]


def _require_repayable(source: Wallet, target: Wallet, amount: Decimal) -> None:
    """The payer's balance limit is no reason to keep their money from them."""
    if target.status == Wallet.Status.CLOSED or not target.user.is_active:
        raise RecipientUnavailable("The original payer cannot receive money any more.")
    if source.status != Wallet.Status.ACTIVE:
        raise WalletFrozen("The wallet that received the payment is frozen or closed.")
    if source.available < amount:
        raise InsufficientFunds
