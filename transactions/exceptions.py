"""Why a transaction is refused, beyond the wallet's own reasons (`wallet.exceptions`)."""

from fintech_core.exceptions import TITLES, DomainError, InvalidState


class SelfTransfer(DomainError):
    code = "self_transfer"
    title = "You cannot send money to yourself."


class RecipientNotFound(DomainError):
    code = "recipient_not_found"
    title = "There is no such recipient."


class RecipientUnavailable(DomainError):
    code = "recipient_unavailable"
    title = "The recipient cannot receive this payment."


class AmountExceedsRemaining(DomainError):
    """More than a hold reserves, or than a transaction has left to refund."""

    code = "amount_exceeds_remaining"
    title = "The amount is more than what remains."


class HoldExpired(InvalidState):
    """It was not taken in time, whether or not a job has tidied it up yet."""


class NotFound(DomainError):
    """A hold or a transaction that is not there, or that the caller may not see."""

    code = "not_found"
    title = TITLES["not_found"]
    status = 404


class NotAllowed(DomainError):
    """A party who may see it, but not do this with it."""

    code = "permission_denied"
    title = TITLES["permission_denied"]
    status = 403


class SenderInactive(DomainError):
    """The account was deactivated after the request was authenticated."""

    code = "permission_denied"
    title = "The account is not active."
    status = 403
