"""Locking wallets: the one way to get one whose money may be touched.

The functions in PostgreSQL (`migrations/0006_lock.py`) find, lock and read in one round trip.
"""

from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from fintech_core.database import query
from fintech_core.rows import Row, from_text, instance_of, read_moments
from users.models import User
from wallet.models import Wallet
from wallet.queries import Debits


def lock_wallets(*wallet_ids: UUID) -> dict[UUID, Wallet]:
    """Lock the wallets until the transaction ends, and read them as they are then.

    Always in id order, so that opposite transfers wait for each other instead of deadlocking.
    `FOR NO KEY UPDATE` leaves foreign-key checks on the wallet free. Each has its owner (`user`) as
    they are under the lock, and the database's time (`locked_at`).
    """
    rows = query(_LOCK, wallet_ids=list(wallet_ids))
    wallets = [_locked(_read(text)) for (text,) in rows]
    return {wallet.pk: wallet for wallet in wallets}


class LockedParties:
    """The wallets of a spender and of whoever they name, found, locked and read in one round trip.

    `source` is the spender's, `spent` what left it of late.
    """

    def __init__(self, spender_id: UUID, names: Iterable[str]) -> None:
        user_ids, emails = _ids_and_emails(names)
        rows = query(_LOCK_PARTIES, spender=spender_id, user_ids=user_ids, emails=emails)
        self.wallets: list[Wallet] = []
        self._by_name: dict[str, Wallet] = {}
        for (text,) in rows:
            row = _read(text)
            wallet = _locked(row)
            self.wallets.append(wallet)
            self._by_name[wallet.user.email] = wallet
            if user_ids:
                self._by_name[str(wallet.user_id)] = wallet
            if wallet.user_id == spender_id:
                self.source, self.spent = wallet, _spent(row)

    def find(self, name: str) -> Wallet | None:
        """The wallet of whoever has this email, in any case, or this user id."""
        return self._by_name.get(name.lower())


def _ids_and_emails(names: Iterable[str]) -> tuple[list[UUID], list[str]]:
    user_ids, emails = [], []
    for name in {name.lower() for name in names}:
        if "@" in name:
            emails.append(name)
        else:
            with suppress(ValueError):  # what is neither names nobody
                user_ids.append(UUID(name))
    return user_ids, emails


# The rows of the functions: a wallet, its owner, the moment, and what the spender spent lately.
_WALLET_COLUMNS = [
    "id", "user_id", "currency", "balance", "held", "entry_count", "last_entry_at", "status",
    "limit_override_id", "created_at", "updated_at",
]  # fmt: skip
# What decisions and answers ask of an owner; the rest of the person is read when it is asked for.
_OWNER_COLUMNS = ["email", "first_name", "last_name", "is_active", "is_staff", "kyc_status"]
# Not the owner's id: the wallet says it, and to read it once more takes long in a batch.
_LOCK = "SELECT row_to_json(locked)::text FROM wallet_lock(%(wallet_ids)s::uuid[]) locked"
_LOCK_OWN = """
SELECT row_to_json(locked)::text
  FROM wallet_lock(ARRAY(SELECT id FROM wallet_wallet WHERE user_id = %(user_id)s)) locked
"""
_LOCK_PARTIES = """
SELECT row_to_json(locked)::text
  FROM wallet_lock_parties(%(spender)s, %(user_ids)s::uuid[], %(emails)s::varchar[]) locked
"""


def _read(text: str) -> Row:
    row = from_text(text)
    row["id"], row["user_id"] = UUID(row["id"]), UUID(row["user_id"])
    read_moments(row, "last_entry_at", "created_at", "updated_at", "locked_at")
    return row


def _locked(row: Row) -> Wallet:
    """The wallet and its owner in one row of the locking functions."""
    owner = {name: row[name] for name in _OWNER_COLUMNS}
    wallet = instance_of(
        Wallet,
        {name: row[name] for name in _WALLET_COLUMNS},
        user=instance_of(User, {"id": row["user_id"], **owner}),
    )
    wallet.locked_at, wallet.is_heard = row["locked_at"], row["is_heard"]
    return wallet


def _spent(row: Row) -> Debits:
    return Debits(
        daily_total=Decimal(row["daily_total"]),
        daily_count=row["daily_count"],
        monthly_total=Decimal(row["monthly_total"]),
        monthly_count=row["monthly_count"],
    )


def settled_wallet(user_id: UUID) -> Wallet:
    """The user's wallet, once whoever was changing it has finished; nobody is kept out afterwards.

    All that was dated before the wallet's `locked_at` is committed then: whoever locks it next
    reads a later clock. Waits in one queue with those who pay, for a shared lock would let readers
    pass them for ever, and leaves the lock at once.
    """
    with transaction.atomic():
        [(text,)] = query(_LOCK_OWN, user_id=user_id)
        transaction.set_rollback(True)  # nothing was written; what it gives up is the lock
    return _locked(_read(text))
