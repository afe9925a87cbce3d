"""The tree of a checkpoint: where each wallet's head is, and what proves that it is there.

A leaf is one chain of seals. Its place is given by the bits of SHA-256 over the wallet's id, so a
root commits to at most one head for each wallet; nobody can be shown one and others another.

* No leaf below a node: the node is `EMPTY`. One leaf: the node is that leaf. More: it is
  SHA-256(0x01 ‖ left ‖ right), left being the leaves whose next bit is 0.
* A leaf is SHA-256(0x00 ‖ wallet id (16 bytes) ‖ number of entries (8 bytes, big-endian) ‖ seal).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

BUCKET_DEPTH = 16  # nodes above this depth are stored, those below are computed when needed


@dataclass(frozen=True)
class Node:
    """A subtree: how many leaves it holds, and its hash."""

    leaf_count: int
    hash: bytes


EMPTY = Node(0, hashlib.sha256(b"").digest())


@dataclass(frozen=True)
class Leaf:
    """The head of one chain of seals."""

    wallet_id: UUID
    entry_count: int
    seal: bytes

    @property
    def key(self) -> bytes:
        return key_of(self.wallet_id)

    def node(self) -> Node:
        counted = self.entry_count.to_bytes(8, "big")
        encoded = b"\x00" + self.wallet_id.bytes + counted + self.seal
        return Node(1, hashlib.sha256(encoded).digest())


def key_of(wallet_id: UUID) -> bytes:
    return hashlib.sha256(wallet_id.bytes).digest()


def bucket_of(wallet_id: UUID) -> int:
    """The prefix of the stored node, at `BUCKET_DEPTH`, that the wallet is below."""
    return prefix(key_of(wallet_id), BUCKET_DEPTH)


def prefix(key: bytes, depth: int) -> int:
    """The first `depth` bits."""
    return int.from_bytes(key, "big") >> (256 - depth)


def bit(key: bytes, position: int) -> int:
    return key[position // 8] >> (7 - position % 8) & 1


def join(left: Node, right: Node) -> Node:
    """The parent of two nodes. A lone leaf rises, so paths are as long as the wallets are many."""
    leaf_count = left.leaf_count + right.leaf_count
    if leaf_count <= 1:
        return left if left.leaf_count else right
    return Node(leaf_count, hashlib.sha256(b"\x01" + left.hash + right.hash).digest())


def tree(leaves: Sequence[Leaf], depth: int) -> Node:
    """The subtree at `depth` that holds exactly these leaves, which agree in their bits so far."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaves[0].node()
    left, right = _halves(leaves, depth)
    return join(tree(left, depth + 1), tree(right, depth + 1))


def siblings_below(leaves: Sequence[Leaf], depth: int, key: bytes) -> list[bytes]:
    """From `depth` down to the leaf with `key`: the hashes of the nodes beside the way."""
    if len(leaves) <= 1:
        return []
    halves = _halves(leaves, depth)
    mine = bit(key, depth)
    beside = tree(halves[1 - mine], depth + 1).hash
    return [beside, *siblings_below(halves[mine], depth + 1, key)]


def root_from(leaf: Leaf, siblings: Sequence[bytes]) -> bytes:
    """The root that this leaf and the nodes beside its way, from the root down, belong to."""
    hashed = leaf.node().hash
    for depth in range(len(siblings) - 1, -1, -1):
        beside = siblings[depth]
        pair = beside + hashed if bit(leaf.key, depth) else hashed + beside
        hashed = hashlib.sha256(b"\x01" + pair).digest()
    return hashed


def _halves(leaves: Sequence[Leaf], depth: int) -> tuple[list[Leaf], list[Leaf]]:
    halves: tuple[list[Leaf], list[Leaf]] = ([], [])
    for leaf in leaves:
        halves[bit(leaf.key, depth)].append(leaf)
    return halves
