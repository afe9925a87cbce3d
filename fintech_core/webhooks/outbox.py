"""The outbox: an event is written in the database transaction of its effect, or not at all.

Committed together, so no event of an effect is lost and none is sent of what was rolled back.
PostgreSQL finds out who listens (`fintech_core_emit`, `migrations/0007_everybody_to_staff.py`) and
writes nothing where nobody does. On the path of a money call it travels with another statement.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rest_framework.utils.encoders import JSONEncoder
from uuid_utils.compat import uuid7

from fintech_core.database import send_along
from fintech_core.webhooks.kinds import EventType


@dataclass(frozen=True)
class Happened:
    """One thing that happened to one user; `data` is what the API itself would show to them."""

    type: EventType
    user_id: UUID
    data: Mapping[str, Any]


def emit(*happened: Happened) -> None:
    """Have the events sent to whoever listens. Call it inside the transaction of the effect."""
    emit_all(happened)


def emit_all(happened: Iterable[Happened]) -> None:
    """As `emit`; however many there are, it is one statement."""
    events = [
        {"id": uuid7(), "type": str(one.type), "user_id": one.user_id, "data": one.data}
        for one in happened
    ]
    if events:
        send_along("SELECT fintech_core_emit(%(events)s)", events=_as_json(events))


def _as_json(events: list[dict[str, Any]]) -> str:
    """Written as the API writes it."""
    return json.dumps(events, cls=JSONEncoder, ensure_ascii=False, separators=(",", ":"))
