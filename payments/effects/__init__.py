"""What a gateway's statement does to our books, whether an event brought it or a question did.

One module for each subject. Call `apply` inside a database transaction.
"""

from payments.effects import intents
from payments.effects.disagreement import Disagreement
from payments.gateways.base import Statement, Subject
from payments.models import PaymentIntent

__all__ = ["Disagreement", "apply", "named"]


def apply(said: Statement, gateway: str) -> PaymentIntent | None:
    """Bring what the gateway speaks of to where it says that it is; None: it is nothing of ours.

    Raises Disagreement if the gateway and we do not mean the same, and DomainError if our books
    refuse.
    """
    if said.subject != Subject.INTENT:
        return None
    return intents.apply(said, gateway)


def named(said: Statement, gateway: str) -> PaymentIntent | None:
    """What the gateway speaks of, without a lock, for staff to see."""
    return intents.named(said).filter(gateway=gateway).first()
