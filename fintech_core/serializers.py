"""What every serializer of a request shares."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import MaxLengthValidator, ProhibitNullCharactersValidator
from django.utils.functional import cached_property
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import empty
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from fintech_core.parsers import is_digits

# An answer must not grow with what was sent.
UNKNOWN_NAMED = 20
NAME_SHOWN = 64


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members it does not know.

    Silence would hide a client's typing mistake, and would let an attempt at mass assignment
    (`is_staff`, `balance`, `kyc_status`) look like a success.
    """

    @classmethod
    def read(cls, data: Any) -> Any:
        """The validated, normalised request. Raises ValidationError.

        By one instance for all requests: fields keep nothing of what they check, and to make them
        anew takes longer than the check.
        """
        return _instance(cls).run_validation(data)

    def run_validation(self, data: Any = empty) -> Any:
        """As the parent, which asks each field a dozen questions that nobody here gives cause for.

        Whatever the short way does not let pass is left to the parent: it alone says what is wrong.
        """
        if type(data) is dict and self._members is not None:
            accepted = _accepted(self._members, data)
            if accepted is not None:
                return accepted
        return super().run_validation(data)

    @cached_property
    def _members(self) -> "list[_Member] | None":
        """For the short way. None: there is more to a request of this class than plain fields."""
        more_than_fields = (
            self.validators
            or type(self).to_internal_value is not StrictSerializer.to_internal_value
            or type(self).validate is not serializers.Serializer.validate
            or getattr(self.root, "partial", False)
        )
        if more_than_fields or not all(map(self._is_plain, self.fields.values())):
            return None
        return [_Member(name, field, field.default) for name, field in self.fields.items()]

    def _is_plain(self, field: Any) -> bool:
        return not (
            field.read_only
            or field.source != field.field_name
            or hasattr(self, f"validate_{field.field_name}")
            or hasattr(field.default, "requires_context")
            or isinstance(field, serializers.BaseSerializer | serializers.HiddenField)
        )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [str(name) for name in data if name not in self._writable_names]
            if unknown:
                named = sorted(unknown)[:UNKNOWN_NAMED]
                raise serializers.ValidationError(
                    {name[:NAME_SHOWN]: [_unknown_field()] for name in named}
                )
        return super().to_internal_value(data)

    @cached_property
    def _writable_names(self) -> set[str]:
        return {name for name, field in self.fields.items() if not field.read_only}

    # The fields of a class are the same in every request. The parent sorts them for each one.

    @cached_property
    def _writable_fields(self) -> list[Any]:
        return [field for field in self.fields.values() if not field.read_only]

    def _read_only_defaults(self) -> dict[str, Any]:
        has_any = len(self._writable_fields) < len(self.fields)
        return super()._read_only_defaults() if has_any else {}


class _Member(NamedTuple):
    """A field by its name, and what it is when a request does not have it (`empty`: nothing)."""

    name: str
    field: Any
    default: Any


def _accepted(members: list[_Member], data: dict[str, Any]) -> dict[str, Any] | None:
    """The normalised request; None if something may be wrong with it."""
    values = {}
    known = 0
    for name, field, default in members:
        if name in data:
            known += 1
            try:
                values[name] = field.run_validation(data[name])
            except (serializers.ValidationError, DjangoValidationError):
                return None
        elif default is not empty:
            values[name] = default() if callable(default) else default
        elif field.required:
            return None
    return values if known == len(data) else None


@cache
def _instance(form: type[StrictSerializer]) -> StrictSerializer:
    return form()


class NoBodySerializer(StrictSerializer):
    """A call without parameters: anything but an empty object is refused."""


def _unknown_field() -> ErrorDetail:
    return ErrorDetail("There is no such field here.", code="unknown_field")


class WholeNumberField(serializers.IntegerField):
    """A JSON number without a fraction, or its digits as a string."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, str) and not is_digits(data):
            self.fail("invalid")
        return super().to_internal_value(data)


class _NoSurrogates(ProhibitSurrogateCharactersValidator):
    """As the parent, which looks at one character after the other; here only where one may be."""

    def __call__(self, value: str) -> None:
        if not value.isascii():
            super().__call__(value)


_USUAL = {ProhibitNullCharactersValidator, _NoSurrogates}


class TextField(serializers.CharField):
    """Text that arrived as text: a number or a boolean is refused, not turned into a string."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.validators = [
            _NoSurrogates()
            if isinstance(validator, ProhibitSurrogateCharactersValidator)
            else validator
            for validator in self.validators
        ]
        self._length_max = math.inf if self.max_length is None else self.max_length

    @cached_property
    def _is_usual(self) -> bool:
        """Asked when it is first used, for a subclass adds validators of its own."""
        return all(type(each) in _USUAL or self._is_length(each) for each in self.validators)

    def _is_length(self, validator: Any) -> bool:
        """The one that `max_length` stands for."""
        return type(validator) is MaxLengthValidator and validator.limit_value == self.max_length

    def run_validators(self, value: str) -> None:
        """As the parent, unless a glance tells that all of them would let it pass."""
        is_fine = self._is_usual and len(value) <= self._length_max
        if not (is_fine and value.isascii() and "\0" not in value):
            super().run_validators(value)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)
