"""The gateways that this installation has, by name.

A gateway is one module beside this one and one line in `settings.PAYMENT_GATEWAYS`.
"""

from django.conf import settings
from django.utils.module_loading import import_string

from payments.exceptions import NotFound
from payments.gateways.base import Gateway


def available() -> dict[str, Gateway]:
    """The configured gateways. Asked anew at each call: settings decide, nothing is remembered."""
    found: dict[str, Gateway] = {}
    for name, path in settings.PAYMENT_GATEWAYS.items():
        gateway = import_string(path).from_settings()
        if gateway is not None:
            found[name] = gateway
    return found


def gateway_named(name: str) -> Gateway:
    """Raises NotFound for a gateway that is unknown or not configured."""
    try:
        return available()[name]
    except KeyError:
        raise NotFound("There is no such gateway here.") from None


def default_gateway() -> str:
    """Where an intent goes whose maker named no gateway."""
    return "sandbox" if settings.PAYMENTS_SANDBOX else "stripe"
