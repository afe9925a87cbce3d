"""What every serializer of a request shares."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from django.utils.functional import cached_property
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.validators import ProhibitSurrogateCharactersValidator

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


@cache
def _instance(form: type[StrictSerializer]) -> StrictSerializer:
    return form()


class NoBodySerializer(StrictSerializer):
    """A call without parameters: anything but an empty object is refused."""


def _unknown_field() -> ErrorDetail:
    return ErrorDetail("There is no such field here.", code="unknown_field")


class _NoSurrogates(ProhibitSurrogateCharactersValidator):
    """As the parent, which looks at one character after the other; here only where one may be."""

    def __call__(self, value: str) -> None:
        if not value.isascii():
            super().__call__(value)


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

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)
