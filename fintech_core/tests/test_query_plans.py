"""Every call, every list and every job of the beat finds its rows by an index, however many there
are.

The rule, for each statement, those of triggers and functions included:

* No table that grows is read as a whole, nor a whole index.
* No more rows are read, and none more sorted, than `PAGE` for a page of a list or a call, or
  `FOR_EACH` for each row that a job works on.
* A filter within the caller's own rows may read all of them, `OWN` (see `docs/adr/0008`).
* A search by beginnings, or a filter of the admin, may read more: PostgreSQL either reads all that
  match and sorts them, or walks down from the newest until the page is full, whichever is less.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from functools import partial
from io import BytesIO
from math import isqrt
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.contrib import admin
from django.db.models import Sum
from django.db.models.functions import Now
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils import timezone

from conftest import empty_tables, owner_cursor
from fintech_core.celery import app as celery_app
from fintech_core.database import give_time
from fintech_core.models import (
    OutgoingEvent,
    RateLimitCounter,
    WebhookDelivery,
    WebhookEndpoint,
)
from fintech_core.tests import crowd
from fintech_core.tests.calls import CALLS, lists
from fintech_core.tests.plans import counted_as_empty, explaining, faults_of, plans_of
from payments import reconciliation
from payments.models import (
    DepositRefund,
    PaymentIntent,
    Payout,
    ReconciliationLine,
    ReconciliationRun,
    SandboxDelivery,
    WebhookEvent,
)
from payments.reconciliation.reports import HEADER
from transactions import checkpoints
from transactions.models import Hold, LedgerCheckpoint, Transaction, TransactionLedger
from transactions.tests.helpers import person, send
from transactions.verification import snapshot, verify
from users.models import Session, User
from users.tests.factories import StaffFactory, UserFactory, client_for
from wallet.models import DebitBucket, Wallet

PAGE = 200  # 25 rows, each with a few of other tables
ADMIN_PAGE = 1_000  # 50 rows, likewise; the second page passes over the first
OWN = 3 * crowd.BUSIEST_HAS  # each entry with its transaction and the other party
FOR_EACH = 10
# Either way costs most, and alike, at the root of page and table; thrice that, for estimates err.
SEARCHED = 3 * isqrt(25 * crowd.SIZES["people"])
ADMIN_FILTERED = 3 * isqrt(50 * 2 * crowd.SIZES["movements"])

_CARELESS = """
CREATE FUNCTION careless() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM users_user WHERE city = NEW.city || '!';
    RETURN NULL;
END $$;
CREATE TRIGGER careless AFTER INSERT ON users_user FOR EACH ROW EXECUTE FUNCTION careless();
"""


@pytest.fixture(scope="module", autouse=True)
def gathered(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    celery_app.loader.import_default_modules()
    with django_db_blocker.unblock(), owner_cursor() as owner, explaining(owner):
        crowd.gather(owner)
        yield
        empty_tables()


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (User.objects.filter(city="Nowhere"), "reads all of users_user"),
        (User.objects.order_by("-date_joined")[:25], "sorts 10"),
        (Transaction.objects.filter(amount=0).order_by("-pk")[:25], "reads 17"),
    ],
)
def test_given_rows_without_an_index_when_judged_then_the_fault_is_named(
    rows: Any, fault: str
) -> None:
    assert fault in faults_of(plans_of(lambda: list(rows.all())), most=PAGE)


def test_given_a_trigger_without_an_index_when_judged_then_it_is_seen() -> None:
    with owner_cursor() as owner:
        owner.execute(_CARELESS)
        try:
            found = faults_of(plans_of(UserFactory), most=PAGE)
        finally:
            owner.execute("DROP FUNCTION careless CASCADE")
    assert "reads all of users_user" in found


# --- The jobs of the beat ------------------------------------------------------------------------


def old_payloads() -> Any:
    return WebhookEvent.objects.filter(
        status__in=["processed", "ignored"],
        payload_deleted_at=None,
        processed_at__lt=Now() - settings.WEBHOOK_RETENTION,
    )


def unsigned_entries() -> int:
    entries = Wallet.objects.aggregate(all=Sum("entry_count"))["all"]
    newest = LedgerCheckpoint.objects.order_by("-number").first()
    return int(entries - (newest.entry_count if newest else 0))


def compared_between(begin: datetime, end: datetime) -> int:
    """Orders of every kind that a comparison of that day is about, and lines of its report."""
    sent = {"completed_at__gte": begin, "completed_at__lt": end}
    paid = {f"transaction__{bound}": moment for bound, moment in sent.items()}
    return (
        PaymentIntent.objects.filter(status="succeeded", **paid).count()
        + Payout.objects.filter(status="paid", **sent).count()
        + DepositRefund.objects.filter(status="succeeded", **sent).count()
        + ReconciliationLine.objects.filter(gateway="sandbox", day=begin.date()).count()
    )


def settled_yesterday() -> int:
    """Orders of a day that nobody has tried to reconcile."""
    midnight = datetime.now(tz=UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    yesterday = midnight - timedelta(days=1)
    if ReconciliationRun.objects.filter(gateway="sandbox", day=yesterday.date()).exists():
        return 0
    return compared_between(yesterday, midnight)


# For each job, how much it has to do.
WAITING: dict[str, Callable[[], int]] = {
    "payments.sweep_webhook_events": lambda: WebhookEvent.objects.filter(
        status="received", next_attempt_at__lte=Now()
    ).count(),
    "payments.deliver_due_sandbox_events": lambda: SandboxDelivery.objects.filter(
        status="waiting", next_attempt_at__lte=Now()
    ).count(),
    "payments.expire_payment_intents": lambda: PaymentIntent.objects.filter(
        status="requires_payment", expires_at__lte=Now()
    ).count(),
    "payments.poll_gateways": lambda: PaymentIntent.objects.filter(next_poll_at__lte=Now()).count(),
    "payments.sweep_refunds": lambda: DepositRefund.objects.filter(
        status="pending", next_attempt_at__lte=Now()
    ).count(),
    "payments.reconcile_gateways": settled_yesterday,
    "payments.cleanup_old_webhook_events": lambda: old_payloads().count(),
    "transactions.expire_holds": lambda: Hold.objects.filter(
        status="active", expires_at__lte=Now()
    ).count(),
    "transactions.checkpoint_ledger": unsigned_entries,
    "wallet.delete_old_debits": lambda: DebitBucket.objects.filter(
        hour__lt=Now() - timedelta(hours=722)
    ).count(),
    "users.delete_dead_sessions": lambda: Session.objects.filter(expires_at__lt=Now()).count(),
    "fintech_core.deliver_webhooks": lambda: WebhookDelivery.objects.filter(
        status="pending", next_attempt_at__lte=Now()
    ).count(),
    "fintech_core.delete_old_deliveries": lambda: OutgoingEvent.objects.filter(
        created_at__lt=Now() - settings.WEBHOOK_DELIVERY_RETENTION
    ).count(),
    "fintech_core.delete_old_counters": lambda: RateLimitCounter.objects.filter(
        expires_at__lt=timezone.now()
    ).count(),
}


def move_after_a_checkpoint() -> None:
    """The first one signs everything, and may read it; what counts is the next one."""
    checkpoints.take()
    payer, payee = person("100.00"), person()
    for _ in range(crowd.DUE // 2):
        send(payer, payee, "0.01")


def test_given_the_schedule_then_every_job_is_looked_at() -> None:
    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} == WAITING.keys()


@pytest.mark.parametrize("task", WAITING)
def test_given_a_crowd_when_a_job_runs_then_it_reads_what_is_due_by_indexes(task: str) -> None:
    if task == "transactions.checkpoint_ledger":
        move_after_a_checkpoint()
    due = WAITING[task]()
    assert due >= crowd.DUE - 2
    plans = plans_of(celery_app.tasks[task])
    assert plans
    assert not faults_of(plans, most=due * FOR_EACH)
    assert WAITING[task]() == 0


def report_of_yesterday() -> tuple[Callable[[], Any], int]:
    """What compares it, and how many orders and lines that is about."""
    day = (datetime.now(tz=UTC) - timedelta(days=1)).date()
    settled = DepositRefund.objects.filter(completed_at__date=day, status="succeeded")
    lines = [
        f"refund,{refund.gateway_reference},1.00,USD,{day}T10:00:00Z"
        for refund in settled[: crowd.DUE]
    ]
    report = BytesIO("\n".join([",".join(HEADER), *lines]).encode())

    def compare() -> None:
        reconciliation.reconcile(gateway="sandbox", day=day, csv_file=report)

    begin = datetime.combine(day, time(), tzinfo=UTC)
    return compare, len(lines) + compared_between(begin, begin + timedelta(days=1))


def test_given_a_crowd_when_a_report_is_compared_then_by_indexes() -> None:
    compare, compared = report_of_yesterday()
    plans = plans_of(compare)
    assert plans
    assert not faults_of(plans, most=compared * FOR_EACH)


# --- When PostgreSQL is wrong about its tables ----------------------------------------------------
# What has a time limit is soon tried again, and by then the tables are counted anew. What has none,
# or a long one, keeps the plan that it began with: nothing there may read a table over and over.


def test_given_orders_counted_as_empty_when_a_report_is_compared_then_each_is_looked_up() -> None:
    orders = [model._meta.db_table for model in (PaymentIntent, Payout, DepositRefund)]
    compare, compared = report_of_yesterday()
    with owner_cursor() as owner, counted_as_empty(owner, *orders):
        plans = plans_of(compare)
    assert plans
    once = crowd.SIZES["others"]  # whichever index leads to what was settled in the day
    assert not faults_of(plans, most=compared * FOR_EACH + once)


LEDGER = [
    "wallet_wallet",
    "transactions_transaction",
    "transactions_transactionledger",
    "transactions_ledgerseal",
    "transactions_checkpointleaf",
]


@pytest.fixture
def time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what has none, and would otherwise go on for hours before its test fails."""
    for module in (checkpoints, snapshot):
        monkeypatch.setattr(module, "give_time", partial(give_time, 30))


@pytest.mark.usefixtures("time_limit")
def test_given_a_ledger_counted_as_empty_when_a_checkpoint_is_taken_then_by_keys() -> None:
    move_after_a_checkpoint()
    due = unsigned_entries()
    assert due >= crowd.DUE
    with owner_cursor() as owner, counted_as_empty(owner, *LEDGER):
        plans = plans_of(checkpoints.take)
    assert plans
    once = Wallet.objects.count()  # whichever index leads to those of some buckets
    assert not faults_of(plans, most=due * FOR_EACH + once)


@pytest.mark.usefixtures("time_limit")
def test_given_a_ledger_counted_as_empty_when_it_is_verified_then_by_keys() -> None:
    move_after_a_checkpoint()
    with owner_cursor() as owner, counted_as_empty(owner, *LEDGER):
        plans = plans_of(lambda: list(verify()))
    assert len(plans) > 10
    most = FOR_EACH * TransactionLedger.objects.count()
    assert [plan.statement for plan in plans if plan.rows({*LEDGER}) > most] == []


# --- Calls and lists -----------------------------------------------------------------------------


@pytest.mark.parametrize("operation", CALLS)
def test_given_a_crowd_when_calling_then_by_indexes(operation: str) -> None:
    plans = plans_of(CALLS[operation]().ready(operation))
    assert plans
    assert not faults_of(plans, most=PAGE)


def days_ago(*days: int) -> list[str]:
    return [(datetime.now(tz=UTC) - timedelta(days=number)).isoformat() for number in days]


# Values for the filters whose values the document does not name: for many rows, few, and none.
VALUES = {
    "amount_min": ["2.00", "45.00", "999999.00"],
    "amount_max": ["45.00", "1.00", "0.50"],
    "created_after": days_ago(390, 200, 1),
    "created_before": days_ago(399, 390, 200),
    "gateway": ["sandbox", "retired", "nobody"],
    "search": ["crowd", "crowd77", "alice", "z", "+493000", "archer crowd12", "nobody"],
}
STAFF_LISTS = {"GET /api/v1/users/", "GET /api/v1/payments/webhook-events/"}
RANGES = {"created_after", "created_before", "direction"}  # of an index, as the page itself is
PAGING = {"cursor", "page_size"}
A_DAY = days_ago(200)[0][:10]
# What staff may type: an id, a reference, the beginning of a name.
SEARCHES = ["0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11", "TX-AGJPB4L3LZ6DVGSEF56RYD43CE", "crowd77@"]


def filters() -> Iterator[Any]:
    """Each list as it is, and with each value of each of its filters."""
    for operation, said in lists().items():
        yield pytest.param(operation, {}, id=operation)
        for parameter in said.get("parameters", []):
            name = parameter["name"]
            if parameter["in"] == "query" and name not in PAGING:
                for number, value in enumerate(parameter["schema"].get("enum") or VALUES[name]):
                    called = f"{operation}?{name}-{number}"
                    yield pytest.param(operation, {name: value}, id=called)


def most_for(operation: str, query: dict[str, str]) -> int:
    if "search" in query:
        return SEARCHED
    is_index_range = operation in STAFF_LISTS or query.keys() <= RANGES
    return PAGE if is_index_range else OWN


def _staff() -> User:
    return StaffFactory(permissions=["payments.view_webhookevent"])


def _listed_of(operation: str, reader: User) -> Any:
    """Something of the reader's that has the list."""
    if "webhook-endpoints" in operation:
        return WebhookEndpoint.objects.get(user=reader).pk
    return Transaction.objects.filter(from_user=reader).values_list("pk", flat=True).first()


# --- The admin -----------------------------------------------------------------------------------


def change_lists() -> Iterator[Any]:
    """Each list of the admin: two pages, searches, and each value of each filter."""
    for model, page in admin.site._registry.items():
        asked = [{}, {"p": "2"}, *({"q": text} for text in SEARCHES)]
        for offered in page.get_list_filter(HttpRequest()):
            asked += [{name: value} for name, value in _values_of(offered, page)]
        for query in asked:
            name = urlencode(query).replace(A_DAY, "a-day")
            yield pytest.param(model, query, id=f"{model._meta.label}?{name}")


def _values_of(offered: Any, page: Any) -> list[tuple[str, str]]:
    if not isinstance(offered, tuple):
        choices = offered(HttpRequest(), {}, page.model, page).lookup_choices
        return [(offered.parameter_name, value) for value, _ in choices]
    field = page.model._meta.get_field(offered[0])
    if field.choices:
        return [(f"{field.name}__exact", value) for value, _ in field.choices]
    if field.get_internal_type() == "BooleanField":
        return [(f"{field.name}__exact", value) for value in ("0", "1")]
    return [(f"{field.name}_{edge}", A_DAY) for edge in ("from", "to")]


@pytest.fixture(scope="module")
def superuser(gathered: None) -> User:
    return UserFactory(is_staff=True, is_superuser=True)


# --- Both ----------------------------------------------------------------------------------------

_COPIED = (
    "created_at, wallet_count, entry_count, outside_count, root, previous, payload, signature,"
    " key_id, public_key, horizon, cluster"
)


@pytest.fixture(scope="class")
def many_checkpoints(gathered: None) -> Iterator[None]:
    """Copies of the newest one, for as long as lists are read: the next one could not build on
    them."""
    checkpoints.take()
    with owner_cursor() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            f"INSERT INTO transactions_ledgercheckpoint (number, {_COPIED})"
            f" SELECT number + n, {_COPIED} FROM transactions_ledgercheckpoint,"
            " generate_series(1000, 6000) n WHERE number = 1"
        )
        owner.execute("ANALYZE transactions_ledgercheckpoint")
        yield
        owner.execute("DELETE FROM transactions_ledgercheckpoint WHERE number > 1000")


@pytest.mark.usefixtures("many_checkpoints")
class TestLists:
    @pytest.mark.parametrize(("operation", "query"), list(filters()))
    def test_given_a_crowd_when_listing_then_each_page_is_an_index_range(
        self, operation: str, query: dict[str, str]
    ) -> None:
        reader = _staff() if operation in STAFF_LISTS else crowd.busiest()
        client = client_for(reader)
        page = operation.partition(" ")[2].format(id=_listed_of(operation, reader))
        answers: list[Any] = []
        plans = plans_of(lambda: answers.append(client.get(page, query)))
        assert answers[0].status_code == 200
        if following := answers[0].json()["next"]:
            plans += plans_of(lambda: answers.append(client.get(following)))
            assert answers[1].json()["results"]
        assert plans
        assert not faults_of(plans, most=most_for(operation, query))

    @pytest.mark.parametrize(("model", "query"), list(change_lists()))
    def test_given_a_crowd_when_staff_open_a_list_then_each_page_is_an_index_range(
        self, superuser: User, model: Any, query: dict[str, str]
    ) -> None:
        request = RequestFactory().get("/", query)
        request.user = superuser
        page = admin.site.get_model_admin(model)
        plans = plans_of(lambda: list(page.get_changelist_instance(request).result_list))
        assert plans or "q" in query
        is_filtered = not query.keys() <= {"p", "q"}
        assert not faults_of(plans, most=ADMIN_FILTERED if is_filtered else ADMIN_PAGE)
