"""What was signed: each checkpoint and what it counted, and that the seals are what they were."""

from collections.abc import Iterator
from uuid import UUID

from fintech_core.database import query
from transactions import checkpoints, merkle, signing, stored_tree
from transactions.models import LedgerCheckpoint
from transactions.seals import OUTSIDE
from transactions.verification.findings import Breach, Rule, Step, breaches, select_broken
from transactions.verification.ranges import ranges

CHUNK = 20_000


def check() -> Iterator[Step]:
    yield from _outside()
    yield from _leaves()
    newest = LedgerCheckpoint.objects.order_by("-number").first()
    yield Step(0, list(_checkpoints(newest)))
    if newest is not None:
        yield Step(0, list(_tree(newest)))
        yield from _unsigned(newest)


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

# The first of each wallet: from there on nothing is what it was. What lies in an index is looked up
# there (OFFSET 0 or FETCH sees to it), as in `books`: there is no time limit here, either. Of a
# number given twice each counts.
_MOVED_HEADS = """
SELECT DISTINCT ON (leaf.wallet_id) leaf.wallet_id, leaf.entry_count, leaf.number,
       coalesce(seal.seal, outside.seal) IS NULL
  FROM transactions_checkpointleaf leaf
  LEFT JOIN LATERAL (
       SELECT seal FROM transactions_ledgerseal
        WHERE wallet_id = leaf.wallet_id AND sequence = leaf.entry_count OFFSET 0) seal ON true
  LEFT JOIN LATERAL (
       SELECT seal FROM transactions_outsideseal
        WHERE leaf.wallet_id = %(outside)s AND sequence = leaf.entry_count OFFSET 0
       ) outside ON true
 WHERE (leaf.wallet_id, leaf.entry_count) > (%(wallet)s, %(entry)s)
   AND (leaf.wallet_id, leaf.entry_count) <= (%(last_wallet)s, %(last_entry)s)
   AND coalesce(seal.seal, outside.seal) IS DISTINCT FROM leaf.seal
 ORDER BY leaf.wallet_id, leaf.entry_count
"""

# A head that moved had not moved before the checkpoint before: what is new was dated after that.
_HIDDEN = """
SELECT leaf.wallet_id, first.created_at::text, before.number
  FROM transactions_checkpointleaf leaf
  JOIN transactions_ledgercheckpoint before ON before.number = leaf.number - 1
  LEFT JOIN LATERAL (
       SELECT entry_count FROM transactions_checkpointleaf
        WHERE wallet_id = leaf.wallet_id AND entry_count < leaf.entry_count
        ORDER BY entry_count DESC LIMIT 1) known ON true
  JOIN LATERAL (
       (SELECT created_at FROM transactions_transactionledger
         WHERE wallet_id = leaf.wallet_id AND sequence > coalesce(known.entry_count, 0)
         ORDER BY sequence FETCH FIRST ROW WITH TIES)
        UNION ALL
       SELECT made.created_at
         FROM transactions_outsideseal outside
         JOIN transactions_transaction made ON made.id = outside.transaction_id
        WHERE leaf.wallet_id = %(outside)s
          AND outside.sequence = coalesce(known.entry_count, 0) + 1
       OFFSET 0) first ON true
 WHERE (leaf.wallet_id, leaf.entry_count) > (%(wallet)s, %(entry)s)
   AND (leaf.wallet_id, leaf.entry_count) <= (%(last_wallet)s, %(last_entry)s)
   AND first.created_at < before.created_at - %(slack)s
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
        hidden = query(
            _HIDDEN,
            wallet=after[0],
            entry=after[1],
            last_wallet=upto[0],
            last_entry=upto[1],
            outside=OUTSIDE,
            slack=checkpoints.DATED_BEFORE_MAX,
        )
        found = [_moved_head(*row) for row in moved] + [_overlooked(*row) for row in hidden]
        yield Step(CHUNK if ends else 0, found)
        after = upto


def _moved_head(wallet_id: UUID, entry_count: int, number: int, is_gone: bool) -> Breach:
    detail = (
        f"checkpoint {number} signed {entry_count} entries, and that one is gone: a tail was cut"
        if is_gone
        else f"its first {entry_count} entries are not those that checkpoint {number} signed: "
        "history was rewritten"
    )
    return Breach(7, _chain(wallet_id), detail)


def _overlooked(wallet_id: UUID, dated: str, number: int) -> Breach:
    detail = f"has an entry of {dated} that checkpoint {number} did not sign"
    return Breach(7, _chain(wallet_id), detail)


def _chain(wallet_id: UUID) -> str:
    return "transactions outside all wallets" if wallet_id == OUTSIDE else f"wallet {wallet_id}"


# --- What the newest checkpoint does not sign -----------------------------------------------------

_UNSIGNED = """
SELECT wallet.id, first.created_at::text
  FROM wallet_wallet wallet
  LEFT JOIN LATERAL (
       SELECT entry_count FROM transactions_checkpointleaf
        WHERE wallet_id = wallet.id ORDER BY entry_count DESC LIMIT 1) known ON true
  JOIN LATERAL (
       SELECT created_at FROM transactions_transactionledger
        WHERE wallet_id = wallet.id AND sequence > coalesce(known.entry_count, 0)
        ORDER BY sequence FETCH FIRST ROW WITH TIES) first ON true
 WHERE wallet.id BETWEEN %(first)s AND %(last)s AND first.created_at < %(floor)s
"""


def _unsigned(newest: LedgerCheckpoint) -> Iterator[Step]:
    """Each wallet's first entry that no checkpoint signed is later than the newest one."""
    floor = newest.created_at - checkpoints.DATED_BEFORE_MAX
    for part in ranges("wallet_wallet", CHUNK):
        rows = query(_UNSIGNED, first=part.first, last=part.last, floor=floor)
        yield Step(0, [_overlooked(wallet_id, dated, newest.number) for wallet_id, dated in rows])


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
    retired: set[bytes] = set()
    totals: _Counts = (0, 0, 0)
    before = None
    for checkpoint in LedgerCheckpoint.objects.order_by("number").iterator(chunk_size=1_000):
        totals = _add(totals, counted.get(checkpoint.number, (0, 0, None)))
        for detail in _check_checkpoint(checkpoint, before, totals, trusted):
            yield Breach(7, f"checkpoint {checkpoint.number}", detail)
        if before is not None and bytes(before.public_key) != bytes(checkpoint.public_key):
            retired.add(bytes(before.public_key))
        if bytes(checkpoint.public_key) in retired:
            detail = f"is signed by key {checkpoint.key_id}, which another one had followed"
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


def _tree(newest: LedgerCheckpoint) -> Iterator[Breach]:
    """Recompute the root from the leaves, a range of buckets at a time."""
    root = merkle.EMPTY.hash
    for depth, level in stored_tree.levels(newest.number, newest.wallet_count):
        if level != stored_tree.level(depth):
            yield Breach(7, f"tree of checkpoint {newest.number}", f"depth {depth} was changed")
        root = level.get(0, merkle.EMPTY).hash
    if root != bytes(newest.root):
        yield Breach(
            7,
            f"checkpoint {newest.number}",
            f"signed root {bytes(newest.root).hex()}, its leaves lead to {root.hex()}",
        )
