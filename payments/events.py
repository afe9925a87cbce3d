"""What customers' systems hear of their payouts; see `fintech_core.webhooks.outbox`."""

from fintech_core.webhooks.kinds import EventType
from fintech_core.webhooks.outbox import Happened, emit
from payments.models import Payout

_KINDS: dict[str, EventType] = {
    Payout.Status.PAID: EventType.PAYOUT_PAID,
    Payout.Status.FAILED: EventType.PAYOUT_FAILED,
}


def payout_settled(payout: Payout) -> None:
    """Call it inside the transaction that settles it."""
    # It describes requests, too, and so knows the module that calls this one.
    from payments.serializers import PayoutSerializer

    emit(Happened(_KINDS[payout.status], payout.user_id, PayoutSerializer(payout).data))
