"""`TransactionService`: the only door to money.

Every movement goes find → lock → look → write: read what names the rows, lock them in a fixed
order, decide on what the locked rows say, write, commit.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q
from uuid_utils.compat import uuid7

from fintech_core.idempotency import Answer, IdempotentCall
from transactions.exceptions import (
    RecipientNotFound,
    RecipientUnavailable,
    SelfTransfer,
    SenderInactive,
)
from transactions.models import Account, Transaction, TransactionLedger
from users.models import User
from wallet import limits
from wallet.exceptions import (
    CurrencyMismatch,
    InsufficientFunds,
    KYCRequired,
    WalletClosed,
    WalletFrozen,
)
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


class TransactionService:
    """Moves money. Callers outside this class never write a balance, an entry or a transaction."""

    @staticmethod
    def transfer_money(*, sender: User, transfer: Transfer, idempotency: IdempotentCall) -> Answer:
        """Move money from the sender's wallet to the recipient's, once per idempotency key.

        The first that applies is raised, or, with status 422, remembered as the answer:
        KYCRequired, SelfTransfer, RecipientNotFound, RecipientUnavailable, CurrencyMismatch,
        WalletFrozen, InsufficientFunds, LimitExceeded. A refusal writes nothing but its memory.
        """
        return idempotency.once(lambda: _transfer(sender, transfer))

    @staticmethod
    @transaction.atomic
    def add_money(
        *,
        wallet_id: UUID,
        amount: Decimal,
        currency: str,
        effect_key: str,
        description: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Transaction:
        """Credit money that arrived from outside, once per `effect_key`.

        `amount` is in major units. The other side is the `gateway_clearing` account. Limits do
        not apply, for the money is there; a frozen wallet is credited too. A second call with the
        same key returns the first transaction. Raises CurrencyMismatch and WalletClosed.
        """
        wallet = lock_wallets(wallet_id)[wallet_id]
        # Under the wallet's lock a twin has either committed or not begun.
        if earlier := Transaction.objects.filter(effect_key=effect_key).first():
            return earlier
        if wallet.currency != currency:
            raise CurrencyMismatch
        if wallet.status == Wallet.Status.CLOSED:
            raise WalletClosed
        return _post(
            kind=Transaction.Type.DEPOSIT,
            debit=Account.GATEWAY_CLEARING,
            credit=wallet,
            amount=amount,
            currency=currency,
            description=description,
            metadata=metadata,
            effect_key=effect_key,
        )


def _transfer(sender: User, transfer: Transfer) -> Transaction:
    source_id, target_id = _find_wallets(sender, transfer.recipient)
    locked = lock_wallets(source_id, target_id)
    source, target = locked[source_id], locked[target_id]
    payer, payee = _current_users(source.user_id, target.user_id)
    _require_sender(payer)
    _require_recipient(payee, target, transfer.amount)
    _require_payable(source, payer, transfer)
    return _post(
        kind=Transaction.Type.TRANSFER,
        debit=source,
        credit=target,
        amount=transfer.amount,
        currency=transfer.currency,
        description=transfer.description,
        metadata=transfer.metadata,
    )


def _find_wallets(sender: User, recipient: str) -> tuple[UUID, UUID]:
    """The ids of the sender's and the recipient's wallets; refusals in the contract's order."""
    _require_sender(sender)
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


def _require_sender(payer: User) -> None:
    if not payer.is_active:
        raise SenderInactive
    if not payer.is_kyc_approved:
        raise KYCRequired


def _require_recipient(payee: User, target: Wallet, amount: Decimal) -> None:
    """One refusal for every reason: the sender learns nothing about the recipient's affairs."""
    closed = target.status == Wallet.Status.CLOSED
    if closed or not payee.is_active or not limits.has_room_for(target, payee, amount):
        raise RecipientUnavailable


def _require_payable(source: Wallet, payer: User, transfer: Transfer) -> None:
    if transfer.currency != source.currency:
        raise CurrencyMismatch
    if source.status != Wallet.Status.ACTIVE:
        raise WalletFrozen
    if source.available < transfer.amount:
        raise InsufficientFunds
    limits.require_transfer_allowed(payer, transfer.amount)


def _post(
    *,
    kind: Transaction.Type,
    debit: Wallet | Account,
    credit: Wallet | Account,
    amount: Decimal,
    currency: str,
    description: str = "",
    metadata: Mapping[str, str] | None = None,
    effect_key: str | None = None,
) -> Transaction:
    """Write one completed transaction: its row, its two entries, and the balances of its wallets.

    The wallets are locked by the caller.
    """
    moment = _ledger_time(side for side in (debit, credit) if isinstance(side, Wallet))
    made_id = uuid7()
    made = Transaction.objects.create(
        id=made_id,
        reference_id=_reference(made_id),
        type=kind,
        status=Transaction.Status.COMPLETED,
        amount=amount,
        currency=currency,
        from_user_id=debit.user_id if isinstance(debit, Wallet) else None,
        to_user_id=credit.user_id if isinstance(credit, Wallet) else None,
        description=description,
        metadata=dict(metadata or {}),
        effect_key=effect_key,
        created_at=moment,
        completed_at=moment,
    )
    _post_entry(made, debit, TransactionLedger.EntryType.DEBIT)
    _post_entry(made, credit, TransactionLedger.EntryType.CREDIT)
    return made


def _post_entry(
    made: Transaction, side: Wallet | Account, entry_type: TransactionLedger.EntryType
) -> None:
    entry = TransactionLedger(
        transaction=made,
        account=side if isinstance(side, Account) else Account.WALLET,
        entry_type=entry_type,
        amount=made.amount,
        currency=made.currency,
        created_at=made.created_at,
    )
    if isinstance(side, Wallet):
        move = side.debit if entry_type == TransactionLedger.EntryType.DEBIT else side.credit
        move(made.amount, at=made.created_at)
        entry.wallet, entry.sequence, entry.balance_after = side, side.entry_count, side.balance
    entry.save(force_insert=True)


def _ledger_time(wallets: Iterable[Wallet]) -> datetime:
    """The database's clock, read under the locks, never before a wallet's previous entry."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return max([now, *(wallet.last_entry_at for wallet in wallets if wallet.last_entry_at)])


def _reference(transaction_id: UUID) -> str:
    """A short name to read over the phone: the id in base 32, so it is as unique."""
    return "TX-" + base64.b32encode(transaction_id.bytes).decode().rstrip("=")
