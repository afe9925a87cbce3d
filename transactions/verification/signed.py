"""What was signed: each checkpoint and what it counted, and that the seals are what they were."""

from collections.abc import Iterator
from uuid import UUID

from fintech_core.database import query
from transactions import checkpoints, merkle, signing, stored_tree
from transactions.merkle import BUCKET_DEPTH, Node
from transactions.models import LedgerCheckpoint
from transactions.seals import OUTSIDE
from transactions.verification.findings import Breach, Rule, Step, breaches, select_broken

CHUNK = 20_000
_BUCKETS = 2**BUCKET_DEPTH


def check() -> Iterator[Step]:
    yield from _outside()
    yield from _leaves()
    newest = LedgerCheckpoint.objects.order_by("-number").first()
    yield Step(0, list(_checkpoints(newest)))
    if newest is not None:
        yield Step(0, list(_tree(newest)))


# --- The chain of transactions that touch no wallet ---------------------------------------------

_BROKEN_OUTSIDE = select_broken(
    [
        Rule(
            7,
            "outside.sequence > 1 AND before.sequence IS NULL",
            "concat('there is no seal ', outside.sequence - 1)",
            "concat('transaction ', outside.transaction_id)",
        ),
        Rule(
            7,
            "outside.seal IS DISTINCT FROM sha256("
            " CASE outside.sequence WHEN 1 THEN decode(repeat('00', 32), 'hex')"
            "      ELSE coalesce(before.seal, '') END"
            " || transactions_digest(outside.transaction_id))",
            "'its seal does not fit: it, or what came before, was changed'",
            "concat('transaction ', outside.transaction_id)",
        ),
    ],
    """
  FROM transactions_outsideseal outside
  LEFT JOIN transactions_outsideseal before ON before.sequence = outside.sequence - 1
""",
    within="outside.sequence > %(after)s AND outside.sequence <= %(upto)s",
)


def _outside() -> Iterator[Step]:
    [(last,)] = query("SELECT coalesce(max(sequence), 0) FROM transactions_outsideseal")
    for after in range(0, last, CHUNK):
        upto = min(after + CHUNK, last)
        yield Step(upto - after, breaches(query(_BROKEN_OUTSIDE, after=after, upto=upto)))


# --- The leaves: each head that a checkpoint signed is still there --------------------------------

_CHUNK_END = """
SELECT wallet_id, entry_count FROM transactions_checkpointleaf
 WHERE (wallet_id, entry_count) > (%(wallet)s, %(entry)s)
 ORDER BY wallet_id, entry_count OFFSET %(chunk)s LIMIT 1
"""

# The first of each wallet: from there on nothing is what it was.
_MOVED_HEADS = """
SELECT DISTINCT ON (leaf.wallet_id) leaf.wallet_id, leaf.entry_count, leaf.number,
       coalesce(seal.seal, outside.seal) IS NULL
  FROM transactions_checkpointleaf leaf
  LEFT JOIN transactions_ledgerseal seal
    ON seal.wallet_id = leaf.wallet_id AND seal.sequence = leaf.entry_count
  LEFT JOIN transactions_outsideseal outside
    ON leaf.wallet_id = %(outside)s AND outside.sequence = leaf.entry_count
 WHERE (leaf.wallet_id, leaf.entry_count) > (%(wallet)s, %(entry)s)
   AND (leaf.wallet_id, leaf.entry_count) <= (%(last_wallet)s, %(last_entry)s)
   AND coalesce(seal.seal, outside.seal) IS DISTINCT FROM leaf.seal
 ORDER BY leaf.wallet_id, leaf.entry_count
"""

_Place = tuple[UUID, int]
_BEGINNING: _Place = (UUID(int=0), 0)
_END: _Place = (UUID(int=2**128 - 1), 2**63 - 1)


def _leaves() -> Iterator[Step]:
    after = _BEGINNING
    while after != _END:
        ends = query(_CHUNK_END, wallet=after[0], entry=after[1], chunk=CHUNK - 1)
        upto = tuple(ends[0]) if ends else _END
        moved = query(
            _MOVED_HEADS,
            wallet=after[0],
            entry=after[1],
            last_wallet=upto[0],
            last_entry=upto[1],
            outside=OUTSIDE,
        )
        yield Step(CHUNK if ends else 0, [_moved_head(*row) for row in moved])
        after = upto


def _moved_head(wallet_id: UUID, entry_count: int, number: int, is_gone: bool) -> Breach:
    detail = (
        f"checkpoint {number} signed {entry_count} entries, and that one is gone: a tail was cut"
        if is_gone
        else f"its first {entry_count} entries are not those that checkpoint {number} signed: "
        "history was rewritten"
    )
    return Breach(7, _chain(wallet_id), detail)


def _chain(wallet_id: UUID) -> str:
    return "transactions outside all wallets" if wallet_id == OUTSIDE else f"wallet {wallet_id}"


# --- The checkpoints ------------------------------------------------------------------------------

_COUNTED = """
SELECT number,
       count(*) FILTER (WHERE entries_before IS NULL AND wallet_id <> %(outside)s),
       coalesce(sum(entry_count - coalesce(entries_before, 0))
                FILTER (WHERE wallet_id <> %(outside)s), 0),
       max(entry_count) FILTER (WHERE wallet_id = %(outside)s)
  FROM (SELECT wallet_id, number, entry_count,
               lag(entry_count) OVER (PARTITION BY wallet_id ORDER BY number) AS entries_before
          FROM transactions_checkpointleaf) leaf
 GROUP BY number
"""

_Counts = tuple[int, int, int]  # wallets, entries, transactions outside


def _checkpoints(newest: LedgerCheckpoint | None) -> Iterator[Breach]:
    counted = {
        number: (wallets, int(entries), outside)
        for number, wallets, entries, outside in query(_COUNTED, outside=OUTSIDE)
    }
    unsigned = [number for number in counted if newest is None or number > newest.number]
    if unsigned:
        yield Breach(7, f"checkpoint {min(unsigned)}", "has leaves, but was never signed")
    trusted = signing.own_public_keys()
    totals: _Counts = (0, 0, 0)
    before = None
    for checkpoint in LedgerCheckpoint.objects.order_by("number").iterator(chunk_size=1_000):
        totals = _add(totals, counted.get(checkpoint.number, (0, 0, None)))
        for detail in _check_checkpoint(checkpoint, before, totals, trusted):
            yield Breach(7, f"checkpoint {checkpoint.number}", detail)
        before = checkpoint


def _add(totals: _Counts, step: tuple[int, int, int | None]) -> _Counts:
    wallets, entries, outside = step
    return totals[0] + wallets, totals[1] + entries, outside or totals[2]


def _check_checkpoint(
    checkpoint: LedgerCheckpoint,
    before: LedgerCheckpoint | None,
    totals: _Counts,
    trusted: set[bytes],
) -> Iterator[str]:
    if not checkpoints.is_genuine(checkpoint):
        yield "is not what was signed"
    if bytes(checkpoint.public_key) not in trusted:
        yield f"is signed by key {checkpoint.key_id}, which is not in LEDGER_SIGNING_KEY"
    if checkpoint.number != (before.number if before else 0) + 1:
        yield "does not follow the number before it: checkpoints are missing"
    elif bytes(checkpoint.previous) != checkpoints.hash_of(before):
        yield "does not name the one before it"
    said = (checkpoint.wallet_count, checkpoint.entry_count, checkpoint.outside_count)
    if said != totals:
        yield f"counts {said} wallets, entries and transactions outside; its leaves say {totals}"


# --- The newest checkpoint's tree -----------------------------------------------------------------

_LEAVES_AT_ONCE = 20_000


def _tree(newest: LedgerCheckpoint) -> Iterator[Breach]:
    """Recompute the root from the leaves, a range of buckets at a time."""
    level = _recomputed_buckets(newest)
    for depth in range(BUCKET_DEPTH, -1, -1):
        if level != stored_tree.level(depth):
            yield Breach(7, f"tree of checkpoint {newest.number}", f"depth {depth} was changed")
        if depth:
            level = _parents(level)
    root = level.get(0, merkle.EMPTY).hash
    if root != bytes(newest.root):
        yield Breach(
            7,
            f"checkpoint {newest.number}",
            f"signed root {bytes(newest.root).hex()}, its leaves lead to {root.hex()}",
        )


def _recomputed_buckets(newest: LedgerCheckpoint) -> dict[int, Node]:
    leaves_each = newest.wallet_count // _BUCKETS + 1
    step = max(1, min(_BUCKETS, _LEAVES_AT_ONCE // leaves_each))
    level: dict[int, Node] = {}
    for first in range(0, _BUCKETS, step):
        last = first + step - 1
        for bucket, leaves in stored_tree.leaves_between(first, last, newest.number).items():
            level[bucket] = merkle.tree(leaves, BUCKET_DEPTH)
    return level


def _parents(level: dict[int, Node]) -> dict[int, Node]:
    return {
        parent: merkle.join(
            level.get(2 * parent, merkle.EMPTY), level.get(2 * parent + 1, merkle.EMPTY)
        )
        for parent in {child >> 1 for child in level}
    }
