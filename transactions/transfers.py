"""Transfers: who may send what to whom. `TransactionService` is the door to them."""

from collections.abc import Iterable, Mapping
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
from transactions.limit_use import Allowance
from transactions.models import Transaction
from transactions.posting import Posting, post
from users.models import User
from wallet import limits
from wallet.exceptions import CurrencyMismatch, InsufficientFunds, KYCRequired, WalletFrozen
from wallet.models import Wallet
from wallet.services import lock_wallets


@dataclass(frozen=True)
class Transfer:
    """What a customer asks for. `amount` is in major units of `currency`.

    `recipient` is an email address in any case, or a user id in its canonical form.
    """

    recipient: str
    amount: Decimal
    currency: str
    description: str = ""
    metadata: Mapping[str, str] | None = None


def transfer(sender: User, asked: Transfer) -> Transaction:
    """Find, lock, look, write. Call it inside a database transaction."""
    source, target = lock_payable(sender, asked)
    return post(posting_of(asked, source, target))


def posting_of(asked: Transfer, source: Wallet, target: Wallet) -> Posting:
    """What the ledger writes for a transfer that nothing is against."""
    return Posting(
        kind=Transaction.Type.TRANSFER,
        debit=source,
        credit=target,
        amount=asked.amount,
        currency=asked.currency,
        description=asked.description,
        metadata=asked.metadata,
    )


def lock_payable(sender: User, asked: Transfer) -> tuple[Wallet, Wallet]:
    """Find, lock, look: the sender's and the recipient's wallet, locked, and nothing against it.

    Raises every refusal of a transfer, the contract's first one first. Counts the amount against
    the sender's limits: whoever calls this moves or reserves it.
    """
    require_sender(sender)
    directory = Directory(sender, [asked.recipient])
    target_id = directory.target_id(asked.recipient)
    locked = lock_wallets(directory.source_id, target_id)
    source, target = locked[directory.source_id], locked[target_id]
    people = owners_of(locked.values())
    payer = people[source.user_id]
    require_sender(payer)
    require_payable(source, target, payer, people[target.user_id], asked)
    allowance = Allowance.load(source, payer)
    allowance.take(asked.amount)
    allowance.write()
    return source, target


class Directory:
    """The wallets of a sender and of whoever is named as a recipient, found in one query."""

    def __init__(self, sender: User, recipients: Iterable[str]) -> None:
        names = {str(sender.pk), *(name.lower() for name in recipients)}
        user_ids = {name for name in names if _is_uuid(name)}
        # Both are indexes of one table. An alternative between two tables would read them whole.
        named = Q(pk__in=user_ids) | Q(email__in=names - user_ids)
        self._wallet_ids: dict[str, UUID] = {}
        found = User.objects.filter(named, wallet__isnull=False)
        for user_id, email, wallet_id in found.values_list("pk", "email", "wallet"):
            self._wallet_ids[str(user_id)] = self._wallet_ids[email] = wallet_id
        self.source_id = self._wallet_ids[str(sender.pk)]

    @property
    def wallet_ids(self) -> set[UUID]:
        return set(self._wallet_ids.values())

    def target_id(self, recipient: str) -> UUID:
        """Raises SelfTransfer and RecipientNotFound."""
        wallet_id = self._wallet_ids.get(recipient.lower())
        if wallet_id is None:
            raise RecipientNotFound
        if wallet_id == self.source_id:
            raise SelfTransfer
        return wallet_id


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def owners_of(locked: Iterable[Wallet]) -> dict[UUID, User]:
    """The people as they are now that their wallets are locked; a join would be read before."""
    return User.objects.in_bulk([wallet.user_id for wallet in locked])


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


def require_payable(
    source: Wallet, target: Wallet, payer: User, payee: User, asked: Transfer
) -> None:
    """Raises RecipientUnavailable, CurrencyMismatch, WalletFrozen and InsufficientFunds, in that
    order. LimitExceeded comes last of all: see `transactions.limit_use`."""
    require_recipient(payee, target, asked.amount)
    if not asked.currency == source.currency == target.currency:
        raise CurrencyMismatch
    if source.status != Wallet.Status.ACTIVE:
        raise WalletFrozen
    if source.available < asked.amount:
        raise InsufficientFunds
