"""JSON as the API writes it."""

from rest_framework.utils.encoders import JSONEncoder

# REST framework's own renderer sets up an encoder for each answer.
_encode = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def as_json(answer: object) -> str:
    """What REST framework's renderer writes."""
    return for_scripts(_encode(answer))


def for_scripts(text: str) -> str:
    """JSON may hold these two line ends as they are; JavaScript once could not."""
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
