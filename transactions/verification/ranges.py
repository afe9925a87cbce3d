"""A table in bounded pieces, along its primary key."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from fintech_core.database import query

_FIRST = UUID(int=0)
_LAST = UUID(int=2**128 - 1)

_LAST_OF_RANGE = "SELECT id FROM {table} WHERE id >= %(first)s ORDER BY id OFFSET %(skip)s LIMIT 1"
_REST = "SELECT count(*) FROM {table} WHERE id >= %(first)s"


@dataclass(frozen=True)
class Range:
    """Ids from `first` to `last`, both included, and how many rows have one of them."""

    first: UUID
    last: UUID
    rows: int


def ranges(table: str, chunk: int) -> Iterator[Range]:
    """Of `chunk` rows each, the last one of fewer.

    Together they hold every id there can be: others may name a row that is not there.
    """
    first, statement = _FIRST, _LAST_OF_RANGE.format(table=table)
    while ends := query(statement, first=first, skip=chunk - 1):
        last = ends[0][0]
        yield Range(first, last, chunk)
        if last == _LAST:
            return
        first = UUID(int=last.int + 1)
    [(rest,)] = query(_REST.format(table=table), first=first)
    yield Range(first, _LAST, rest)
