"""The gateways that this installation has, by name.

A gateway is one module beside this one and one line in `settings.PAYMENT_GATEWAYS`.
"""

from django.conf import settings
from django.utils.module_loading import import_string

from payments.exceptions import NotFound
from payments.gateways.base import Gateway


def available() -> dict[str, Gateway]:
    """The configured gateways. Asked anew at each call: settings decide, nothing is remembered."""
    found = {name: _configured(name) for name in settings.PAYMENT_GATEWAYS}
    return {name: gateway for name, gateway in found.items() if gateway is not None}


def gateway_named(name: str) -> Gateway:
    """Raises NotFound for a gateway that is unknown or not configured."""
    gateway = _configured(name)
    if gateway is None:
        raise NotFound("There is no such gateway here.")
    return gateway


def _configured(name: str) -> Gateway | None:
    path = settings.PAYMENT_GATEWAYS.get(name)
    return import_string(path).from_settings() if path else None


def default_gateway() -> str:
    """Where an intent goes whose maker named no gateway."""
    return "sandbox" if settings.PAYMENTS_SANDBOX else "stripe"
