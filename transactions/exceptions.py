"""Why a transaction is refused, beyond the wallet's own reasons (`wallet.exceptions`)."""

from fintech_core.exceptions import DomainError


class SelfTransfer(DomainError):
    code = "self_transfer"
    title = "You cannot send money to yourself."


class RecipientNotFound(DomainError):
    code = "recipient_not_found"
    title = "There is no such recipient."


class RecipientUnavailable(DomainError):
    code = "recipient_unavailable"
    title = "The recipient cannot receive this payment."


class SenderInactive(DomainError):
    """The account was deactivated after the request was authenticated."""

    code = "permission_denied"
    title = "The account is not active."
    status = 403
