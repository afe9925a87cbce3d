"""Writing wallets: what holds reserve, what staff decide, and what left them, for the limits.

`wallet.locking` is the way to one whose money may be touched.
"""

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from rest_framework.exceptions import ErrorDetail, ValidationError

from fintech_core.database import execute, violated_constraint
from fintech_core.exceptions import InvalidState
from users.exceptions import NotOnOneself
from users.models import User
from users.services import require_staff
from wallet import events
from wallet.exceptions import WalletNotFound
from wallet.locking import lock_wallets
from wallet.models import LimitOverride, Wallet, WalletStep

logger = logging.getLogger(__name__)

STATUS_PERMISSION = "wallet.change_status"
LIMITS_PERMISSION = "wallet.change_limits"


def save_held(wallets: Iterable[Wallet]) -> None:
    """Write what locked wallets reserve, in one statement. For holds.

    Before the balance is written: what is held may at no time exceed it.
    """
    now = timezone.now()
    changed = list(wallets)
    for wallet in changed:
        wallet.updated_at = now
    Wallet.objects.bulk_update(changed, ["held", "updated_at"])


# --- Freeze, unfreeze, close ---------------------------------------------------------------------

_Status = Wallet.Status
_STEPS = {
    (_Status.ACTIVE, _Status.FROZEN),
    (_Status.FROZEN, _Status.ACTIVE),
    (_Status.ACTIVE, _Status.CLOSED),
    (_Status.FROZEN, _Status.CLOSED),
}


def freeze(*, wallet_id: UUID, actor: User, reason: str) -> Wallet:
    """Let nothing leave the wallet from now on; credits still arrive.

    Raises PermissionDenied unless `actor` is active staff with `wallet.change_status` and not the
    owner; WalletNotFound; InvalidState unless the wallet is active; and a ValidationError for an
    empty reason.
    """
    return _change_status(wallet_id, actor, Wallet.Status.FROZEN, reason)


def unfreeze(*, wallet_id: UUID, actor: User, reason: str) -> Wallet:
    """Undo a freeze. Raises what `freeze` raises; InvalidState unless the wallet is frozen."""
    return _change_status(wallet_id, actor, Wallet.Status.ACTIVE, reason)


def close(*, wallet_id: UUID, actor: User, reason: str) -> Wallet:
    """End the wallet for good: neither debits nor credits.

    Raises what `freeze` raises; InvalidState while it holds money, while money that left it may
    still come back, and if it is closed already.
    """
    try:
        return _change_status(wallet_id, actor, Wallet.Status.CLOSED, reason)
    except IntegrityError as exc:
        if violated_constraint(exc) != "wallet_wallet_closes_when_settled":
            raise
        raise InvalidState("Money that left it is on its way: it might come back.") from exc


@transaction.atomic
def _change_status(wallet_id: UUID, actor: User, to_status: Wallet.Status, reason: str) -> Wallet:
    """Under the wallet's lock: whatever moves money has finished, or will see the new status."""
    wallet = _lock_for(actor, STATUS_PERMISSION, wallet_id)
    _require_step(wallet, to_status)
    WalletStep.objects.create(
        wallet=wallet,
        actor=actor,
        from_status=wallet.status,
        to_status=to_status,
        reason=_written(reason),
    )
    facts = {"wallet": str(wallet.pk), "from_status": wallet.status, "to_status": str(to_status)}
    wallet.status = to_status
    wallet.save(update_fields=["status", "updated_at"])
    events.status_changed(wallet)
    logger.info("wallet status changed", extra=facts | {"actor_id": str(actor.pk)})
    return wallet


def _require_step(wallet: Wallet, to_status: Wallet.Status) -> None:
    if (wallet.status, to_status) not in _STEPS:
        raise InvalidState(f"The wallet is {wallet.status}.")
    if to_status == Wallet.Status.CLOSED and (wallet.balance or wallet.held):
        raise InvalidState("The wallet is not empty: it can be closed at zero alone.")


def _lock_for(actor: User, permission: str, wallet_id: UUID) -> Wallet:
    """The locked wallet, for staff who may and who do not own it."""
    require_staff(actor, permission)
    wallet = lock_wallets(wallet_id).get(wallet_id)
    if wallet is None:
        raise WalletNotFound
    if wallet.user_id == actor.pk:
        raise NotOnOneself
    return wallet


def _written(reason: str) -> str:
    if not (reason := reason.strip()):
        raise ValidationError({"reason": [ErrorDetail("Say why.", code="blank")]})
    return reason


# --- Limits --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ChosenLimits:
    """Limits for one wallet, in major units of its currency; None: what its tier has."""

    transfer_max: Decimal | None = None
    daily_total: Decimal | None = None
    daily_count: int | None = None
    monthly_total: Decimal | None = None
    monthly_count: int | None = None
    balance_max: Decimal | None = None


@transaction.atomic
def override_limits(
    *, wallet_id: UUID, actor: User, reason: str, chosen: ChosenLimits
) -> LimitOverride:
    """Set the limits of one wallet; this replaces whatever was set for it before.

    Raises PermissionDenied unless `actor` is active staff with `wallet.change_limits` and not the
    owner; WalletNotFound; a ValidationError for an empty reason. The database refuses what is
    below zero.
    """
    wallet = _lock_for(actor, LIMITS_PERMISSION, wallet_id)
    made = LimitOverride.objects.create(
        wallet=wallet, actor=actor, reason=_written(reason), **asdict(chosen)
    )
    wallet.limit_override = made
    wallet.save(update_fields=["limit_override"])
    facts = {"wallet": str(wallet.pk), "override": made.pk, "actor_id": str(actor.pk)}
    logger.info("wallet limits changed", extra=facts)
    return made


@dataclass
class Spent:
    """Debits to be counted: how many, and their sum in major units."""

    wallet_id: UUID
    total: Decimal
    count: int


def record_debits(spent: Spent) -> None:
    """Count debits against the locked wallet's limits, in the transaction that makes them."""
    execute(
        "SELECT wallet_record_debits(%(wallet_id)s, %(total)s, %(count)s)",
        wallet_id=spent.wallet_id,
        total=spent.total,
        count=spent.count,
    )


_DELETE_OLD = """
DELETE FROM wallet_debitbucket WHERE (wallet_id, hour) IN (
    SELECT wallet_id, hour FROM wallet_debitbucket
     WHERE hour < date_trunc('hour', now() - interval '721 hours', 'UTC')
     ORDER BY hour LIMIT %s FOR UPDATE SKIP LOCKED
)
"""


def delete_old_debits(*, batch_size: int = 1000, batches_max: int = 100) -> int:
    """Forget what no limit looks back at any more, in small transactions; how many rows."""
    deleted = 0
    for _ in range(batches_max):
        with connection.cursor() as cursor:
            cursor.execute(_DELETE_OLD, [batch_size])
            count = cursor.rowcount
        deleted += count
        if count < batch_size:
            break
    return deleted
