"""Moments (RFC 3339) and calendar days: what a customer writes, as moments of the ledger in UTC."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

Time = TypeVar("Time", bound=date)

YEARS = range(1970, 3000)  # beyond these a year of the books is a slip of the pen
ANY_YEAR = range(MINYEAR, MAXYEAR + 1)

_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,12})?([Zz]|[+\- ]\d\d:\d\d)", re.ASCII
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_moment(text: str, years: range = YEARS) -> datetime:
    """A moment in UTC, cut off after the microseconds. Raises ValueError.

    The offset from UTC is required: without one a time is no moment. A space instead of its "+" is
    what becomes of a "+" that somebody forgot to escape in a URL.
    """
    if not (parts := _MOMENT.fullmatch(text)):
        raise ValueError("Write the moment as in RFC 3339: 2026-11-22T13:00:00Z.")
    day, clock, fraction, offset = parts.groups()
    written = f"{day}T{clock}{(fraction or '')[:7]}{offset.upper().replace(' ', '+')}"
    try:
        moment = datetime.fromisoformat(written).astimezone(UTC)
        return _within(years, moment)
    except OverflowError as exc:
        raise ValueError("There is no such moment.") from exc


def parse_day(text: str, years: range = YEARS) -> date:
    """A calendar day, `YYYY-MM-DD`. Raises ValueError."""
    if not _DAY.fullmatch(text):
        raise ValueError("Write the day as YYYY-MM-DD.")
    return _within(years, date.fromisoformat(text))


def _within(years: range, value: Time) -> Time:
    if value.year not in years:
        raise ValueError(f"The year must be from {years[0]} to {years[-1]}.")
    return value


# One is the zone of whatever host this is, the other means that nobody has set a zone.
_NO_ZONES = {"localtime", "Factory"}


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones() - _NO_ZONES)


def parse_zone(text: str) -> ZoneInfo:
    """A time zone by its name in the IANA database. Raises ValueError."""
    if text not in _zone_names():  # looked up, for a name is a path to a file
        raise ValueError("There is no such time zone; write it like Europe/Berlin.")
    return ZoneInfo(text)


class _ParsedField(serializers.Field):
    """Text that one of the parsers reads; the parser says what is wrong with it."""

    parse: Callable[[str], date | datetime | ZoneInfo]

    def to_internal_value(self, data: Any) -> date | datetime | ZoneInfo:
        try:
            return self.parse(str(data))
        except ValueError as refusal:
            raise serializers.ValidationError(str(refusal), code="invalid") from refusal


class MomentField(_ParsedField):
    parse = staticmethod(parse_moment)


class DayField(_ParsedField):
    parse = staticmethod(parse_day)


@extend_schema_field(OpenApiTypes.DATE)
class AnyDayField(_ParsedField):
    """Of whatever year: how old somebody may be is for others to say."""

    @staticmethod
    def parse(text: str) -> date:
        return parse_day(text, ANY_YEAR)


class ZoneField(_ParsedField):
    parse = staticmethod(parse_zone)


def day_begins(day: date, zone: ZoneInfo) -> datetime:
    """The first moment, in UTC, at which the calendar of `zone` shows `day` or a later one.

    Usually midnight. Where a midnight comes twice, the first; where clocks skip it (or the whole
    day), the moment at which they do.
    """
    midnight = datetime.combine(day, time.min, tzinfo=zone)
    moment = midnight.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return moment
    # Skipped: with the offset after the change, that midnight would lie before it.
    before = midnight.replace(fold=1).astimezone(UTC)
    while moment - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(moment - before) // timedelta(seconds=2))
        if middle.astimezone(zone).date() < day:
            before = middle
        else:
            moment = middle
    return moment


@dataclass(frozen=True)
class Period:
    """The days [first, end) of the calendar of `zone`."""

    first: date
    end: date
    zone: ZoneInfo

    @property
    def begins_at(self) -> datetime:
        return day_begins(self.first, self.zone)

    @property
    def ends_at(self) -> datetime:
        return day_begins(self.end, self.zone)
