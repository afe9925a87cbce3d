"""Stripe's way of writing amounts: whole numbers of a minor unit, which is not always ISO 4217's.

https://docs.stripe.com/currencies#minor-units, and its special cases there.
"""

from dataclasses import dataclass
from decimal import Decimal

# Far above what Stripe takes (twelve digits), and far below where arithmetic would round.
MINOR_MAX = 10**15


class NotRepresentable(ValueError):
    """Stripe cannot be asked for exactly this; rounded, it would be another amount."""


@dataclass(frozen=True)
class _Unit:
    """`exponent`: decimals of the API. What is charged, or paid out, is a multiple of the steps."""

    exponent: int = 2
    step: int = 1
    payout_step: int = 1


_WITHOUT_DECIMALS = (
    "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split()  # noqa: SIM905 - as listed
)
_UNITS = {
    # Without decimals. The ariary (MGA) has fifths in ISO 4217, and none at Stripe.
    **dict.fromkeys(_WITHOUT_DECIMALS, _Unit(0)),
    # With three, of which the last is zero.
    **dict.fromkeys(["BHD", "JOD", "KWD", "OMR", "TND"], _Unit(3, step=10, payout_step=10)),
    # Have no decimals any more, and are still written with two, which are zero.
    **dict.fromkeys(["ISK", "UGX"], _Unit(2, step=100, payout_step=100)),
    # Charged with two decimals, paid out without.
    **dict.fromkeys(["HUF", "TWD"], _Unit(2, payout_step=100)),
}
_TWO_DECIMALS = _Unit()


def to_minor(amount: Decimal, currency: str, *, paid_out: bool = False) -> int:
    """The amount (major units) as Stripe writes it. Raises NotRepresentable."""
    unit = _UNITS.get(currency, _TWO_DECIMALS)
    if not amount.is_finite() or not 0 < amount < MINOR_MAX // 1000:
        raise NotRepresentable
    minor = amount.scaleb(unit.exponent)
    if minor != int(minor) or int(minor) % (unit.payout_step if paid_out else unit.step):
        raise NotRepresentable
    return int(minor)


def to_major(minor: int, currency: str) -> Decimal:
    """What Stripe wrote, in major units. Raises NotRepresentable for what is no amount."""
    if not 0 < minor < MINOR_MAX:
        raise NotRepresentable
    return Decimal(minor).scaleb(-_UNITS.get(currency, _TWO_DECIMALS).exponent)
