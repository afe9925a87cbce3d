"""Pages of one person's history, found as a client finds them: each names the next."""

import json
import urllib.request
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from benchmarks.load import Request
from benchmarks.people import HISTORY, Person
from benchmarks.processes import ProgramError
from benchmarks.servers import Web

PAGE_ROWS = 25
_ROWS_AT_ONCE = 100  # the most that the service gives


def page(web: Web, person: Person, number: int) -> Request:
    """The request for that page, counted from 1 and newest first. Raises ProgramError if there is
    no full one."""
    cursor, left = "", (number - 1) * PAGE_ROWS
    while left:
        rows = min(left, _ROWS_AT_ONCE)
        cursor = _cursor_after(_get(web, _request(person, rows, cursor)))
        left -= rows
    wanted = _request(person, PAGE_ROWS, cursor)
    if len(_get(web, wanted)["results"]) != PAGE_ROWS:
        raise ProgramError(f"page {number} of the history is not full")
    return wanted


def _request(person: Person, rows: int, cursor: str) -> Request:
    """Without a cursor, and with the usual size, it is the list as most clients ask for it."""
    query = {"page_size": str(rows)} if rows != PAGE_ROWS else {}
    query |= {"cursor": cursor} if cursor else {}
    path = f"{HISTORY}?{urlencode(query)}" if query else HISTORY
    return Request("GET", path, person.bearer)


def _get(web: Web, wanted: Request) -> dict[str, Any]:
    asked = urllib.request.Request(web.url + wanted.path, headers=wanted.headers)  # noqa: S310
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - our own server
        found: dict[str, Any] = json.load(answer)
    return found


def _cursor_after(found: dict[str, Any]) -> str:
    if not found["next"]:
        raise ProgramError("the history is shorter than it should be")
    [cursor] = parse_qs(urlsplit(str(found["next"])).query)["cursor"]
    return cursor
