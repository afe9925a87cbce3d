"""Transfers: who may send what to whom. `TransactionService` is the door to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import Q

from transactions.exceptions import (
    RecipientNotFound,
    RecipientUnavailable,
    SelfTransfer,
    SenderInactive,
)
from transactions.models import Transaction
from transactions.posting import Posting, post
from users.models import User
from wallet import limits
from wallet.exceptions import CurrencyMismatch, InsufficientFunds, KYCRequired, WalletFrozen
from wallet.models import Wallet
from wallet.services import lock_wallets


@dataclass(frozen=True)
class Transfer:
    """What a customer asks for. `recipient` is an email address or a user id; `amount` is in major
    units of `currency`."""

    recipient: str
    amount: Decimal
    currency: str
    description: str = ""
    metadata: Mapping[str, str] | None = None


def transfer(sender: User, asked: Transfer) -> Transaction:
    """Find, lock, look, write. Call it inside a database transaction."""
    source_id, target_id = _find_wallets(sender, asked.recipient)
    locked = lock_wallets(source_id, target_id)
    source, target = locked[source_id], locked[target_id]
    payer, payee = _current_users(source.user_id, target.user_id)
    require_sender(payer)
    require_recipient(payee, target, asked.amount)
    require_payable(source, target, payer, asked)
    return post(
        Posting(
            kind=Transaction.Type.TRANSFER,
            debit=source,
            credit=target,
            amount=asked.amount,
            currency=asked.currency,
            description=asked.description,
            metadata=asked.metadata,
        )
    )


def _find_wallets(sender: User, recipient: str) -> tuple[UUID, UUID]:
    """The ids of the sender's and the recipient's wallets; refusals in the contract's order."""
    require_sender(sender)
    by_id_or_email = Q(user_id=recipient) if _is_uuid(recipient) else Q(user__email=recipient)
    found = Wallet.objects.filter(by_id_or_email | Q(user_id=sender.pk)).values_list(
        "user_id", "pk"
    )
    wallets = dict(found)
    source = wallets.pop(sender.pk)
    if not wallets:
        names_sender = recipient in (str(sender.pk), sender.email)
        raise SelfTransfer if names_sender else RecipientNotFound
    return source, next(iter(wallets.values()))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _current_users(payer_id: UUID, payee_id: UUID) -> tuple[User, User]:
    """Both people as they are now that the wallets are locked; a join would be read before."""
    users = User.objects.in_bulk([payer_id, payee_id])
    return users[payer_id], users[payee_id]


def require_sender(payer: User) -> None:
    """Raises SenderInactive and KYCRequired."""
    if not payer.is_active:
        raise SenderInactive
    if not payer.is_kyc_approved:
        raise KYCRequired


def require_recipient(payee: User, target: Wallet, amount: Decimal) -> None:
    """One refusal for every reason: the sender learns nothing about the recipient's affairs."""
    closed = target.status == Wallet.Status.CLOSED
    if closed or not payee.is_active or not limits.has_room_for(target, payee, amount):
        raise RecipientUnavailable


def require_payable(source: Wallet, target: Wallet, payer: User, asked: Transfer) -> None:
    """Raises CurrencyMismatch, WalletFrozen, InsufficientFunds and LimitExceeded, in that order."""
    if not asked.currency == source.currency == target.currency:
        raise CurrencyMismatch
    if source.status != Wallet.Status.ACTIVE:
        raise WalletFrozen
    if source.available < asked.amount:
        raise InsufficientFunds
    limits.require_transfer_allowed(payer, asked.amount)
