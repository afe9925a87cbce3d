"""Signed checkpoints: what makes a cut-off or rewritten past detectable, and what proves a head.

A checkpoint only ever extends the one before it. Everything it builds on is checked first: the
signature of the one before, the stored tree's root against it, each node and leaf that is about to
be replaced, and that the seals of the wallets that moved still are what they were. So who rewrites
history in the database cannot have the rewritten one signed by waiting for the next checkpoint,
unless they take the checkpoints away as well; then whoever kept one can tell.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import IntegrityError, OperationalError, transaction

from fintech_core.database import (
    database_time,
    execute,
    give_time,
    lock_timed_out,
    query,
    violated_constraint,
)
from fintech_core.exceptions import ServiceUnavailable
from transactions import merkle, signing, stored_tree
from transactions.merkle import Leaf, Node
from transactions.models import CheckpointLeaf, LedgerCheckpoint
from transactions.seals import OUTSIDE
from transactions.stored_tree import CheckpointRefused

__all__ = [
    "CheckpointInProgress",
    "CheckpointRefused",
    "Proof",
    "ProofRefused",
    "prove",
    "prove_in",
    "take",
]

logger = logging.getLogger(__name__)

FORMAT = "fintech-core/checkpoint/1"
# Whatever a checkpoint lacks was committed after it began, and dated at most so long before that.
DATED_BEFORE_MAX = timedelta(hours=1)
_BEFORE_THE_FIRST = bytes(32)
_TRIES = 4


class CheckpointInProgress(Exception):
    """Another one is being taken just now."""


class ProofRefused(ServiceUnavailable, CheckpointRefused):
    """There is one to give, but what is stored does not lead to what was signed."""

    title = "No proof can be given until somebody has looked into the ledger's checkpoints."


@dataclass(frozen=True)
class Proof:
    """That `leaf` is in the tree of `checkpoint`; `siblings` lead from the root to it."""

    leaf: Leaf
    siblings: list[bytes]
    checkpoint: LedgerCheckpoint


# --- Taking one --------------------------------------------------------------------------------


def take(*, rebuild_tree: bool = False) -> LedgerCheckpoint | None:
    """Sign where the ledger stands. None if nothing was posted since the last checkpoint.

    `rebuild_tree`: somebody has emptied the stored tree; compute it anew from the leaves first.
    It covers whatever had been committed when it began; nobody waits for it. Raises
    CheckpointInProgress, and CheckpointRefused, which somebody must look into: `verify_ledger`.
    """
    with _alone():
        began_at = database_time()  # the first query, so the snapshot is as old
        previous = LedgerCheckpoint.objects.order_by("-number").first()
        _require_own(previous)
        number = previous.number + 1 if previous else 1
        _require_no_unsigned_leaves(number)
        _write_leaves(number, previous)
        moved = CheckpointLeaf.objects.filter(number=number)
        if not moved.exists():
            return None
        _require_same_past(number)
        if rebuild_tree and previous:
            counted, signed_root = previous.wallet_count, bytes(previous.root)
            stored_tree.rebuild(previous.number, counted, signed_root=signed_root)
        root = stored_tree.grow(number, signed_root=bytes(previous.root) if previous else None)
        made = _sign(number, began_at, previous, root)
    # A log that is shipped elsewhere is a copy that nobody can take back.
    logger.info(
        "checkpoint taken",
        extra={"checkpoint": made.payload, "ed25519": bytes(made.signature).hex()},
    )
    return made


@contextmanager
def _alone() -> Iterator[None]:
    """One consistent snapshot, and no other checkpoint beside this one.

    The lock comes before the first query, so the snapshot shows what the one before has written;
    readers and money are not held up by it.
    """
    with transaction.atomic(durable=True):
        execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        give_time()
        try:
            execute("LOCK TABLE transactions_checkpointnode IN SHARE ROW EXCLUSIVE MODE")
        except OperationalError as exc:
            if lock_timed_out(exc):
                raise CheckpointInProgress("Another checkpoint is being taken.") from exc
            raise
        yield


def _require_own(previous: LedgerCheckpoint | None) -> None:
    if previous is None:
        return
    if bytes(previous.public_key) not in signing.own_public_keys():
        raise CheckpointRefused(
            f"Checkpoint {previous.number} is signed by key {previous.key_id}, which is not in "
            "LEDGER_SIGNING_KEY. If the key was changed, put the old one behind the new one."
        )
    if not is_genuine(previous):
        raise CheckpointRefused(f"Checkpoint {previous.number} is not what was signed.")
    _require_not_retired(previous)


def _require_not_retired(previous: LedgerCheckpoint) -> None:
    """A key that another one followed never signs again: it may have been given up as stolen."""
    newer = signing.public_keys_before(bytes(previous.public_key))
    if newer and LedgerCheckpoint.objects.filter(public_key__in=newer).exists():
        raise CheckpointRefused(
            f"Checkpoint {previous.number} is signed by key {previous.key_id}, which another one "
            "in LEDGER_SIGNING_KEY had followed already."
        )


def is_genuine(checkpoint: LedgerCheckpoint) -> bool:
    """Whether the signature is right, and the columns say what was signed."""
    key, signature = bytes(checkpoint.public_key), bytes(checkpoint.signature)
    return (
        signing.is_signed_by(key, signature, checkpoint.payload.encode())
        and signing.key_id(key) == checkpoint.key_id
        and checkpoint.payload == _payload(checkpoint)
    )


def _require_no_unsigned_leaves(number: int) -> None:
    if CheckpointLeaf.objects.filter(number__gte=number).exists():
        raise CheckpointRefused("There are leaves that no checkpoint signed.")


# Only the wallets with entries since the last checkpoint's horizon are looked at, unless there is
# none, or the database was restored elsewhere and counts its transactions anew. What lies in an
# index is looked up there (OFFSET 0 sees to it): there is no time limit here, and if PostgreSQL
# believed that a table is empty, it would read all of it for each wallet.
_WRITE_LEAVES = """
INSERT INTO transactions_checkpointleaf (wallet_id, entry_count, number, seal)
SELECT wallet.id, wallet.entry_count, %(number)s, seal.seal
  FROM {wallets}
  LEFT JOIN LATERAL (
       SELECT entry_count FROM transactions_checkpointleaf
        WHERE wallet_id = wallet.id ORDER BY entry_count DESC LIMIT 1) known ON true
  LEFT JOIN LATERAL (
       SELECT seal FROM transactions_ledgerseal
        WHERE wallet_id = wallet.id AND sequence = wallet.entry_count OFFSET 0) seal ON true
 WHERE wallet.entry_count <> coalesce(known.entry_count, 0)
UNION ALL
SELECT %(outside)s, newest.sequence, %(number)s, newest.seal
  FROM (SELECT sequence, seal FROM transactions_outsideseal ORDER BY sequence DESC LIMIT 1) newest
 WHERE newest.sequence > (SELECT coalesce(max(entry_count), 0) FROM transactions_checkpointleaf
                           WHERE wallet_id = %(outside)s)
"""
_ALL = "wallet_wallet wallet"
_MOVED = """(
       SELECT DISTINCT entry.wallet_id
         FROM transactions_transaction made
        CROSS JOIN LATERAL (
              SELECT wallet_id FROM transactions_transactionledger
               WHERE transaction_id = made.id OFFSET 0) entry
        WHERE made.posted_in >= %(horizon)s::text::xid8
          AND made.posted_in < pg_snapshot_xmax(pg_current_snapshot())) moved
 CROSS JOIN LATERAL (
       SELECT id, entry_count FROM wallet_wallet WHERE id = moved.wallet_id OFFSET 0) wallet"""


_CUT = "A wallet has fewer entries than the last checkpoint signed."
# What the database says of a leaf that cannot be.
_REFUSALS = {
    "transactions_checkpointleaf_has_its_seal": "A wallet's newest entry has no seal.",
    "transactions_checkpointleaf_fits": _CUT,
    "transactions_checkpointleaf_pkey": _CUT,
}


def _write_leaves(number: int, previous: LedgerCheckpoint | None) -> None:
    horizon = _horizon_of(previous)
    statement = _WRITE_LEAVES.format(wallets=_ALL if horizon is None else _MOVED)
    try:
        execute(statement, number=number, outside=OUTSIDE, horizon=horizon)
    except IntegrityError as exc:
        if refusal := _REFUSALS.get(violated_constraint(exc)):
            raise CheckpointRefused(refusal) from exc
        raise


def _horizon_of(previous: LedgerCheckpoint | None) -> str | None:
    if previous is None:
        return None
    rows = query(
        "SELECT horizon::text FROM transactions_ledgercheckpoint WHERE number = %(number)s "
        "AND cluster = (SELECT system_identifier FROM pg_control_system()) "
        "AND horizon <= pg_snapshot_xmax(pg_current_snapshot())",
        number=previous.number,
    )
    return str(rows[0][0]) if rows else None


_REWRITTEN = """
SELECT leaf.wallet_id, before.entry_count
  FROM transactions_checkpointleaf leaf
  JOIN LATERAL (
       SELECT entry_count, seal FROM transactions_checkpointleaf
        WHERE wallet_id = leaf.wallet_id AND entry_count < leaf.entry_count
        ORDER BY entry_count DESC LIMIT 1) before ON true
  LEFT JOIN LATERAL (
       SELECT seal FROM transactions_ledgerseal
        WHERE wallet_id = leaf.wallet_id AND sequence = before.entry_count OFFSET 0) seal ON true
  LEFT JOIN LATERAL (
       SELECT seal FROM transactions_outsideseal
        WHERE leaf.wallet_id = %(outside)s AND sequence = before.entry_count OFFSET 0
       ) outside ON true
 WHERE leaf.number = %(number)s
   AND coalesce(seal.seal, outside.seal) IS DISTINCT FROM before.seal
 LIMIT 10
"""


def _require_same_past(number: int) -> None:
    """Of each wallet that moved: its history up to the last checkpoint is what it was then."""
    rows = query(_REWRITTEN, number=number, outside=OUTSIDE)
    if rows:
        named = ", ".join(f"wallet {wallet} up to entry {count}" for wallet, count in rows)
        raise CheckpointRefused(f"History was rewritten: {named}.")


# --- Its signature -----------------------------------------------------------------------------

_COUNTS = """
SELECT coalesce(sum(leaf.entry_count - coalesce(before.entry_count, 0))
                FILTER (WHERE leaf.wallet_id <> %(outside)s), 0),
       coalesce(max(leaf.entry_count) FILTER (WHERE leaf.wallet_id = %(outside)s), 0),
       (SELECT count(*) FROM transactions_outsideseal WHERE sequence = 1)
  FROM transactions_checkpointleaf leaf
  LEFT JOIN LATERAL (
       SELECT entry_count FROM transactions_checkpointleaf
        WHERE wallet_id = leaf.wallet_id AND entry_count < leaf.entry_count
        ORDER BY entry_count DESC LIMIT 1) before ON true
 WHERE leaf.number = %(number)s
"""


def _sign(
    number: int, began_at: datetime, previous: LedgerCheckpoint | None, root: Node
) -> LedgerCheckpoint:
    [(added, outside, outside_leaves)] = query(_COUNTS, number=number, outside=OUTSIDE)
    key = signing.public_key()
    made = LedgerCheckpoint(
        number=number,
        created_at=began_at,
        wallet_count=root.leaf_count - outside_leaves,
        entry_count=int(added) + (previous.entry_count if previous else 0),
        outside_count=outside or (previous.outside_count if previous else 0),
        root=root.hash,
        previous=hash_of(previous),
        key_id=signing.key_id(key),
        public_key=key,
    )
    made.payload = _payload(made)
    made.signature = signing.signing_key().sign(made.payload.encode())
    _insert(made)
    return made


def _payload(checkpoint: LedgerCheckpoint) -> str:
    """What is signed: JSON with sorted names and no spaces, so that it has one spelling."""
    facts = {
        "format": FORMAT,
        "number": checkpoint.number,
        "created_at": moment_text(checkpoint.created_at),
        "wallet_count": checkpoint.wallet_count,
        "entry_count": checkpoint.entry_count,
        "outside_count": checkpoint.outside_count,
        "root": bytes(checkpoint.root).hex(),
        "previous": bytes(checkpoint.previous).hex(),
        "key_id": checkpoint.key_id,
    }
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def moment_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def hash_of(checkpoint: LedgerCheckpoint | None) -> bytes:
    """What the next checkpoint names as its `previous`; zeros before the first."""
    if checkpoint is None:
        return _BEFORE_THE_FIRST
    return hashlib.sha256(checkpoint.payload.encode()).digest()


def _insert(made: LedgerCheckpoint) -> None:
    """By hand, for two columns that only PostgreSQL knows how to fill."""
    names = [str(field.column) for field in LedgerCheckpoint._meta.concrete_fields]
    values = ", ".join(f"%({name})s" for name in names)
    execute(
        f"INSERT INTO transactions_ledgercheckpoint ({', '.join(names)}, horizon, cluster) "  # noqa: S608
        f"SELECT {values}, pg_snapshot_xmin(pg_current_snapshot()), system_identifier "
        "FROM pg_control_system()",
        **{name: getattr(made, name) for name in names},
    )


# --- Proving a head ----------------------------------------------------------------------------


def prove(wallet_id: UUID) -> Proof | None:
    """That the wallet's head is in the newest checkpoint. None if no checkpoint knows it yet.

    Read without a lock, so a new checkpoint may come in between; a proof that proves nothing is
    never given. Raises ProofRefused if the stored tree does not lead to the signed root.
    """
    for _try in range(_TRIES):
        checkpoint = LedgerCheckpoint.objects.order_by("-number").first()
        newest = CheckpointLeaf.objects.filter(wallet_id=wallet_id).order_by("-entry_count").first()
        if checkpoint is None or newest is None:
            return None
        leaf = Leaf(wallet_id, newest.entry_count, bytes(newest.seal))
        siblings = stored_tree.siblings_of(leaf, checkpoint.number)
        if merkle.root_from(leaf, siblings) == bytes(checkpoint.root):
            return Proof(leaf, siblings, checkpoint)
    raise _refused(wallet_id)


def prove_in(number: int, wallet_id: UUID) -> Proof | None:
    """The same in an older checkpoint, whose tree is computed anew from every leaf that it had.

    None if there is no such checkpoint, or the wallet had no entry then. Raises ProofRefused if the
    leaves do not lead to the root that was signed.
    """
    checkpoint = LedgerCheckpoint.objects.filter(number=number).first()
    leaves = CheckpointLeaf.objects.filter(wallet_id=wallet_id, number__lte=number)
    newest = leaves.order_by("-entry_count").first()
    if checkpoint is None or newest is None:
        return None
    leaf = Leaf(wallet_id, newest.entry_count, bytes(newest.seal))
    siblings = stored_tree.siblings_in(number, leaf, wallets=checkpoint.wallet_count)
    if merkle.root_from(leaf, siblings) != bytes(checkpoint.root):
        raise _refused(wallet_id)
    return Proof(leaf, siblings, checkpoint)


def _refused(wallet_id: UUID) -> ProofRefused:
    logger.error("a proof proves nothing", extra={"wallet": str(wallet_id)})
    return ProofRefused(f"The stored tree does not prove wallet {wallet_id}.")
