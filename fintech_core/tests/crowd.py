"""A crowd: see `crowd.sql`, which makes it.

What a row says agrees with the others as far as a call, a job or a trigger looks at it. Person 1
has far more of everything than anybody else, so what is cheap for them is cheap for all.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fintech_core.models import WebhookEndpoint
from fintech_core.webhooks.signing import new_secret
from payments.tests.factories import IBAN, event_body
from users.fields import EncryptedTextField
from users.models import User

SIZES = {
    "people": 10_000,
    "active": 1_000,  # the first of them: they have had money
    "movements": 16_000,  # of money between two of them, beside a deposit for each
    "captured": 2_000,  # of the movements: they captured holds
    "others": 12_000,  # holds, sessions, intents, events, idempotency records: so many of each
    "some": 4_000,  # of each thing that staff make
    "due": 30,  # rows that a job of the beat finds to work on
}
DUE = SIZES["due"]
BUSIEST_HAS = SIZES["movements"] // 4  # ledger entries; of everything else fewer
_SQL = Path(__file__).with_suffix(".sql")
_INTERVALS = 28_800  # of twenty minutes, one for each row of its kind: 400 days


def gather(owner: Any) -> None:
    """Fill the tables, and let PostgreSQL count what is in them; `owner` is the owner's cursor."""
    begin = datetime.now(tz=UTC) - timedelta(minutes=20 * _INTERVALS)
    dated = {"begin": begin.isoformat(), "intervals": _INTERVALS}
    sealed = EncryptedTextField().get_prep_value(IBAN)
    owner.execute("SET session_replication_role = replica")
    secret = WebhookEndpoint._meta.get_field("secret").get_prep_value(new_secret())
    told = {"body": event_body().decode(), "secret": secret, "sealed": sealed}
    owner.execute(_SQL.read_text(), {**SIZES, **dated, **told})
    owner.execute("SET session_replication_role = origin")
    owner.execute("ANALYZE")


def busiest() -> User:
    """Person 1."""
    return User.objects.get(email="crowd1@example.com")
