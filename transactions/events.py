"""What customers' systems hear of money: each party by itself, with its own balance alone.

Call these inside the transaction of the effect; see `fintech_core.webhooks.outbox`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from fintech_core.webhooks.kinds import EventType
from fintech_core.webhooks.outbox import Happened, emit_all
from transactions.models import Hold, Transaction


def deposited(*made: Transaction) -> None:
    emit_all(event for each in made for event in _of(each, payee=EventType.DEPOSIT_SUCCEEDED))


def transferred(made: Iterable[Transaction]) -> None:
    """One transfer, or all of a batch."""
    sent, received = EventType.TRANSFER_SENT, EventType.TRANSFER_RECEIVED
    emit_all(event for each in made for event in _of(each, payer=sent, payee=received))


def refunded(made: Transaction) -> None:
    kind = EventType.REFUND_CREATED
    emit_all(_of(made, payer=kind, payee=kind))


def held(hold: Hold) -> None:
    """A hold came into being, or was resolved; both of its parties see the same of it."""
    held_all([hold])


def held_all(holds: Iterable[Hold]) -> None:
    # It describes requests, too, and so knows the module that calls this one.
    from transactions.serializers import HoldSerializer

    emit_all(
        Happened(_HOLD_KINDS[hold.status], party_id, shown)
        for hold in holds
        for shown in [HoldSerializer(hold).data]
        for party_id in (hold.from_user_id, hold.to_user_id)
    )


_HOLD_KINDS: dict[str, EventType] = {
    Hold.Status.ACTIVE: EventType.HOLD_CREATED,
    Hold.Status.CAPTURED: EventType.HOLD_CAPTURED,
    Hold.Status.VOIDED: EventType.HOLD_VOIDED,
    Hold.Status.EXPIRED: EventType.HOLD_EXPIRED,
}


def _of(
    made: Transaction, *, payer: EventType | None = None, payee: EventType | None = None
) -> Iterator[Happened]:
    """What to tell the parties. To write down what nobody listens to would cost every transfer."""
    heard = {wallet.user_id for wallet, _ in made.moved if wallet.is_heard}
    if not heard:
        return
    if payer and made.from_user_id in heard:
        yield Happened(payer, made.from_user_id, _shown_to(made.from_user_id, made))
    if payee and made.to_user_id in heard:
        yield Happened(payee, made.to_user_id, _shown_to(made.to_user_id, made))


def _shown_to(user_id: UUID, made: Transaction) -> Mapping[str, Any]:
    """As the answer to a money call shows it to this party."""
    from transactions.serializers import money_answer_to  # as in `held_all`

    return money_answer_to(user_id)(made)
