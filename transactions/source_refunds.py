"""Refunds of deposits, back to where the money came from. `TransactionService` is the door.

The deposit is locked first, then the wallet. What the gateway then says is the payments' business;
here the money leaves the wallet, and comes back into it if it must.
"""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet, Sum

from fintech_core.exceptions import InvalidState
from fintech_core.money import format_amount
from transactions import events
from transactions.exceptions import AmountExceedsRemaining, NotFound
from transactions.models import Account, Transaction, TransactionLedger
from transactions.posting import Posting, post
from wallet.exceptions import InsufficientFunds, WalletFrozen
from wallet.locking import lock_wallets
from wallet.models import Wallet

_ZERO = Decimal("0.00")


@dataclass(frozen=True, kw_only=True)
class SourceRefund:
    """`amount`, in major units of the deposit's currency; None: all that is left of it. The
    customer reads the `description` on their statement."""

    deposit_id: UUID
    amount: Decimal | None
    effect_key: str
    description: str


def refund(asked: SourceRefund) -> Transaction:
    """Wallet → gateway_clearing. Call it inside a database transaction."""
    deposit = _lock_deposit(asked.deposit_id)
    out = _on_its_way_back(deposit)
    amount = _amount(deposit.amount - out, asked.amount)
    wallet = _lock_wallet_of(deposit)
    _require_takeable(wallet, amount)
    made = post(
        Posting(
            kind=Transaction.Type.REFUND,
            debit=wallet,
            credit=Account.GATEWAY_CLEARING,
            amount=amount,
            currency=deposit.currency,
            description=asked.description,
            parent=deposit,
            effect_key=asked.effect_key,
        )
    )
    deposit.refunded_amount = max(deposit.refunded_amount, out + amount)
    deposit.save(update_fields=["refunded_amount"])
    events.refunded(made)
    return made


def bring_back(refund_id: UUID, effect_key: str, description: str) -> Transaction:
    """Gateway_clearing → wallet. It is not closed: none is while money of its deposits is out."""
    undone = Transaction.objects.get(pk=refund_id)
    wallet = _lock_wallet_of(undone)
    return post(
        Posting(
            kind=Transaction.Type.REVERSAL,
            debit=Account.GATEWAY_CLEARING,
            credit=wallet,
            amount=undone.amount,
            currency=undone.currency,
            description=description,
            parent=undone,
            effect_key=effect_key,
        )
    )


def _lock_deposit(deposit_id: UUID) -> Transaction:
    rows = Transaction.objects.select_for_update(no_key=True, of=("self",))
    deposit = rows.filter(pk=deposit_id).first()
    if deposit is None:
        raise NotFound
    if deposit.type != Transaction.Type.DEPOSIT or deposit.to_user_id is None:
        raise InvalidState("Only a deposit that is in a wallet goes back to its source.")
    return deposit


def _on_its_way_back(deposit: Transaction) -> Decimal:
    """What was refunded and has not come back. Nobody adds to it while the deposit is locked."""
    refunds = deposit.children.filter(type=Transaction.Type.REFUND)
    back = Transaction.objects.filter(parent__in=refunds, type=Transaction.Type.REVERSAL)
    return _sum(refunds) - _sum(back)


def _sum(rows: QuerySet[Transaction]) -> Decimal:
    return rows.aggregate(sum=Sum("amount"))["sum"] or _ZERO


def _amount(rest: Decimal, asked: Decimal | None) -> Decimal:
    """What to refund; at least a cent, at most the rest."""
    amount = rest if asked is None else asked
    if not 0 < amount <= rest:
        remaining = format_amount(rest)
        raise AmountExceedsRemaining(
            f"Of this deposit {remaining} can still be refunded.", remaining=remaining
        )
    return amount


def _lock_wallet_of(made: Transaction) -> Wallet:
    entries = TransactionLedger.objects.filter(transaction=made, wallet__isnull=False)
    wallet_id = entries.values_list("wallet_id", flat=True).get()
    assert wallet_id is not None  # noqa: S101 - filtered
    return lock_wallets(wallet_id)[wallet_id]


def _require_takeable(wallet: Wallet, amount: Decimal) -> None:
    """Staff unfreeze a wallet before they take money from it, as for adjustments."""
    if wallet.status != Wallet.Status.ACTIVE:
        raise WalletFrozen("The wallet is frozen or closed: unfreeze it before money leaves it.")
    if wallet.available < amount:
        raise InsufficientFunds(
            f"Only {format_amount(wallet.available)} {wallet.currency} is available in the wallet."
        )
