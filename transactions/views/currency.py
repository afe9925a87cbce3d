"""The currency of a payment may be named or left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from users.models import User
from wallet.queries import wallet_of


def without_own_currency(
    caller: User, asked: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """The payments as they count for idempotency: the wallet's own currency is as good as none.

    Asks for the wallet only if a currency is named.
    """
    if not any("currency" in payment for payment in asked):
        return asked
    own = wallet_of(caller.pk).currency
    return [
        {name: value for name, value in payment.items() if (name, value) != ("currency", own)}
        for payment in asked
    ]
