"""Reading request bodies strictly: what is ambiguous or inexact is refused, never guessed."""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from django.utils.datastructures import MultiValueDict
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, DataAndFiles, MultiPartParser

# Half a character: it is not text, and can be neither stored nor sent back.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def is_digits(text: str) -> bool:
    """Whether it is a whole number, plainly written. `int` also takes " 6_0 " and other digits."""
    return text.isascii() and text.isdecimal()


class MalformedJSON(ValueError):
    """The text is not JSON that we accept; the message says why."""


def load_json(raw: bytes) -> Any:
    """Read UTF-8 JSON (RFC 8259) with exact numbers.

    Numbers with a fraction or an exponent become `Decimal`. Raises MalformedJSON for invalid UTF-8,
    NaN and Infinity, duplicate member names (readers disagree on which one counts), halves of
    characters, and documents nested too deeply to be honest.
    """
    try:
        document = json.loads(
            raw.decode("utf-8"),
            parse_float=_decimal,
            parse_constant=_no_constant,
            object_pairs_hook=_unique_members,
        )
        if _SURROGATE_ESCAPE.search(raw):
            json.dumps(document, ensure_ascii=False, default=str).encode()
        return document
    except RecursionError as exc:
        raise MalformedJSON("The document is nested too deeply.") from exc
    except UnicodeDecodeError as exc:
        raise MalformedJSON("The body is not valid UTF-8.") from exc
    except UnicodeEncodeError as exc:
        raise MalformedJSON("An escaped surrogate has no partner.") from exc
    except json.JSONDecodeError as exc:
        raise MalformedJSON(f"Not valid JSON: {exc.msg} at character {exc.pos}.") from exc
    except MalformedJSON:
        raise
    except ValueError as exc:  # an integer of thousands of digits
        raise MalformedJSON("A number is too long.") from exc


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as exc:
        raise MalformedJSON("A number is out of range.") from exc
    if not number.is_finite():
        raise MalformedJSON("A number is out of range.")
    return number


def _no_constant(name: str) -> NoReturn:
    raise MalformedJSON(f"{name} is not JSON.")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJSON("A member name appears twice.")
    return members


class StrictJSONParser(BaseParser):
    """REST framework's door to `load_json`."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return load_json(stream.read())
        except MalformedJSON as refusal:
            raise ParseError(str(refusal)) from refusal


class StrictMultiPartParser(MultiPartParser):
    """A form as strict as JSON is here: each name once, of a file too, and text in UTF-8."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Any = None
    ) -> "DataAndFiles[Any, Any]":
        # Case does not matter in a media type (RFC 9110), though it does in a boundary.
        kind, semicolon, parameters = (media_type or "").partition(";")
        media_type = f"{kind.lower()}{semicolon}{parameters}"
        # Django puts U+FFFD for what is not UTF-8; as Latin-1 every byte lasts until it is read.
        sent = super().parse(stream, media_type, {**(parser_context or {}), "encoding": "latin-1"})
        parts = [*_parts(sent.data), *_parts(sent.files)]
        if len({name for name, _ in parts}) < len(parts):
            raise ParseError("A field name appears twice.")
        try:
            texts = {_utf8(name): [_utf8(text)] for name, text in _parts(sent.data)}
        except UnicodeDecodeError as exc:
            raise ParseError("The body is not valid UTF-8.") from exc
        files = {_utf8(name): [file] for name, file in _parts(sent.files)}
        return DataAndFiles(MultiValueDict(texts), MultiValueDict(files))


def _parts(named: MultiValueDict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in named.lists() for value in values]


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode()
