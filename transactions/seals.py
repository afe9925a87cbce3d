"""Reading the seals. A trigger writes them; see `migrations/0004_seals.py`."""

from uuid import UUID

from transactions.models import LedgerSeal

# Stands for the transactions that touch no wallet, wherever a wallet's id names a chain of seals.
OUTSIDE = UUID(int=0)


def seal_of(wallet_id: UUID, sequence: int) -> bytes:
    """The seal of one entry, which stands for all before it, too; empty if there is none."""
    found = LedgerSeal.objects.filter(wallet_id=wallet_id, sequence=sequence)
    return bytes(found.values_list("seal", flat=True).first() or b"")
