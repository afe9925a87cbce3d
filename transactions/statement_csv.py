"""A statement as CSV (RFC 4180, UTF-8), safe to open in a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice

from fintech_core.money import format_amount
from transactions.statement_json import format_moment
from transactions.statements import CHUNK, Line, Statement, lines_of

HEADER = (
    "created_at",
    "transaction_id",
    "reference_id",
    "type",
    "direction",
    "amount",
    "currency",
    "balance_after",
    "counterparty_id",
    "counterparty",
    "description",
)

# A spreadsheet takes a cell that begins with one of these for a formula, and may run it. The wide
# ones are those of East Asian keyboards.
_SIGN = "[=+\\-@\uff1d\uff0b\uff0d\uff20]"
# What a spreadsheet may pass over on its way to the sign: control characters, those of Unicode's
# category Cf, and whatever else is drawn as nothing.
_INVISIBLE = (
    "\\x00-\\x08\\x0e-\\x1f\\x7f-\\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_PASSED_OVER = rf"""[\s"'{_INVISIBLE}]"""
# The place before it: at the beginning, or after whatever another language's spreadsheet separates
# cells by.
_FORMULA = re.compile(
    rf"^(?={_PASSED_OVER}*{_SIGN}|[\t\r\n])"
    rf"|(?<=[;\t\r\n])(?=(?:(?![\t\r\n]){_PASSED_OVER})*{_SIGN})"
)


def as_csv(statement: Statement) -> Iterator[str]:
    """A header and a line for each entry. It breaks off if they do not add up."""
    yield _rows([HEADER])
    lines = lines_of(statement)
    currency = statement.wallet.currency
    while chunk := [_row(line, currency) for line in islice(lines, CHUNK)]:
        yield _rows(chunk)


def _row(line: Line, currency: str) -> tuple[str, ...]:
    other = line.counterparty
    return (
        format_moment(line.created_at),
        str(line.transaction_id),
        line.reference_id,
        line.type,
        line.direction,
        format_amount(line.amount),  # a number of ours: its minus sign is meant
        currency,
        format_amount(line.balance_after),
        str(other.pk) if other else "",
        as_text(other.display_name) if other else "",
        as_text(line.description),
    )


def as_text(text: str) -> str:
    """What somebody wrote, as a cell that no spreadsheet computes: an apostrophe goes before it."""
    return _FORMULA.sub("'", text)


def _rows(rows: list[tuple[str, ...]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue()
