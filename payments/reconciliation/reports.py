"""Gateways' reports as they come: asked of an adapter, or read from a CSV file, line by line.

The file is UTF-8 (a byte order mark is fine), separated by commas, quoted as RFC 4180 says, with
the header `subject,reference,amount,currency,settled_at`:

    payment_intent,pi_3Q,100.00,USD,2026-11-21T09:30:00Z

`subject` is `payment_intent`, `payout` or `refund`; `amount` in major units, more than zero, with
at most two decimals; `settled_at` as RFC 3339 says, in the day (UTC) or a day to either side of it.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import IO

from fintech_core.money import AmountInvalid, parse_amount
from payments.gateways.base import REFERENCE_MAX, Gateway, ReportLine, Subject

HEADER = ["subject", "reference", "amount", "currency", "settled_at"]
ERRORS_MAX = 20
A_DAY = timedelta(days=1)

_REFERENCE = re.compile(rf"[!-~]{{1,{REFERENCE_MAX}}}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
_SUBJECTS = {str(subject) for subject in Subject}


class BadReport(Exception):
    """The report cannot be used, and nothing of it was; the message says why, line by line."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors
        super().__init__(" ".join(errors))


def from_gateway(gateway: Gateway, days: Iterable[date]) -> Iterator[tuple[date, ReportLine]]:
    """The days' lines. Raises GatewayUnavailable, and BadReport for a line that cannot be."""
    for day in days:
        for number, line in enumerate(gateway.report(day), start=1):
            if fault := _fault_of(line, day):
                raise BadReport([f"{day}, line {number}: {fault}"])
            yield day, line


def from_csv(file: IO[bytes], day: date) -> Iterator[tuple[date, ReportLine]]:
    """The file's lines, all of the report for `day`. Raises BadReport, after the last line or as
    soon as so many are wrong that nobody would read on."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="strict", newline="")
    rows = csv.reader(text, strict=True)
    errors: list[str] = []
    try:
        if next(rows, None) != HEADER:
            raise BadReport([f"Line 1: the header must be {','.join(HEADER)}."])
        for row in rows:
            line = _line(row, day)
            if isinstance(line, str):
                errors.append(f"Line {rows.line_num}: {line}")
                if len(errors) == ERRORS_MAX:
                    raise BadReport([*errors, "There may be more."])
            elif not errors:
                yield day, line
    except csv.Error as exc:
        raise BadReport([*errors, f"Line {rows.line_num}: {exc}."]) from exc
    except UnicodeDecodeError as exc:
        raise BadReport([*errors, f"After line {rows.line_num}: it is not UTF-8."]) from exc
    finally:
        text.detach()  # the file is its opener's to close
    if errors:
        raise BadReport(errors)


def _line(row: list[str], day: date) -> ReportLine | str:
    """The line, or what is wrong with it."""
    if len(row) != len(HEADER):
        return f"it has {len(row)} fields instead of {len(HEADER)}."
    subject, reference, amount, currency, settled_at = row
    if subject not in _SUBJECTS:
        return f"subject must be one of {', '.join(sorted(_SUBJECTS))}."
    try:
        line = ReportLine(
            subject=Subject(subject),
            gateway_reference=reference,
            amount=parse_amount(amount),
            currency=currency,
            at=_moment(settled_at),
        )
    except AmountInvalid as refusal:
        return f"amount: {refusal}"
    except (ValueError, OverflowError):
        return "settled_at must be a time such as 2026-11-21T09:30:00Z."
    return _fault_of(line, day) or line


def _moment(text: str) -> datetime:
    if not _MOMENT.fullmatch(text):
        raise ValueError
    return datetime.fromisoformat(text.upper()).astimezone(UTC)


def _fault_of(line: ReportLine, day: date) -> str:
    """What is wrong with a line's values, or nothing."""
    if not _REFERENCE.fullmatch(line.gateway_reference):
        return f"reference must be 1 to {REFERENCE_MAX} printable ASCII characters, no spaces."
    if not _CURRENCY.fullmatch(line.currency):
        return "currency must be an ISO 4217 code."
    if not _is_amount(line.amount):
        return "amount must be more than zero, with at most two decimals."
    begin = datetime.combine(day, time.min, tzinfo=UTC)
    if line.at.tzinfo is None or not begin - A_DAY <= line.at < begin + 2 * A_DAY:
        return f"settled_at must be in {day} (UTC) or a day to either side of it."
    return ""


def _is_amount(amount: Decimal) -> bool:
    try:
        return parse_amount(amount) == amount
    except AmountInvalid:
        return False
