"""What a gateway says of a payment intent, and the credit that follows from it."""

from django.db.models import QuerySet

from payments.effects.disagreement import Disagreement
from payments.gateways.base import Outcome, Statement
from payments.models import PaymentIntent
from transactions.services import TransactionService

_OPEN = (PaymentIntent.Status.REQUIRES_PAYMENT, PaymentIntent.Status.PROCESSING)
# From which statuses an outcome leads on. From all others it changes nothing: it came late.
_MOVES: dict[Outcome, tuple[str, ...]] = {
    Outcome.PROCESSING: (PaymentIntent.Status.REQUIRES_PAYMENT,),
    Outcome.FAILED: _OPEN,
    Outcome.CANCELED: _OPEN,
    # Money that did arrive is never lost, however late the news.
    Outcome.SUCCEEDED: tuple(s for s in PaymentIntent.Status if s != "succeeded"),
}


def apply(said: Statement, gateway: str) -> PaymentIntent | None:
    """The intent, moved on as far as the statement leads; None: there is no such intent."""
    intent = _lock(said, gateway)
    if intent is None:
        return None
    _require_agreement(intent, said)
    if intent.status in _MOVES[said.outcome]:
        _move(intent, said.outcome)
    return intent


def named(said: Statement) -> QuerySet[PaymentIntent]:
    return PaymentIntent.objects.filter(gateway_reference=said.gateway_reference)


def _lock(said: Statement, gateway: str) -> PaymentIntent | None:
    """The intent that the event names, locked. Raises Disagreement if another gateway has it."""
    same_reference = named(said)
    intent = same_reference.select_for_update(no_key=True).filter(gateway=gateway).first()
    if intent is None and (other := same_reference.first()):
        raise Disagreement(f"The reference is that of an intent of the {other.gateway} gateway.")
    return intent


def _require_agreement(intent: PaymentIntent, said: Statement) -> None:
    if (said.amount, said.currency) != (intent.amount, intent.currency):
        raise Disagreement(
            f"The event says {said.amount} {said.currency}, the intent {intent.amount}"
            f" {intent.currency}."
        )


def _move(intent: PaymentIntent, outcome: Outcome) -> None:
    if outcome == Outcome.SUCCEEDED:
        intent.transaction = TransactionService.add_money(
            wallet_id=intent.wallet_id,
            amount=intent.amount,
            currency=intent.currency,
            effect_key=f"payment_intent:{intent.pk}",
            description=f"Top-up through {intent.gateway}",
            metadata={"payment_intent_id": str(intent.pk)},
        )
    intent.status = PaymentIntent.Status(outcome)
    intent.save(update_fields=["status", "transaction", "updated_at"])
