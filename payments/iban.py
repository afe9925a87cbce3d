"""Bank account numbers (IBAN, ISO 13616), as people type them and as machines write them."""

import re

from schwifty import IBAN
from schwifty.exceptions import SchwiftyException

_MACHINE = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", re.ASCII)


class IBANInvalid(ValueError):
    """The text is no account number; the message does not repeat it."""


def parse_iban(text: str) -> str:
    """In upper case and without spaces, if country, length, structure and check digits (ISO 7064,
    MOD 97-10) are right. Raises IBANInvalid."""
    compact = text.replace(" ", "").upper()
    if not _MACHINE.fullmatch(compact):
        raise IBANInvalid("An IBAN begins with a country and two digits.")
    try:
        IBAN(compact)
    except SchwiftyException:
        raise IBANInvalid("This is no IBAN: a digit is wrong, or missing.") from None
    return compact
