"""What customers' systems hear of their wallet; see `fintech_core.webhooks.outbox`."""

from fintech_core.webhooks.kinds import EventType
from fintech_core.webhooks.outbox import Happened, emit
from wallet.models import Wallet
from wallet.serializers import WalletSerializer

_KINDS: dict[str, EventType] = {
    Wallet.Status.ACTIVE: EventType.WALLET_UNFROZEN,
    Wallet.Status.FROZEN: EventType.WALLET_FROZEN,
    Wallet.Status.CLOSED: EventType.WALLET_CLOSED,
}


def status_changed(wallet: Wallet) -> None:
    """Staff's reason is not among it. Call it inside the transaction of the change."""
    emit(Happened(_KINDS[wallet.status], wallet.user_id, WalletSerializer(wallet).data))
