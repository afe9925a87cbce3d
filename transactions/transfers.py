"""Transfers: who may send what to whom. `TransactionService` is the door to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from transactions import events
from transactions.exceptions import (
    RecipientNotFound,
    RecipientUnavailable,
    SelfTransfer,
    SenderInactive,
)
from transactions.limit_use import Allowance
from transactions.models import Transaction
from transactions.posting import Posting, post
from users.models import User
from wallet import limits
from wallet.exceptions import CurrencyMismatch, InsufficientFunds, KYCRequired, WalletFrozen
from wallet.locking import LockedParties
from wallet.models import Wallet
from wallet.services import Spent


@dataclass(frozen=True)
class Transfer:
    """What a customer asks for. `amount` is in major units of `currency`, None for the wallet's.

    `recipient` is an email address in any case, or a user id in its canonical form.
    """

    recipient: str
    amount: Decimal
    currency: str | None = None
    description: str = ""
    metadata: Mapping[str, str] | None = None


def transfer(sender: User, asked: Transfer) -> Transaction:
    """Find, lock, look, write. Call it inside a database transaction."""
    source, target, spent = lock_payable(sender, asked)
    require_room(target, asked.amount)
    made = post(posting_of(asked, source, target), spent)
    events.transferred([made])
    return made


def posting_of(asked: Transfer, source: Wallet, target: Wallet) -> Posting:
    """What the ledger writes for a transfer that nothing is against."""
    return Posting(
        kind=Transaction.Type.TRANSFER,
        debit=source,
        credit=target,
        amount=asked.amount,
        currency=source.currency,
        description=asked.description,
        metadata=asked.metadata,
    )


def lock_payable(sender: User, asked: Transfer) -> tuple[Wallet, Wallet, Spent]:
    """Find, lock, look: the sender's and the recipient's wallet, locked, and nothing against it.

    Raises every refusal of a transfer but for want of room, the contract's first one first.
    Whoever calls this moves or reserves the amount, and writes `Spent`, so that it counts against
    the sender's limits.
    """
    require_sender(sender)
    parties = LockedParties(sender.pk, [asked.recipient])
    source, target = parties.source, target_of(parties, asked)
    require_sender(source.user)
    allowance = Allowance(source, parties.spent)
    require_payable(source, target, asked, allowance)
    allowance.take(asked.amount)
    return source, target, allowance.taken


def target_of(parties: LockedParties, asked: Transfer) -> Wallet:
    """Raises RecipientNotFound and SelfTransfer."""
    target = parties.find(asked.recipient)
    if target is None:
        raise RecipientNotFound
    if target is parties.source:
        raise SelfTransfer
    return target


def require_sender(payer: User) -> None:
    """Raises SenderInactive and KYCRequired."""
    if not payer.is_active:
        raise SenderInactive
    if not payer.is_kyc_approved:
        raise KYCRequired


def require_recipient(target: Wallet) -> None:
    """Raises RecipientUnavailable for one who is closed or deactivated."""
    if target.status == Wallet.Status.CLOSED or not target.user.is_active:
        raise RecipientUnavailable


def require_room(target: Wallet, amount: Decimal) -> None:
    """Raises RecipientUnavailable if the amount would pass the recipient's balance limit.

    Ask it after everything else. Its answer depends on the recipient's balance, so whoever hears
    "yes" must have moved the amount, within limits: asked any earlier, somebody without a cent
    could try one amount after another, and so read the balance.
    """
    if not limits.has_room_for(target, target.user, amount):
        raise RecipientUnavailable


def require_room_at_all(target: Wallet, amount: Decimal) -> None:
    """Raises RecipientUnavailable if the amount alone would pass the recipient's balance limit."""
    if not limits.can_ever_hold(target, target.user, amount):
        raise RecipientUnavailable


def require_payable(source: Wallet, target: Wallet, asked: Transfer, allowance: Allowance) -> None:
    """Raises RecipientUnavailable, CurrencyMismatch, WalletFrozen, InsufficientFunds and
    LimitExceeded, in that order. `require_room` comes last of all."""
    require_recipient(target)
    if not (asked.currency or source.currency) == source.currency == target.currency:
        raise CurrencyMismatch
    require_spendable(source, asked.amount, allowance)


def require_spendable(source: Wallet, amount: Decimal, allowance: Allowance) -> None:
    """Raises WalletFrozen, InsufficientFunds and LimitExceeded, in that order."""
    if source.status != Wallet.Status.ACTIVE:
        raise WalletFrozen
    if source.available < amount:
        raise InsufficientFunds
    allowance.require(amount)
