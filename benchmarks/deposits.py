"""Money from a gateway: signed events that are accepted over HTTP and credited by a worker."""

import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.bench import Bench, Probe
from benchmarks.figures import Sample
from benchmarks.generator import is_fast, put
from benchmarks.load import Load, Request
from benchmarks.processes import ProgramError
from benchmarks.servers import Database, Web

# Of the measurement: by locust, as many as keep a worker busy for as long; by wrk, which sends for
# a time, more than are ever accepted in it.
EVENTS_PER_SECOND, EVENTS_PER_SECOND_MAX = 300, 2_000
WARM_UP_SECONDS = 1.0  # a worker's first tasks take longer
CREDITED_SECONDS = 120.0
POLL_SECONDS = 0.05

# As many wishes to pay in as asked for, each by another customer as far as they reach.
_INTENTS = """
INSERT INTO payments_paymentintent (
    id, user_id, wallet_id, amount, currency, gateway, gateway_reference, client_secret, status,
    expires_at, created_at, updated_at)
SELECT gen_random_uuid(), wallet.user_id, wallet.id, 1.00, wallet.currency, 'sandbox',
       'sbx_' || replace(gen_random_uuid()::text, '-', ''), 'unused', 'requires_payment',
       now() + interval '1 day', now(), now()
  FROM generate_series(0, %(count)s - 1) number
  JOIN (SELECT id, user_id, currency, row_number() OVER (ORDER BY id) - 1 AS place,
               count(*) OVER () AS wallets FROM wallet_wallet) wallet
    ON wallet.place = number %% wallet.wallets
RETURNING gateway_reference, amount, currency
"""
_CREDITED = "SELECT count(*) FROM payments_paymentintent WHERE status = 'succeeded'"


def deposits(bench: Bench, web: Web) -> Probe:
    """From the first event sent to the last one credited; how long accepting took, as facts."""

    def probe(seconds: float = bench.seconds) -> Sample:
        load = _load(web.database, seconds)
        before = int(web.database.ask(_CREDITED))
        accepted = put(load, web)
        if accepted.count > len(load.requests):
            raise ProgramError("events were sent twice: there were too few")
        _wait_until_credited(web.database, before + accepted.count)
        seconds = time.time() - accepted.began_at
        return replace(Sample.of(accepted), rate=accepted.count / seconds)

    probe(WARM_UP_SECONDS)
    return probe


def _load(database: Database, seconds: float) -> Load:
    if is_fast():
        events = list(_signed(database, round(EVENTS_PER_SECOND_MAX * max(seconds, 1))))
        return Load(requests=events, seconds=seconds, once=True)
    events = list(_signed(database, round(EVENTS_PER_SECOND * seconds)))
    return Load(requests=events, count=len(events))


def _signed(database: Database, count: int) -> Iterator[Request]:
    """A signature is good for five minutes, so this is done anew for every measurement."""
    from payments.gateways.base import Outcome  # these need the settings
    from payments.gateways.sandbox import SandboxGateway

    sandbox = SandboxGateway.from_settings()
    if sandbox is None:
        raise ProgramError("the sandbox is switched off")
    with database.as_owner() as session, session.cursor() as cursor:
        cursor.execute(_INTENTS, {"count": count})
        for reference, amount, currency in cursor.fetchall():
            headers, body = sandbox.signed_event(
                outcome=Outcome.SUCCEEDED,
                gateway_reference=reference,
                amount=amount,
                currency=currency,
            )
            yield Request(
                "POST",
                "/api/v1/payments/webhooks/sandbox/",
                headers | {"Content-Type": "application/json"},
                body.decode(),
            )


def _wait_until_credited(database: Database, wanted: int) -> None:
    deadline = time.monotonic() + CREDITED_SECONDS
    while database.ask(_CREDITED) < wanted:
        if time.monotonic() > deadline:
            raise ProgramError("the worker did not credit every event")
        time.sleep(POLL_SECONDS)
