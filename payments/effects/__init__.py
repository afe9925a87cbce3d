"""What a gateway's statement does to our books, whether an event brought it or a question did.

One module for each subject. Call `apply` inside a database transaction.
"""

from types import ModuleType

from payments.effects import intents, refunds
from payments.effects.disagreement import Disagreement
from payments.gateways.base import Statement, Subject
from payments.models import DepositRefund, PaymentIntent

__all__ = ["COLUMNS", "Disagreement", "Order", "apply", "named"]

Order = PaymentIntent | DepositRefund
_MODULES: dict[Subject, ModuleType] = {Subject.INTENT: intents, Subject.REFUND: refunds}
# Where an event keeps what it is about.
COLUMNS = {Subject.INTENT: "intent", Subject.REFUND: "refund"}


def apply(said: Statement, gateway: str) -> Order | None:
    """Bring what the gateway speaks of to where it says that it is; None: it is nothing of ours.

    Raises Disagreement if the gateway and we do not mean the same, and DomainError if our books
    refuse.
    """
    module = _MODULES.get(said.subject)
    return module.apply(said, gateway) if module else None


def named(said: Statement, gateway: str) -> Order | None:
    """What the gateway speaks of, without a lock, for staff to see."""
    module = _MODULES.get(said.subject)
    return module.named(said).filter(gateway=gateway).first() if module else None
