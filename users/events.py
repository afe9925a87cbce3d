"""What customers' systems hear of their KYC; see `fintech_core.webhooks.outbox`."""

from fintech_core.webhooks.kinds import EventType
from fintech_core.webhooks.outbox import Happened, emit
from users.models import KYCStatus, User

_KINDS: dict[str, EventType] = {
    KYCStatus.APPROVED: EventType.KYC_APPROVED,
    KYCStatus.REJECTED: EventType.KYC_REJECTED,
}


def kyc_decided(user: User) -> None:
    """Call it inside the transaction of the decision."""
    # It describes requests, too, and so knows the module that calls this one.
    from users.serializers import UserSerializer

    emit(Happened(_KINDS[user.kyc_status], user.pk, UserSerializer(user).data))
