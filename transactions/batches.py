"""Batches: up to a thousand transfers in one call. `TransactionService` is the door to them.

Set-based: whom the recipients name, every wallet and every person are read in a statement each, the
legs are decided in memory, in their order, and what is accepted is written in a few statements.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import prefetch_related_objects

from fintech_core.database import database_time, send_along
from fintech_core.exceptions import DomainError
from fintech_core.money import total
from fintech_core.rows import Row, insertion, to_insert
from transactions import events
from transactions.limit_use import Allowance
from transactions.models import Transaction, TransferBatch, TransferBatchLeg
from transactions.posting import Journal
from transactions.transfers import (
    Transfer,
    posting_of,
    require_payable,
    require_room,
    require_sender,
    target_of,
)
from users.models import User
from wallet import limits
from wallet.locking import LockedParties
from wallet.models import Wallet

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

    An atomic batch raises the refusal of its first leg that has one, with the leg's `index`; that
    a recipient has no room, if nothing else is wrong, and perhaps without one.
    """
    books = _Books(sender, asked.legs)
    decide = books.decide_together if asked.mode == Mode.ATOMIC else books.decide_each
    legs = [_result(index, decision) for index, decision in enumerate(decide(asked.legs))]
    books.journal.write(books.allowance.taken)
    events.transferred(leg.made for leg in legs if leg.made)
    return BatchResult(_record(books.source, asked.mode, legs), legs)


class _Books:
    """Everybody's wallet that a batch names, locked; each leg finds what the one before left."""

    def __init__(self, sender: User, legs: Iterable[Transfer]) -> None:
        require_sender(sender)
        self._parties = LockedParties(sender.pk, (leg.recipient for leg in legs))
        overridden = [wallet for wallet in self._parties.wallets if wallet.limit_override_id]
        prefetch_related_objects(overridden, "limit_override")
        self.journal = Journal()
        self.source = self._parties.source
        require_sender(self.source.user)
        self.allowance = Allowance(self.source, self._parties.spent)

    def decide_each(self, legs: Iterable[Transfer]) -> list[Transaction | DomainError]:
        """Each leg in its order, for itself."""
        decided: list[Transaction | DomainError] = []
        for leg in legs:
            try:
                target = self._payable(leg)
                require_room(target, leg.amount)
            except DomainError as refusal:
                decided.append(refusal)
            else:
                decided.append(self._move(target, leg))
        return decided

    def decide_together(self, legs: Sequence[Transfer]) -> list[Transaction | DomainError]:
        """Raises the first refusal, with the leg's `index`.

        Whether a recipient has room is said after everything else has been asked of every leg:
        a batch that had to fail for another reason would tell it, and cost nothing. Nor is it said
        which leg of several found none, for then the others did: that would tell how much room
        there is, and cost nothing either. What no balance leaves room for is named.
        """
        decided: list[Transaction | DomainError] = []
        full: DomainError | None = None
        for index, leg in enumerate(legs):
            try:
                target = self._payable(leg)
            except DomainError as refusal:
                _name_leg(refusal, index)
                raise
            try:
                require_room(target, leg.amount)
            except DomainError as refusal:
                full = full or refusal
            decided.append(self._move(target, leg))
        if full:
            raise self._for_want_of_room(full, legs)
        return decided

    def _for_want_of_room(self, refusal: DomainError, legs: Sequence[Transfer]) -> DomainError:
        """With the `index` of a leg if that tells nothing of a balance."""
        for index, leg in enumerate(legs):
            target = target_of(self._parties, leg)
            if len(legs) == 1 or not limits.can_ever_hold(target, target.user, leg.amount):
                _name_leg(refusal, index)
                break
        return refusal

    def _payable(self, leg: Transfer) -> Wallet:
        """Raises every refusal of a transfer but for want of room, the contract's first one first;
        that changes nothing."""
        target = target_of(self._parties, leg)
        require_payable(self.source, target, leg, self.allowance)
        return target

    def _move(self, target: Wallet, leg: Transfer) -> Transaction:
        self.allowance.take(leg.amount)
        return self.journal.enter(posting_of(leg, self.source, target))


def _name_leg(refusal: DomainError, index: int) -> None:
    refusal.facts = {**refusal.facts, "index": index}


def _result(index: int, decision: Transaction | DomainError) -> LegResult:
    if isinstance(decision, DomainError):
        return LegResult(index, refusal=decision)
    return LegResult(index, made=decision)


def _record(source: Wallet, mode: Mode, legs: Sequence[LegResult]) -> TransferBatch:
    """Write down what was asked for in one call, and what became of it."""
    made = [leg.made for leg in legs if leg.made]
    batch = TransferBatch(
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
    columns = {field.attname for field in TransferBatch._meta.concrete_fields}
    row = {name: value for name, value in vars(batch).items() if name in columns}
    send_along(insertion(TransferBatch._meta.db_table), **to_insert([row]))
    rows = [_row(batch, leg) for leg in legs]
    send_along(insertion(TransferBatchLeg._meta.db_table), **to_insert(rows))
    return batch


def _status(succeeded: int, count: int) -> TransferBatch.Status:
    if succeeded == count:
        return TransferBatch.Status.COMPLETED
    return TransferBatch.Status.PARTIAL if succeeded else TransferBatch.Status.FAILED


def _row(batch: TransferBatch, leg: LegResult) -> Row:
    return {
        "batch_id": batch.id,
        "index": leg.index,
        "transaction_id": leg.made and leg.made.id,
        "error_code": leg.refusal.code if leg.refusal else "",
    }
