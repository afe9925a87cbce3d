"""A worker that is killed with `kill -9` in the middle of an event, wherever that is: the event has
its effect once, and soon."""

import os
import signal
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from conftest import owner_cursor
from payments.models import WebhookEvent
from payments.services import PaymentService
from payments.tests.factories import PaymentIntentFactory, PayoutFactory, event_body, signed
from payments.tests.helpers import balance, make_due, post_webhook
from payments.tests.test_queue import empty_queue, wait_until, worker
from transactions.models import Transaction
from transactions.tests.helpers import breaches, close

pytestmark = pytest.mark.django_db(transaction=True)

ROW = "SELECT FROM {} WHERE id = %s FOR UPDATE"
AT_COMMIT = "SELECT pg_advisory_xact_lock('transactions_outsideseal'::regclass::oid::bigint)"
# Each kind of event, and what keeps its worker waiting in the middle of it.
POINTS = {
    "top-up, before its intent is read": ("top-up", ROW.format("payments_paymentintent"), "intent"),
    "top-up, before the wallet is credited": ("top-up", ROW.format("wallet_wallet"), "wallet"),
    "payout, before it is read": ("payout", ROW.format("payments_payout"), "payout"),
    "payout, before the money is back": ("payout", ROW.format("wallet_wallet"), "wallet"),
    "closed wallet, within COMMIT": ("closed", AT_COMMIT, ""),
}


def order_of(kind):
    if kind == "payout":
        return PayoutFactory()
    intent = PaymentIntentFactory()
    if kind == "closed":
        close(intent.user)
    return intent


def effects_of(order):
    return Transaction.objects.filter(
        effect_key__in=[
            f"payment_intent:{order.pk}",
            f"reversal:{getattr(order, 'transaction_id', None)}",
        ]
    ).count()


def is_waiting(cursor):
    cursor.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return cursor.fetchone()[0] > 0


def is_at_rest(cursor):
    """PostgreSQL has noticed that the client is gone."""
    cursor.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    )
    return cursor.fetchone()[0] == 0


@pytest.mark.parametrize("point", POINTS)
def test_given_a_worker_killed_at_any_point_when_swept_then_one_effect(owner, point):
    kind, lock, what = POINTS[point]
    order = order_of(kind)
    locked = {"wallet": order.wallet_id}.get(what, order.pk)
    empty_queue()
    owner.execute("BEGIN")
    owner.execute(lock, [str(locked)] if what else None)
    with owner_cursor() as looker:
        with worker() as process:
            body = event_body(order, "payout.failed" if kind == "payout" else "succeeded")
            headers = signed(body)
            assert post_webhook(body, headers).status_code == 200
            wait_until(lambda: is_waiting(looker))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        event = WebhookEvent.objects.get(event_id=headers["webhook-id"])
        assert (event.status, event.attempts, effects_of(order)) == ("received", 1, 0)
        assert event.next_attempt_at < timezone.now() + timedelta(seconds=30)
        owner.execute("ROLLBACK")
        wait_until(lambda: is_at_rest(looker))
    make_due(event)
    PaymentService.sweep_webhook_events()
    PaymentService.process_payment_webhook(event.pk)
    event.refresh_from_db()
    assert (event.status, effects_of(order)) == ("processed", 1)
    assert balance(order.user) == (Decimal("0.00") if kind == "closed" else Decimal("100.00"))
    assert breaches() == []
