"""Signed checkpoints of the ledger, and the Merkle tree that makes the next one cheap."""

from django.db import models


class LedgerCheckpoint(models.Model):
    """A signed statement of how far the ledger had got. Whoever keeps a copy can prove a rewrite.

    Invariants
    * Numbered 1, 2, 3 …; each names the hash of the one before it.
    * `payload` is what was signed, to the byte; the other columns repeat it.
    * Never changed, never deleted; the database refuses.
    """

    number = models.BigIntegerField(primary_key=True, editable=False)
    created_at = models.DateTimeField(editable=False)
    wallet_count = models.BigIntegerField(editable=False)
    entry_count = models.BigIntegerField(editable=False)
    outside_count = models.BigIntegerField(editable=False)
    root = models.BinaryField(editable=False)
    previous = models.BinaryField(editable=False)
    payload = models.TextField(editable=False)
    signature = models.BinaryField(editable=False)
    key_id = models.CharField(max_length=16, editable=False)
    public_key = models.BinaryField(editable=False)

    def __str__(self) -> str:
        return f"checkpoint {self.number}"


class CheckpointLeaf(models.Model):
    """A chain whose head moved: from `number` on, it had `entry_count` entries, ending in `seal`.

    A chain is a wallet's, or, under the nil UUID, that of the transactions outside all wallets. The
    leaves of a checkpoint are, for each chain, the last one written up to its number.
    """

    pk = models.CompositePrimaryKey("wallet_id", "entry_count")
    wallet_id = models.UUIDField(editable=False)
    entry_count = models.BigIntegerField(editable=False)
    number = models.BigIntegerField(editable=False)
    seal = models.BinaryField(editable=False)

    class Meta:
        indexes = [models.Index(name="transactions_leaf_number", fields=["number"])]

    def __str__(self) -> str:
        return f"leaf of {self.wallet_id} at {self.entry_count}"


class CheckpointNode(models.Model):
    """A node of the newest checkpoint's tree, kept so that the next one rehashes little.

    Not evidence: the root that was signed is, and `verify_ledger` recomputes it from the leaves.
    """

    pk = models.CompositePrimaryKey("depth", "prefix")
    depth = models.SmallIntegerField(editable=False)
    prefix = models.IntegerField(editable=False)
    leaf_count = models.BigIntegerField(editable=False)
    hash = models.BinaryField(editable=False)

    def __str__(self) -> str:
        return f"node {self.prefix:b} at depth {self.depth}"
