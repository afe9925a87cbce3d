"""What a gateway says of a payment intent, and the credit that follows from it."""

import logging

from django.db.models import QuerySet

from payments.effects.disagreement import lock_same, require_same_money
from payments.gateways.base import Outcome, Statement
from payments.models import PaymentIntent, SuspendedDeposit
from transactions.models import Transaction
from transactions.services import TransactionService
from wallet.exceptions import WalletClosed

logger = logging.getLogger(__name__)

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
    intent = lock_same(named(said), gateway, "intent")
    if intent is None:
        return None
    require_same_money(intent, said, "intent")
    if intent.status in _MOVES.get(said.outcome, ()):
        _move(intent, said.outcome)
    return intent


def named(said: Statement) -> QuerySet[PaymentIntent]:
    return PaymentIntent.objects.filter(gateway_reference=said.gateway_reference)


def _move(intent: PaymentIntent, outcome: Outcome) -> None:
    changed = ["status", "transaction", "late_after", "updated_at"]
    if outcome == Outcome.SUCCEEDED:
        intent.transaction = _credit(intent)
        changed += intent.stop_polling()
        if intent.status not in _OPEN:
            intent.late_after = intent.status
            logger.warning("payment came late", extra={"payment_intent": str(intent.pk)})
    intent.status = PaymentIntent.Status(outcome)
    intent.save(update_fields=changed)


def _credit(intent: PaymentIntent) -> Transaction:
    """To the wallet; for a closed one, which takes nothing any more, to suspense."""
    key, description = f"payment_intent:{intent.pk}", f"Top-up through {intent.gateway}"
    metadata = {"payment_intent_id": str(intent.pk)}
    try:
        return TransactionService.add_money(
            wallet_id=intent.wallet_id,
            amount=intent.amount,
            currency=intent.currency,
            effect_key=key,
            description=description,
            metadata=metadata,
        )
    except WalletClosed:
        made = TransactionService.suspend_money(
            amount=intent.amount,
            currency=intent.currency,
            effect_key=key,
            description=description,
            metadata=metadata,
        )
        SuspendedDeposit.objects.create(intent=intent, transaction=made)
        logger.error("money in suspense", extra={"payment_intent": str(intent.pk)})
        return made
