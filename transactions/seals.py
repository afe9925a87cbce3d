"""Reading the seals. A trigger writes them; see `migrations/0004_seals.py`."""

from uuid import UUID

from transactions.models import LedgerSeal

BEFORE_THE_FIRST = bytes(32)
# Stands for the transactions that touch no wallet, wherever a wallet's id names a chain of seals.
OUTSIDE = UUID(int=0)


def seal_of(wallet_id: UUID, sequence: int) -> bytes | None:
    """The seal of one entry, which stands for all before it, too; None if there is no such entry.

    Before the first entry it is 32 zero bytes, so a statement without lines can name one as well.
    """
    if sequence == 0:
        return BEFORE_THE_FIRST
    found = LedgerSeal.objects.filter(wallet_id=wallet_id, sequence=sequence)
    seal = found.values_list("seal", flat=True).first()
    return None if seal is None else bytes(seal)
