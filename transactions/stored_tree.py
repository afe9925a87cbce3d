"""The tree of the newest checkpoint, kept in PostgreSQL so that the next one rehashes little."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from fintech_core.database import execute, query
from transactions import merkle
from transactions.merkle import BUCKET_DEPTH, Leaf, Node
from transactions.seals import OUTSIDE

BUCKETS_AT_ONCE = 1_000
_BUCKETS = 2**BUCKET_DEPTH
_LEAVES_AT_ONCE = 20_000


class CheckpointRefused(Exception):
    """What the next checkpoint would build on is not what was signed: the past was changed."""


@dataclass(frozen=True)
class _Change:
    """A node of the tree, as it was at the last checkpoint and as it is at this one."""

    old: Node
    new: Node


_NOTHING = _Change(merkle.EMPTY, merkle.EMPTY)
_Changes = dict[int, _Change]  # by prefix, at one depth
_Nodes = dict[tuple[int, int], Node]  # by depth and prefix


# The heads of the chains in some buckets, as of one checkpoint. Each by its own index, whatever
# PostgreSQL believes of the table: `+ 0` keeps it from the index of numbers, where all leaves are.
_LEAVES = """
WITH chain AS (
    SELECT id FROM wallet_wallet WHERE transactions_bucket(id) {where}
     UNION ALL
    SELECT %(outside)s WHERE transactions_bucket(%(outside)s) {where}
)
SELECT chain.id, head.entry_count, head.seal
  FROM chain
  JOIN LATERAL (
       SELECT entry_count, seal FROM transactions_checkpointleaf
        WHERE wallet_id = chain.id AND number + 0 <= %(number)s
        ORDER BY entry_count DESC LIMIT 1) head ON true
"""
_LEAVES_IN = _LEAVES.format(where="= ANY(%(buckets)s)")
_LEAVES_BETWEEN = _LEAVES.format(where="BETWEEN %(first)s AND %(last)s")


def grow(number: int, *, signed_root: bytes | None) -> Node:
    """Rehash what moved, from the buckets up to the root. Returns the new root.

    `signed_root` is the last checkpoint's. Raises CheckpointRefused if a node, a leaf or the root
    that is about to be replaced is not what it was then.
    """
    changes = _changed_buckets(number)
    for depth in range(BUCKET_DEPTH - 1, -1, -1):
        changes = _changed_parents(changes, depth)
    root = changes[0]
    if root.old.hash != (signed_root or merkle.EMPTY.hash):
        raise CheckpointRefused("The stored tree is not the one whose root was signed.")
    return root.new


def _changed_buckets(number: int) -> _Changes:
    rows = query(
        "SELECT DISTINCT transactions_bucket(wallet_id) FROM transactions_checkpointleaf "
        "WHERE number = %(number)s ORDER BY 1",
        number=number,
    )
    buckets = [row[0] for row in rows]
    changes: _Changes = {}
    for start in range(0, len(buckets), BUCKETS_AT_ONCE):
        changes |= _rehash_buckets(number, buckets[start : start + BUCKETS_AT_ONCE])
    return changes


def _rehash_buckets(number: int, buckets: list[int]) -> _Changes:
    older = _leaves_in(buckets, number - 1)
    newest = _leaves_in(buckets, number)
    return _replace(
        BUCKET_DEPTH,
        {
            bucket: _Change(
                merkle.tree(older.get(bucket, []), BUCKET_DEPTH),
                merkle.tree(newest.get(bucket, []), BUCKET_DEPTH),
            )
            for bucket in buckets
        },
    )


def _changed_parents(changes: _Changes, depth: int) -> _Changes:
    """The nodes at `depth` above the changed ones at the next depth."""
    parents = {child >> 1 for child in changes}
    beside = {2 * parent + side for parent in parents for side in (0, 1)} - changes.keys()
    stored = _nodes([(depth + 1, child) for child in beside])
    family = changes | {child: _Change(node, node) for (_, child), node in stored.items()}
    joined = {}
    for parent in parents:
        left, right = (family.get(2 * parent + side, _NOTHING) for side in (0, 1))
        joined[parent] = _Change(merkle.join(left.old, right.old), merkle.join(left.new, right.new))
    return _replace(depth, joined)


def _replace(depth: int, changes: _Changes) -> _Changes:
    """Store the new nodes, if the old ones are what is stored."""
    stored = _nodes([(depth, prefix) for prefix in changes])
    for prefix, change in changes.items():
        if stored.get((depth, prefix), merkle.EMPTY) != change.old:
            raise CheckpointRefused(
                f"The leaves of the last checkpoint were changed (bucket {prefix:b})."
            )
    execute(
        "INSERT INTO transactions_checkpointnode (depth, prefix, leaf_count, hash) "
        "SELECT %(depth)s, * FROM unnest(%(prefixes)s::int[], %(counts)s::bigint[], "
        "%(hashes)s::bytea[]) "
        "ON CONFLICT (depth, prefix) DO UPDATE "
        "SET leaf_count = excluded.leaf_count, hash = excluded.hash",
        depth=depth,
        prefixes=list(changes),
        counts=[change.new.leaf_count for change in changes.values()],
        hashes=[change.new.hash for change in changes.values()],
    )
    return changes


def _nodes(places: list[tuple[int, int]]) -> _Nodes:
    """The stored nodes at these (depth, prefix); an empty subtree has none."""
    rows = query(
        "SELECT depth, prefix, leaf_count, hash FROM transactions_checkpointnode "
        "JOIN unnest(%(depths)s::int[], %(prefixes)s::int[]) AS wanted (depth, prefix) "
        "USING (depth, prefix)",
        depths=[depth for depth, _ in places],
        prefixes=[prefix for _, prefix in places],
    )
    return {(depth, prefix): Node(count, bytes(hashed)) for depth, prefix, count, hashed in rows}


def level(depth: int) -> dict[int, Node]:
    """All stored nodes at one depth, by prefix."""
    rows = query(
        "SELECT prefix, leaf_count, hash FROM transactions_checkpointnode WHERE depth = %(depth)s",
        depth=depth,
    )
    return {prefix: Node(count, bytes(hashed)) for prefix, count, hashed in rows}


def leaves_between(first: int, last: int, number: int) -> dict[int, list[Leaf]]:
    """The leaves of checkpoint `number` in the buckets from `first` to `last`."""
    return _by_bucket(
        query(_LEAVES_BETWEEN, first=first, last=last, number=number, outside=OUTSIDE)
    )


def _leaves_in(buckets: list[int], number: int) -> dict[int, list[Leaf]]:
    return _by_bucket(query(_LEAVES_IN, buckets=buckets, number=number, outside=OUTSIDE))


def _by_bucket(rows: list[tuple[UUID, int, memoryview]]) -> dict[int, list[Leaf]]:
    leaves: dict[int, list[Leaf]] = {}
    for wallet_id, entry_count, seal in rows:
        leaf = Leaf(wallet_id, entry_count, bytes(seal))
        leaves.setdefault(merkle.bucket_of(wallet_id), []).append(leaf)
    return leaves


def siblings_of(leaf: Leaf, number: int) -> list[bytes]:
    """The nodes beside the way from the root down to the leaf, at the newest checkpoint."""
    key = leaf.key
    way = [(depth, merkle.prefix(key, depth)) for depth in range(BUCKET_DEPTH + 1)]
    return _siblings(leaf, number, _nodes(way + [(depth, prefix ^ 1) for depth, prefix in way[1:]]))


def siblings_in(number: int, leaf: Leaf, *, wallets: int) -> list[bytes]:
    """The same at any checkpoint, from all its leaves; `wallets` is how many those are, about."""
    nodes = {
        (depth, prefix): node
        for depth, level in levels(number, wallets)
        for prefix, node in level.items()
    }
    return _siblings(leaf, number, nodes)


def _siblings(leaf: Leaf, number: int, nodes: _Nodes) -> list[bytes]:
    siblings: list[bytes] = []
    for depth in range(1, BUCKET_DEPTH + 1):
        prefix = merkle.prefix(leaf.key, depth)
        if nodes.get((depth - 1, prefix >> 1), merkle.EMPTY).leaf_count <= 1:
            return siblings
        siblings.append(nodes.get((depth, prefix ^ 1), merkle.EMPTY).hash)
    bucket = merkle.bucket_of(leaf.wallet_id)
    leaves = _leaves_in([bucket], number).get(bucket, [])
    return siblings + merkle.siblings_below(leaves, BUCKET_DEPTH, leaf.key)


# --- The tree computed anew -----------------------------------------------------------------------


def rebuild(number: int, wallets: int, *, signed_root: bytes) -> None:
    """Store the tree of checkpoint `number` where there is none. Raises CheckpointRefused if its
    leaves do not lead to the root that was signed.
    """
    root = merkle.EMPTY
    for depth, level in levels(number, wallets):
        _replace(depth, {prefix: _Change(merkle.EMPTY, node) for prefix, node in level.items()})
        root = level.get(0, merkle.EMPTY)
    if root.hash != signed_root:
        raise CheckpointRefused("The leaves do not lead to the root that was signed.")


def levels(number: int, wallets: int) -> Iterator[tuple[int, dict[int, Node]]]:
    """Each depth and its nodes, from the buckets up to the root."""
    level = bucket_level(number, wallets)
    for depth in range(BUCKET_DEPTH, -1, -1):
        yield depth, level
        level = parents_of(level)


def bucket_level(number: int, wallets: int) -> dict[int, Node]:
    """The buckets of checkpoint `number` from its leaves, some of them at a time."""
    leaves_each = wallets // _BUCKETS + 1
    step = max(1, min(_BUCKETS, _LEAVES_AT_ONCE // leaves_each))
    level: dict[int, Node] = {}
    for first in range(0, _BUCKETS, step):
        for bucket, leaves in leaves_between(first, first + step - 1, number).items():
            level[bucket] = merkle.tree(leaves, BUCKET_DEPTH)
    return level


def parents_of(level: dict[int, Node]) -> dict[int, Node]:
    """The next depth towards the root."""
    return {
        parent: merkle.join(
            level.get(2 * parent, merkle.EMPTY), level.get(2 * parent + 1, merkle.EMPTY)
        )
        for parent in {child >> 1 for child in level}
    }
