"""`TransactionService`: the only door to money.

Every movement goes find → lock → look → write: read what names the rows, lock them in a fixed
order, decide on what the locked rows say, write, commit.
"""

from collections.abc import Mapping
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from fintech_core.idempotency import Answer, IdempotentCall
from transactions import transfers
from transactions.models import Account, Transaction
from transactions.posting import Posting, post
from transactions.transfers import Transfer
from users.models import User
from wallet.exceptions import CurrencyMismatch, WalletClosed
from wallet.models import Wallet
from wallet.services import lock_wallets

__all__ = ["TransactionService", "Transfer"]


class TransactionService:
    """Moves money. Callers outside this app never write a balance, an entry or a transaction."""

    @staticmethod
    def transfer_money(*, sender: User, transfer: Transfer, idempotency: IdempotentCall) -> Answer:
        """Move money from the sender's wallet to the recipient's, once per idempotency key.

        The first that applies is raised, or, with status 422, remembered as the answer:
        KYCRequired, SelfTransfer, RecipientNotFound, RecipientUnavailable, CurrencyMismatch,
        WalletFrozen, InsufficientFunds, LimitExceeded. A refusal writes nothing but its memory.
        """
        return idempotency.once(lambda: transfers.transfer(sender, transfer))

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
            _require_same(earlier, wallet, amount, currency)
            return earlier
        if wallet.currency != currency:
            raise CurrencyMismatch
        if wallet.status == Wallet.Status.CLOSED:
            raise WalletClosed
        return post(
            Posting(
                kind=Transaction.Type.DEPOSIT,
                debit=Account.GATEWAY_CLEARING,
                credit=wallet,
                amount=amount,
                currency=currency,
                description=description,
                metadata=metadata,
                effect_key=effect_key,
            )
        )


def _require_same(earlier: Transaction, wallet: Wallet, amount: Decimal, currency: str) -> None:
    """One cause, one effect: a caller who says something else under the same key has a bug."""
    said = (wallet.user_id, amount, currency)
    if (earlier.to_user_id, earlier.amount, earlier.currency) != said:
        raise ValueError(f"{earlier.effect_key} already caused {earlier.reference_id}")
