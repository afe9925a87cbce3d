"""Deposits: money that arrived from outside. `TransactionService` is the door to them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from fintech_core.database import query
from transactions import events
from transactions.models import Account, Transaction
from transactions.posting import Posting, post, post_all
from wallet.exceptions import CurrencyMismatch, WalletClosed
from wallet.locking import lock_wallets
from wallet.models import Wallet


@dataclass(frozen=True, kw_only=True)
class Deposit:
    """`amount` is in major units; `effect_key` names its cause, which has one effect."""

    wallet_id: UUID
    amount: Decimal
    currency: str
    effect_key: str
    description: str = ""
    metadata: Mapping[str, str] | None = None


def add(deposit: Deposit) -> Transaction:
    """Call it inside a database transaction. Raises CurrencyMismatch and WalletClosed."""
    wallet = lock_wallets(deposit.wallet_id)[deposit.wallet_id]
    # Under the wallet's lock a twin has either committed or not begun.
    if earlier := Transaction.objects.filter(effect_key=deposit.effect_key).first():
        _require_same(earlier, wallet, deposit)
        return earlier
    if wallet.currency != deposit.currency:
        raise CurrencyMismatch
    if wallet.status == Wallet.Status.CLOSED:
        raise WalletClosed
    made = post(_posting(deposit, wallet))
    events.deposited(made)
    return made


def add_all(deposits: Iterable[Deposit]) -> dict[str, Transaction]:
    """What nothing is against, by its effect key; whatever `add` would refuse, or has done already,
    is left out. Call it inside a database transaction."""
    asked = list(deposits)
    wallets = lock_wallets(*{deposit.wallet_id for deposit in asked})
    done = {key for (key,) in query(_DONE, keys=[deposit.effect_key for deposit in asked])}
    plain = [
        deposit
        for deposit in asked
        if deposit.effect_key not in done and _is_welcome(deposit, wallets[deposit.wallet_id])
    ]
    made = post_all([_posting(deposit, wallets[deposit.wallet_id]) for deposit in plain])
    events.deposited(*made)
    return {deposit.effect_key: each for deposit, each in zip(plain, made, strict=True)}


_DONE = "SELECT effect_key FROM transactions_transaction WHERE effect_key = ANY (%(keys)s)"


def _is_welcome(deposit: Deposit, wallet: Wallet) -> bool:
    return wallet.currency == deposit.currency and wallet.status != Wallet.Status.CLOSED


def _posting(deposit: Deposit, wallet: Wallet) -> Posting:
    return Posting(
        kind=Transaction.Type.DEPOSIT,
        debit=Account.GATEWAY_CLEARING,
        credit=wallet,
        amount=deposit.amount,
        currency=deposit.currency,
        description=deposit.description,
        metadata=deposit.metadata,
        effect_key=deposit.effect_key,
    )


def _require_same(earlier: Transaction, wallet: Wallet, deposit: Deposit) -> None:
    """One cause, one effect: a caller who says something else under the same key has a bug."""
    said = (wallet.user_id, deposit.amount, deposit.currency)
    if (earlier.to_user_id, earlier.amount, earlier.currency) != said:
        raise ValueError(f"{earlier.effect_key} already caused {earlier.reference_id}")
