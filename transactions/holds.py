"""Holds: money that is reserved, then captured, voided or expired, once.

`TransactionService` is the door. Each function wants a database transaction around it, and locks
the hold first, then the wallets in id order.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, OperationalError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from fintech_core.database import database_time, lock_timed_out, retry_on_conflict
from fintech_core.exceptions import InvalidState
from fintech_core.money import format_amount
from transactions import events, queries
from transactions.callers import is_staff_still
from transactions.exceptions import AmountExceedsRemaining, HoldExpired, NotAllowed, NotFound
from transactions.models import Hold, Transaction
from transactions.posting import Posting, post
from transactions.transfers import (
    Transfer,
    lock_payable,
    require_recipient,
    require_room,
    require_room_at_all,
)
from users.models import User
from wallet.exceptions import WalletFrozen
from wallet.locking import lock_wallets
from wallet.models import Wallet
from wallet.services import record_debits, save_held

logger = logging.getLogger(__name__)

LIFETIME = timedelta(days=7)
LIFETIME_MAX = timedelta(days=30)
_BATCH = 200
_SINGLY_MAX = 1000


@dataclass(frozen=True)
class Reservation(Transfer):
    """What a customer asks to have held for the recipient, and for how long."""

    expires_in: timedelta = LIFETIME


def create(payer: User, asked: Reservation) -> Hold:
    """Reserve the money: it stays in the payer's wallet, but is not available any more.

    Whether the recipient's balance leaves room is asked when they capture it: what is reserved for
    a second, and then free again, would read a balance for nothing.
    """
    source, target, spent = lock_payable(payer, asked)
    require_room_at_all(target, asked.amount)
    source.reserve(asked.amount)
    save_held([source])
    record_debits(spent)
    begun = database_time()
    hold = Hold.objects.create(
        amount=asked.amount,
        currency=source.currency,
        payer_wallet=source,
        payee_wallet=target,
        from_user=source.user,
        to_user=target.user,
        description=asked.description,
        metadata=dict(asked.metadata or {}),
        created_at=begun,
        expires_at=begun + asked.expires_in,
    )
    events.held(hold)
    return hold


def capture(caller: User, hold_id: UUID, amount: Decimal | None) -> Transaction:
    """Move `amount` (all of it, if None) to the payee, and release the rest."""
    hold = _lock(queries.holds_of(caller.pk), hold_id)
    if caller.pk != hold.to_user_id:
        raise NotAllowed("Only the recipient can capture a hold.")
    locked = lock_wallets(hold.payer_wallet_id, hold.payee_wallet_id)
    source, target = locked[hold.payer_wallet_id], locked[hold.payee_wallet_id]
    _require_active(hold)
    taken = hold.amount if amount is None else amount
    _require_capturable(hold, taken, source, target)
    source.release(hold.amount)
    save_held([source])
    made = post(_capture_of(hold, taken, source, target))
    hold.transaction, hold.captured_amount = made, taken
    hold.from_user, hold.to_user = source.user, target.user
    _resolve(hold, Hold.Status.CAPTURED, at=made.created_at, by=caller)
    return made


def void(caller: User, hold_id: UUID) -> Hold:
    """Give the money back to the payer. Not for the payer, whose promise the hold is."""
    visible = Hold.objects.all() if is_staff_still(caller) else queries.holds_of(caller.pk)
    hold = _lock(visible, hold_id)
    if caller.pk == hold.from_user_id:
        raise NotAllowed("Only the recipient, or staff who are not the payer, can void a hold.")
    source = lock_wallets(hold.payer_wallet_id)[hold.payer_wallet_id]
    _require_active(hold)
    _release(hold, source, Hold.Status.VOIDED, by=caller)
    return hold


def expire(hold_id: UUID) -> bool:
    """Give the money of a hold that is due back to the payer; False if there is nothing to do."""
    hold = _lock(Hold.objects.all(), hold_id)
    source = lock_wallets(hold.payer_wallet_id)[hold.payer_wallet_id]
    if hold.status != Hold.Status.ACTIVE or hold.expires_at > database_time():
        return False
    _release(hold, source, Hold.Status.EXPIRED, by=None)
    return True


@contextmanager
def freed_if_late(hold_id: UUID) -> Iterator[None]:
    """Whoever comes too late frees the payer's money while being refused; no job is needed."""
    try:
        yield
    except HoldExpired:
        _expire_patiently(hold_id)
        raise


def expire_due(*, seconds_max: float) -> int:
    """Expire whatever is due, within the time; how many. Safe to run at once with anything.

    First in sets, past every row that somebody is using; those come last, one by one, so that a
    wallet that is always busy waits no longer than the others. One by one as well, if the books of
    a wallet in the set are broken: the others' money does not wait for their repair.
    """
    deadline = time.monotonic() + seconds_max
    expired = 0
    while time.monotonic() < deadline and (batch := _expire_set()):
        expired += batch
    return expired + sum(_expire_singly(deadline))


def _lock(visible: QuerySet[Hold], hold_id: UUID) -> Hold:
    hold = visible.select_for_update(no_key=True).filter(pk=hold_id).first()
    if hold is None:
        raise NotFound
    return hold


def _require_active(hold: Hold) -> None:
    """Raises InvalidState; for one that is due, HoldExpired. Ask when all locks are held."""
    if hold.status != Hold.Status.ACTIVE:
        raise InvalidState(f"The hold is {hold.status} already.")
    if hold.expires_at <= database_time():
        raise HoldExpired("The hold has expired.")


def _require_capturable(hold: Hold, amount: Decimal, source: Wallet, target: Wallet) -> None:
    if amount > hold.amount:
        remaining = format_amount(hold.amount)
        raise AmountExceedsRemaining(f"The hold is for {remaining}.", remaining=remaining)
    require_recipient(target)
    require_room(target, amount)  # the caller's own, so it tells nobody anything
    if source.status != Wallet.Status.ACTIVE:
        raise WalletFrozen("The payer's wallet is frozen: no money can leave it.")


def _capture_of(hold: Hold, amount: Decimal, source: Wallet, target: Wallet) -> Posting:
    return Posting(
        kind=Transaction.Type.CAPTURE,
        debit=source,
        credit=target,
        amount=amount,
        currency=hold.currency,
        description=hold.description,
        metadata=hold.metadata,
    )


def _release(hold: Hold, source: Wallet, status: Hold.Status, by: User | None) -> None:
    source.release(hold.amount)
    save_held([source])
    _resolve(hold, status, at=database_time(), by=by)


def _resolve(hold: Hold, status: Hold.Status, at: datetime, by: User | None) -> None:
    hold.status, hold.resolved_at, hold.resolved_by = status, at, by
    hold.save(
        update_fields=["status", "captured_amount", "transaction", "resolved_at", "resolved_by"]
    )
    events.held(hold)


def _due() -> QuerySet[Hold]:
    return Hold.objects.filter(status=Hold.Status.ACTIVE, expires_at__lte=Now()).order_by(
        "expires_at"
    )


def _expire_set() -> int:
    """How many; none, if the database refuses one of them."""
    try:
        return retry_on_conflict(_expire_batch)
    except IntegrityError:
        logger.exception("holds that are due cannot be expired together")
        return 0


@transaction.atomic
def _expire_batch() -> int:
    """Holds and wallets are locked by one statement that waits for nobody, so in any order."""
    rows = _due().select_related("payer_wallet", "from_user", "to_user")
    free = rows.select_for_update(no_key=True, skip_locked=True, of=("self", "payer_wallet"))
    holds = list(free[:_BATCH])
    wallets = {hold.payer_wallet_id: hold.payer_wallet for hold in holds}
    for hold in holds:
        wallets[hold.payer_wallet_id].release(hold.amount)
    save_held(wallets.values())
    now = database_time()
    for hold in holds:
        hold.status, hold.resolved_at = Hold.Status.EXPIRED, now
    events.held_all(holds)
    return Hold.objects.filter(pk__in=[hold.pk for hold in holds]).update(
        status=Hold.Status.EXPIRED, resolved_at=now
    )


def _expire_singly(deadline: float) -> Iterable[bool]:
    for hold_id in list(_due().values_list("pk", flat=True)[:_SINGLY_MAX]):
        if time.monotonic() < deadline:
            yield _expire_patiently(hold_id)


def _expire_patiently(hold_id: UUID) -> bool:
    """False as well if somebody keeps it locked, or the database refuses; that is logged."""
    try:
        return retry_on_conflict(lambda: transaction.atomic(expire)(hold_id))
    except IntegrityError:
        logger.exception("a hold that is due cannot be expired", extra={"hold": str(hold_id)})
        return False
    except OperationalError as exc:
        if not lock_timed_out(exc):
            raise
        logger.warning("a hold that is due stays locked", extra={"hold": str(hold_id)})
        return False
