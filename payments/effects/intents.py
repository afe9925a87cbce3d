"""What a gateway says of a payment intent, and the credit that follows from it."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from uuid import UUID

from django.db.models import QuerySet

from fintech_core.database import send_along
from payments.effects.disagreement import lock_same, require_same_money
from payments.gateways.base import Outcome, Statement
from payments.models import PaymentIntent, SuspendedDeposit
from transactions.models import Transaction
from transactions.services import Deposit, TransactionService
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


def is_plain_credit(intent: PaymentIntent, said: Statement) -> bool:
    """Whether the statement can only lead to a credit: in time, and of what was ordered."""
    return (
        said.outcome == Outcome.SUCCEEDED
        and intent.status in _OPEN
        and (said.amount, said.currency) == (intent.amount, intent.currency)
    )


def deposit_of(intent: PaymentIntent) -> Deposit:
    """What the credit of this intent is."""
    return Deposit(
        wallet_id=intent.wallet_id,
        amount=intent.amount,
        currency=intent.currency,
        effect_key=effect_key(intent),
        description=f"Top-up through {intent.gateway}",
        metadata={"payment_intent_id": str(intent.pk)},
    )


def effect_key(intent: PaymentIntent) -> str:
    return f"payment_intent:{intent.pk}"


def mark_credited(credits: Mapping[UUID, UUID]) -> None:
    """Intents, locked, and the transactions that credited them: they have succeeded.

    What came to an intent that had been given up is marked as late, for staff.
    """
    send_along(_CREDITED, intents=list(credits), transactions=list(credits.values()))


_CREDITED = """
UPDATE payments_paymentintent
   SET status = 'succeeded', transaction_id = credit.transaction_id, updated_at = now(),
       late_after = CASE WHEN status IN ('requires_payment', 'processing') THEN late_after
                         ELSE status END,
       next_poll_at = NULL, needs_staff = false
  FROM unnest(%(intents)s::uuid[], %(transactions)s::uuid[]) AS credit (intent_id, transaction_id)
 WHERE id = credit.intent_id
"""


def _move(intent: PaymentIntent, outcome: Outcome) -> None:
    if outcome != Outcome.SUCCEEDED:
        intent.status = PaymentIntent.Status(outcome)
        intent.save(update_fields=["status", "updated_at"])
        return
    if intent.status not in _OPEN:
        logger.warning("payment came late", extra={"payment_intent": str(intent.pk)})
    mark_credited({intent.pk: _credit(intent).pk})


def _credit(intent: PaymentIntent) -> Transaction:
    """To the wallet; for a closed one, which takes nothing any more, to suspense."""
    facts = asdict(deposit_of(intent))
    try:
        return TransactionService.add_money(**facts)
    except WalletClosed:
        del facts["wallet_id"]
        made = TransactionService.suspend_money(**facts)
        SuspendedDeposit.objects.create(intent=intent, transaction=made)
        logger.error("money in suspense", extra={"payment_intent": str(intent.pk)})
        return made
