"""Batches: up to a thousand transfers in one call. `TransactionService` is the door to them.

Set-based: whom the recipients name, every wallet and every person are read in a statement each, the
legs are decided in memory, in their order, and what is accepted is written in a few statements.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from uuid import UUID

from django.db.models import prefetch_related_objects

from fintech_core.database import database_time
from fintech_core.exceptions import DomainError
from fintech_core.money import total
from transactions.limit_use import Allowance
from transactions.models import Transaction, TransferBatch, TransferBatchLeg
from transactions.posting import Posting, post_all
from transactions.transfers import (
    Directory,
    Transfer,
    owners_of,
    posting_of,
    require_payable,
    require_sender,
)
from users.models import User
from wallet.models import Wallet
from wallet.services import lock_wallets

Mode = TransferBatch.Mode
LegStatus = TransferBatchLeg.Status


@dataclass(frozen=True)
class Batch:
    """What a customer asks for: all of it or nothing, or each leg for itself."""

    mode: Mode
    legs: Sequence[Transfer]


@dataclass(frozen=True)
class LegResult:
    """What became of a leg: the transaction, or why there is none."""

    index: int
    made: Transaction | None = None
    refusal: DomainError | None = None

    @property
    def status(self) -> TransferBatchLeg.Status:
        return LegStatus.FAILED if self.refusal else LegStatus.SUCCEEDED


@dataclass(frozen=True)
class BatchResult:
    batch: TransferBatch
    legs: Sequence[LegResult]


def transfer_batch(sender: User, asked: Batch) -> BatchResult:
    """Find, lock, look, write, once for all legs. Call it inside a database transaction.

    An atomic batch raises the refusal of its first leg that has one, with the leg's `index`.
    """
    books = _Books(sender, asked.legs)
    decided = books.decide_all(asked.legs, together=asked.mode == Mode.ATOMIC)
    books.allowance.write()
    made = iter(post_all([posting for posting in decided if isinstance(posting, Posting)]))
    legs = [_result(index, decision, made) for index, decision in enumerate(decided)]
    return BatchResult(_record(books.source, asked.mode, legs), legs)


class _Books:
    """Everybody's wallet that a batch names, locked, and what the legs so far leave in them.

    The legs are tried on copies: what one leaves is what the next one finds. `post_all` moves the
    locked wallets themselves.
    """

    def __init__(self, sender: User, legs: Iterable[Transfer]) -> None:
        require_sender(sender)
        self._directory = Directory(sender, (leg.recipient for leg in legs))
        self._locked = lock_wallets(*self._directory.wallet_ids)
        prefetch_related_objects(list(self._locked.values()), "limit_override")
        self._people: Mapping[UUID, User] = owners_of(self._locked.values())
        self._left = {wallet_id: copy(wallet) for wallet_id, wallet in self._locked.items()}
        self.source = self._locked[self._directory.source_id]
        self._payer = self._people[self.source.user_id]
        require_sender(self._payer)
        self.allowance = Allowance.load(self.source, self._payer)

    def decide_all(
        self, legs: Iterable[Transfer], *, together: bool
    ) -> list[Posting | DomainError]:
        """Each leg in its order. `together`: raises the first refusal, with the leg's `index`."""
        decided: list[Posting | DomainError] = []
        for index, leg in enumerate(legs):
            try:
                decided.append(self._decide(leg))
            except DomainError as refusal:
                if together:
                    refusal.facts = {**refusal.facts, "index": index}
                    raise
                decided.append(refusal)
        return decided

    def _decide(self, leg: Transfer) -> Posting:
        """Raises every refusal of a transfer, the contract's first one first; that changes
        nothing."""
        target_id = self._directory.target_id(leg.recipient)
        source, target = self._left[self.source.pk], self._left[target_id]
        require_payable(source, target, self._payer, self._people[target.user_id], leg)
        self.allowance.take(leg.amount)
        source.balance -= leg.amount
        target.balance += leg.amount
        return posting_of(leg, self.source, self._locked[target_id])


def _result(index: int, decision: Posting | DomainError, made: Iterator[Transaction]) -> LegResult:
    if isinstance(decision, DomainError):
        return LegResult(index, refusal=decision)
    return LegResult(index, made=next(made))


def _record(source: Wallet, mode: Mode, legs: Sequence[LegResult]) -> TransferBatch:
    """Write down what was asked for in one call, and what became of it."""
    made = [leg.made for leg in legs if leg.made]
    batch = TransferBatch.objects.create(
        user_id=source.user_id,
        mode=mode,
        status=_status(len(made), len(legs)),
        count=len(legs),
        succeeded=len(made),
        failed=len(legs) - len(made),
        total=total(each.amount for each in made),
        currency=source.currency,
        created_at=made[0].created_at if made else database_time(),
    )
    TransferBatchLeg.objects.bulk_create(_row(batch, leg) for leg in legs)
    return batch


def _status(succeeded: int, count: int) -> TransferBatch.Status:
    if succeeded == count:
        return TransferBatch.Status.COMPLETED
    return TransferBatch.Status.PARTIAL if succeeded else TransferBatch.Status.FAILED


def _row(batch: TransferBatch, leg: LegResult) -> TransferBatchLeg:
    return TransferBatchLeg(
        batch=batch,
        index=leg.index,
        transaction=leg.made,
        error_code=leg.refusal.code if leg.refusal else "",
    )
