"""A statement as JSON, piece by piece. A line looks as it does in `/transactions/history/`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from fintech_core.money import format_amount
from transactions.statements import CHUNK, Line, Statement, lines_of


def as_json(statement: Statement) -> Iterator[str]:
    """The document. It is valid JSON only if it was written to its end, so only if it adds up."""
    head = _dump(_head(statement))
    yield f'{head[:-1]},"lines":['
    lines = lines_of(statement)
    comma = ""
    while chunk := ",".join(_dump(_line(line)) for line in islice(lines, CHUNK)):
        yield comma + chunk
        comma = ","
    yield "]}"


def _head(statement: Statement) -> dict[str, Any]:
    period = statement.period
    return {
        "wallet_id": str(statement.wallet.pk),
        "currency": statement.wallet.currency,
        "from": period.first.isoformat(),
        "to": period.end.isoformat(),
        "tz": period.zone.key,
        "generated_at": format_moment(statement.made_at),
        "opening_balance": format_amount(statement.opening.balance),
        "closing_balance": format_amount(statement.closing.balance),
        "closing_sequence": statement.closing.sequence,
        "closing_seal": statement.seal.hex() or None,
    }


def _line(line: Line) -> dict[str, Any]:
    other = line.counterparty
    return {
        "transaction_id": str(line.transaction_id),
        "type": line.type,
        "direction": line.direction,
        "amount": format_amount(line.amount),
        "balance_after": format_amount(line.balance_after),
        "counterparty": other and {"id": str(other.pk), "display_name": other.display_name},
        "description": line.description,
        "created_at": format_moment(line.created_at),
    }


def format_moment(moment: datetime) -> str:
    """As REST framework writes moments everywhere else."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
