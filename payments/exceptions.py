"""Why a payment call or a webhook is refused."""

from fintech_core.exceptions import TITLES, DomainError, ServiceUnavailable


class InvalidSignature(DomainError):
    """Missing, wrong, too old or too new: the sender has not shown who it is."""

    code = "invalid_signature"
    title = "The webhook's signature is missing, wrong, or older than five minutes."
    status = 400


class MalformedEvent(DomainError):
    """Whoever signed this is known, but it is not an event."""

    code = "malformed_event"
    title = "The body is signed, but it is not an event."
    status = 400


class NotFound(DomainError):
    """An intent that is not the caller's, or a gateway that is unknown or not configured."""

    code = "not_found"
    title = TITLES["not_found"]
    status = 404


class GatewayUnavailable(ServiceUnavailable):
    """The gateway did not answer. The intent stands; a retry with the same key goes on with it."""


class GatewayRefused(Exception):
    """The gateway will not do it, now or later; `failure_code` is its word for why."""

    def __init__(self, failure_code: str) -> None:
        self.failure_code = failure_code
        super().__init__(failure_code)
