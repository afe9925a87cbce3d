"""`TransactionService`: the only door to money.

Every movement goes find → lock → look → write: read what names the rows, lock them in a fixed
order, decide on what the locked rows say, write, commit.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from fintech_core.database import retry_on_conflict
from fintech_core.idempotency import Answer, IdempotentCall
from transactions import (
    adjustments,
    batches,
    deposits,
    holds,
    refunds,
    source_refunds,
    transfers,
    withdrawals,
)
from transactions.adjustments import Proposal
from transactions.batches import Batch
from transactions.deposits import Deposit
from transactions.holds import Reservation
from transactions.models import Account, Adjustment, Hold, Transaction
from transactions.posting import Posting, post
from transactions.source_refunds import SourceRefund
from transactions.transfers import Transfer
from transactions.withdrawals import Withdrawal
from users.models import User

__all__ = [
    "Batch",
    "Deposit",
    "Proposal",
    "Reservation",
    "SourceRefund",
    "TransactionService",
    "Transfer",
    "Withdrawal",
]

EXPIRY_SECONDS_MAX = 12.0  # less than between two runs in CELERY_BEAT_SCHEDULE


class TransactionService:
    """Moves money. Callers outside this app never write a balance, an entry or a transaction."""

    @staticmethod
    def transfer_money(*, sender: User, transfer: Transfer, idempotency: IdempotentCall) -> Answer:
        """Move money from the sender's wallet to the recipient's, once per idempotency key.

        The first that applies is raised, or, with status 422, remembered as the answer:
        KYCRequired, SelfTransfer, RecipientNotFound, RecipientUnavailable, CurrencyMismatch,
        WalletFrozen, InsufficientFunds, LimitExceeded. RecipientUnavailable for want of room is
        asked last of all. A refusal writes nothing but its memory.
        """
        return idempotency.once(lambda: transfers.transfer(sender, transfer))

    @staticmethod
    def transfer_batch(*, sender: User, batch: Batch, idempotency: IdempotentCall) -> Answer:
        """Make up to a thousand transfers, once per idempotency key, in one database transaction.

        Each leg is a transaction of its own, and is refused as a transfer is, in the light of the
        legs before it. Atomic: the first refusal is the answer, with the leg's `index`, and nothing
        moves. Independent: the answer says of each leg what became of it. Raises KYCRequired.
        """
        return idempotency.once(lambda: batches.transfer_batch(sender, batch))

    @staticmethod
    def create_hold(
        *, payer: User, reservation: Reservation, idempotency: IdempotentCall
    ) -> Answer:
        """Reserve money for the recipient, once per idempotency key; it leaves `available` at once.

        Refused as a transfer is, in the same order: KYCRequired, SelfTransfer, RecipientNotFound,
        RecipientUnavailable, CurrencyMismatch, WalletFrozen, InsufficientFunds, LimitExceeded, and
        RecipientUnavailable for an amount that by itself is above the recipient's balance limit.
        """
        return idempotency.once(lambda: holds.create(payer, reservation))

    @staticmethod
    def capture_hold(
        *, caller: User, hold_id: UUID, amount: Decimal | None, idempotency: IdempotentCall
    ) -> Answer:
        """Let the recipient take `amount` (None: all) of a hold, once; the rest is released.

        Raises NotFound (not the caller's), NotAllowed (the payer) and InvalidState (resolved, or
        due to expire, whether or not a job has run). Remembered: AmountExceedsRemaining,
        RecipientUnavailable (closed, deactivated, or no room below the balance limit) and
        WalletFrozen (the payer's). The payer's limits were asked when the money was reserved.
        """
        with holds.freed_if_late(hold_id):
            return idempotency.once(lambda: holds.capture(caller, hold_id, amount))

    @staticmethod
    def void_hold(*, caller: User, hold_id: UUID) -> Hold:
        """Release a hold, as its recipient or as staff; never as the payer, staff or not.

        It says by whom. Raises NotFound, NotAllowed, and InvalidState for a hold that is resolved
        or has expired.
        """
        with holds.freed_if_late(hold_id):
            return retry_on_conflict(lambda: transaction.atomic(holds.void)(caller, hold_id))

    @staticmethod
    def expire_holds() -> int:
        """Release the holds that are due; how many. Safe to run twice, and at once with anything.

        Captures look at the time themselves, so nothing but the payer's wait depends on it.
        """
        return holds.expire_due(seconds_max=EXPIRY_SECONDS_MAX)

    @staticmethod
    def refund(
        *,
        caller: User,
        transaction_id: UUID,
        amount: Decimal | None,
        reason: str,
        idempotency: IdempotentCall,
    ) -> Answer:
        """Send `amount` (None: the rest) of a transfer or capture back to its payer, once per key.

        For its recipient, or staff, who are put on record; it takes the recipient's money either
        way. Raises NotFound,
        NotAllowed (the original payer, staff or not) and InvalidState (any other type). Remembered:
        AmountExceedsRemaining, RecipientUnavailable (the payer is closed or deactivated),
        WalletFrozen and InsufficientFunds. Neither KYC nor limits stand in its way.
        """
        return idempotency.once(lambda: refunds.refund(caller, transaction_id, amount, reason))

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
        return deposits.add(
            Deposit(
                wallet_id=wallet_id,
                amount=amount,
                currency=currency,
                effect_key=effect_key,
                description=description,
                metadata=metadata,
            )
        )

    @staticmethod
    @transaction.atomic(savepoint=False)  # if it fails, so does what it is part of
    def add_money_to_many(arrived: Iterable[Deposit]) -> dict[str, Transaction]:
        """Credit many deposits at once: the transactions by their effect keys.

        Whatever `add_money` would refuse, or has done before, is left out, and has had no effect.
        """
        return deposits.add_all(arrived)

    @staticmethod
    @transaction.atomic
    def suspend_money(
        *,
        amount: Decimal,
        currency: str,
        effect_key: str,
        description: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Transaction:
        """Book money that arrived for a closed wallet to `suspense`; `effect_key` as `add_money`.

        The caller holds the lock of what the money was for, and keeps a record for staff.
        """
        return post(
            Posting(
                kind=Transaction.Type.DEPOSIT,
                debit=Account.GATEWAY_CLEARING,
                credit=Account.SUSPENSE,
                amount=amount,
                currency=currency,
                description=description,
                metadata=metadata,
                effect_key=effect_key,
            )
        )

    @staticmethod
    @transaction.atomic
    def withdraw(*, owner: User, withdrawal: Withdrawal) -> Transaction:
        """Take money out of the owner's wallet to `payout_clearing`, where it waits (`pending`).

        Counted against the limits like a transfer. Raises, in this order, KYCRequired,
        CurrencyMismatch, WalletFrozen, InsufficientFunds and LimitExceeded. Once per key is the
        caller's concern; a second withdrawal with the same `effect_key` is an IntegrityError.
        """
        return withdrawals.withdraw(owner, withdrawal)

    @staticmethod
    @transaction.atomic
    def complete_withdrawal(*, withdrawal_id: UUID) -> Transaction:
        """The money has left for good. Raises InvalidState unless it was pending."""
        return withdrawals.complete(withdrawal_id)

    @staticmethod
    @transaction.atomic
    def fail_withdrawal(
        *, withdrawal_id: UUID, wallet_id: UUID, description: str = ""
    ) -> Transaction:
        """Bring the money of a withdrawal back to its wallet; the reversal that did it.

        A frozen wallet is credited, too; limits are not given back. Raises InvalidState unless the
        withdrawal was pending.
        """
        return withdrawals.fail(withdrawal_id, wallet_id, description)

    @staticmethod
    @transaction.atomic
    def refund_deposit(refund: SourceRefund) -> Transaction:
        """Take money of a deposit out of the wallet, for its gateway to send back.

        Within the rest of the deposit and what the wallet has available; a second call with the
        same `effect_key` is a bug of the caller's and refused by the database. Neither KYC nor
        limits stand in its way. Raises NotFound, InvalidState (no deposit into a wallet),
        AmountExceedsRemaining, WalletFrozen (frozen or closed) and InsufficientFunds.
        """
        return source_refunds.refund(refund)

    @staticmethod
    @transaction.atomic
    def return_refund(*, refund_id: UUID, effect_key: str, description: str) -> Transaction:
        """The gateway could not send a deposit's refund back: the money returns to the wallet.

        Once for each refund, by the database's word; whoever calls has locked what says that it has
        not returned yet. A frozen wallet takes it, too; none is closed meanwhile.
        """
        return source_refunds.bring_back(refund_id, effect_key, description)

    @staticmethod
    @transaction.atomic
    def propose_adjustment(*, proposer: User, proposal: Proposal) -> Adjustment:
        """Write down what should be put right in a wallet; somebody else has to approve it.

        Raises PermissionDenied unless `proposer` is active staff with
        `transactions.propose_adjustment` and does not own the wallet, NotFound, WalletClosed,
        InvalidState for a second proposal with one `form_id`, and ValidationError for an amount
        that is none or an empty reason.
        """
        return adjustments.propose(proposer, proposal)

    @staticmethod
    def approve_adjustment(*, approver: User, adjustment_id: UUID) -> Adjustment:
        """Post what somebody else proposed, once, against the `adjustments` account.

        Raises PermissionDenied unless `approver` is active staff with
        `transactions.approve_adjustment`, did not propose it and does not own the wallet; NotFound;
        InvalidState once it is decided, if whoever proposed it may propose no more, and for more
        than a wallet can hold; WalletClosed; for a debit WalletFrozen, and
        InsufficientFunds if less is available. Limits do not apply.
        """
        return retry_on_conflict(
            lambda: transaction.atomic(adjustments.approve)(approver, adjustment_id)
        )

    @staticmethod
    @transaction.atomic
    def reject_adjustment(*, decider: User, adjustment_id: UUID, reason: str) -> Adjustment:
        """Decide against a proposal, or withdraw one's own; nothing moves.

        Raises PermissionDenied unless `decider` is active staff with
        `transactions.approve_adjustment` (for one's own, `transactions.propose_adjustment` is
        enough) and does not own the wallet, NotFound, InvalidState once it is decided, and
        ValidationError for an empty reason.
        """
        return adjustments.reject(decider, adjustment_id, reason)
