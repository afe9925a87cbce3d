"""Why a call about endpoints is refused."""

from fintech_core.exceptions import TITLES, DomainError


class NotFound(DomainError):
    """No endpoint, or no delivery, of the caller's."""

    code = "not_found"
    title = TITLES["not_found"]
    status = 404


class NotPermitted(DomainError):
    """Only staff with the permission have the events of everybody sent, or switch others' off."""

    code = "permission_denied"
    title = TITLES["permission_denied"]
    status = 403
