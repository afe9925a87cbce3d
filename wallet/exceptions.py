"""Why money may not move."""

from fintech_core.exceptions import TITLES, DomainError


class KYCRequired(DomainError):
    code = "kyc_required"
    title = "Your identity must be approved before you can do this."
    status = 403


class CurrencyMismatch(DomainError):
    code = "currency_mismatch"
    title = "The wallet does not hold this currency."


class WalletFrozen(DomainError):
    code = "wallet_frozen"
    title = "The wallet is frozen or closed: no money can leave it."


class InsufficientFunds(DomainError):
    code = "insufficient_funds"
    title = "The wallet has less money available than this needs."


class LimitExceeded(DomainError):
    code = "limit_exceeded"
    title = "This would exceed a limit of the account."


class WalletClosed(DomainError):
    """Money arrived for a wallet that takes none any more."""

    code = "wallet_closed"
    title = "The wallet is closed."


class WalletNotFound(DomainError):
    """Staff named a wallet that is not there."""

    code = "not_found"
    title = TITLES["not_found"]
    status = 404
