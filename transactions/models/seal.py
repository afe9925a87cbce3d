"""The seals of the ledger. `migrations/0004_seals.py` writes them and refuses everything else."""

from django.db import models

from transactions.models.ledger import Transaction
from wallet.models import Wallet


class LedgerSeal(models.Model):
    """What one entry of a wallet, and everything before it, was when it was posted.

    `seal` is SHA-256 over the wallet's previous seal and the digest of the entry's transaction, so
    the newest seal of a wallet stands for its whole history. See `docs/ledger-proof.md`.

    Invariants
    * Each wallet entry has one, from the moment it is committed.
    * Only the trigger that closes a transaction's books writes one; the serving role cannot.
    """

    pk = models.CompositePrimaryKey("wallet_id", "sequence")
    # Written by a trigger that has just read the wallet's entry: a foreign key would only cost.
    wallet = models.ForeignKey(
        Wallet,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
        editable=False,
    )
    sequence = models.BigIntegerField(editable=False)
    seal = models.BinaryField(editable=False)

    def __str__(self) -> str:
        return f"seal {self.sequence} of wallet {self.wallet_id}"


class OutsideSeal(models.Model):
    """The same for transactions that touch no wallet: they form one chain of their own."""

    sequence = models.BigIntegerField(primary_key=True, editable=False)
    transaction = models.OneToOneField(
        Transaction,
        on_delete=models.PROTECT,
        related_name="+",
        db_constraint=False,
        editable=False,
    )
    seal = models.BinaryField(editable=False)

    def __str__(self) -> str:
        return f"outside seal {self.sequence}"
