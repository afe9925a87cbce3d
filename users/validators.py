"""What text from outside may look like."""

import unicodedata

import phonenumbers
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

# Control characters, and those that reverse the direction of what stands around them.
_UNPRINTABLE = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"

plain_line = RegexValidator(
    rf"\A[^\t\n\r{_UNPRINTABLE}]*\Z", "Control characters are not allowed.", code="invalid"
)
plain_text = RegexValidator(
    rf"\A[^{_UNPRINTABLE}]*\Z", "Control characters are not allowed.", code="invalid"
)
ascii_only = RegexValidator(
    r"\A[\x21-\x7e]*\Z",
    "Write the address in ASCII (an international domain as xn--…).",
    code="invalid",
)

E164_PATTERN = r"^\+[1-9][0-9]{6,14}$"
e164 = RegexValidator(
    r"\A\+[1-9][0-9]{6,14}\Z",
    'Write the number in international form, such as "+4915112345678".',
    code="invalid",
)


def tidy_name(text: str) -> str:
    """One spelling per name: composed characters, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def normal_phone_number(text: str) -> str:
    """The one E.164 spelling of a number. Raises ValidationError.

    A calling code that no country has is refused; whether the number is in service is not known
    before a message has reached it.
    """
    e164(text)
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException as refusal:
        raise ValidationError("No country has this calling code.", code="invalid") from refusal
    normal = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    e164(normal)
    return normal
