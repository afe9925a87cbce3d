"""What staff see first: the sidebar, and what waits for them. A part of the assembly, like `urls`.

Every query here is bounded, for the sidebar is on every page.
"""

from typing import Any

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from fintech_core.admin import link, list_page, money
from fintech_core.models import WebhookDelivery, WebhookEndpoint
from payments.models import (
    DepositRefund,
    PaymentIntent,
    Payout,
    ReconciliationBreak,
    ReconciliationRun,
    SandboxOrder,
    SuspendedDeposit,
    WebhookEvent,
)
from transactions.models import (
    Adjustment,
    Hold,
    LedgerCheckpoint,
    Transaction,
    TransactionLedger,
    TransferBatch,
)
from users.models import KYCStatus, KYCSubmission, Session, User
from wallet.models import Wallet

SHOWN_MAX = 99
NEWEST = 10
_FOR_STAFF = "needs_staff__exact=1"


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The sections of the sidebar; each shows what the caller may view."""
    return [
        _section("", [_overview(request)]),
        _section(
            "People",
            [
                _page(request, "Users", "person", User, without="kyc_status__exact"),
                _waiting(request),
                _page(request, "KYC submissions", "badge", KYCSubmission),
                _page(request, "Sign-ins", "devices", Session),
            ],
        ),
        _section(
            "Money",
            [
                _page(request, "Wallets", "account_balance_wallet", Wallet),
                _transactions(request),
                _page(request, "Batches", "stacks", TransferBatch),
                _page(request, "Holds", "lock_clock", Hold),
                _adjustments(request),
            ],
        ),
        _section(
            "Books",
            [
                _page(request, "Ledger entries", "menu_book", TransactionLedger),
                _trial_balance(request),
                _page(request, "Checkpoints", "verified", LedgerCheckpoint),
            ],
        ),
        _section(
            "Payments",
            [
                _page(request, "Intents", "add_card", PaymentIntent),
                _page(request, "Payouts", "send_money", Payout),
                _page(request, "Refunds to source", "undo", DepositRefund),
                _suspense(request),
                _events(request),
                _page(request, "Reconciliation", "rule", ReconciliationRun),
                _breaks(request),
                *_sandbox(request),
            ],
        ),
        _section(
            "Outgoing webhooks",
            [
                _page(request, "Endpoints", "send", WebhookEndpoint),
                _page(request, "Deliveries", "outbox", WebhookDelivery),
            ],
        ),
        _section("Staff", _staff_pages(request)),
    ]


def _section(title: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "separator": bool(title), "items": items}


def _overview(request: HttpRequest) -> dict[str, Any]:
    return {"title": "Overview", "icon": "dashboard", "link": reverse("admin:index")}


def _page(
    request: HttpRequest, title: str, icon: str, model: Any, *, without: str = ""
) -> dict[str, Any]:
    """A list's entry; not the active one while the list is filtered by `without`."""
    return _entry(request, title, icon, model, is_active=not (without and without in request.GET))


def _entry(
    request: HttpRequest, title: str, icon: str, model: Any, *, is_active: bool, query: str = ""
) -> dict[str, Any]:
    page = list_page(model)
    return {
        "title": title,
        "icon": icon,
        "link": page + query,
        "active": lambda _: is_active and request.path.startswith(page),
        "permission": lambda _: may_view(request, model),
    }


def _sandbox(request: HttpRequest) -> list[dict[str, Any]]:
    """Where there is one."""
    page = _page(request, "Sandbox orders", "science", SandboxOrder)
    return [page] if settings.PAYMENTS_SANDBOX else []


def _waiting(request: HttpRequest) -> dict[str, Any]:
    query = f"?kyc_status__exact={KYCStatus.PENDING}"
    is_active = request.GET.get("kyc_status__exact") == KYCStatus.PENDING
    entry = _entry(request, "KYC waiting", "how_to_reg", User, is_active=is_active, query=query)
    if may_view(request, User):
        entry |= _badge(_kyc_waiting(), "warning")
    return entry


def _events(request: HttpRequest) -> dict[str, Any]:
    entry = _page(request, "Webhook events", "webhook", WebhookEvent)
    if may_view(request, WebhookEvent):
        entry |= _badge(_parked_events(), "danger")
    return entry


def _suspense(request: HttpRequest) -> dict[str, Any]:
    entry = _page(request, "Suspense", "hourglass_disabled", SuspendedDeposit)
    if may_view(request, SuspendedDeposit):
        entry |= _badge(_open_suspense(), "warning")
    return entry


def _breaks(request: HttpRequest) -> dict[str, Any]:
    entry = _page(request, "Breaks", "link_off", ReconciliationBreak)
    if may_view(request, ReconciliationBreak):
        entry |= _badge(_open_breaks(), "danger")
    return entry


def _transactions(request: HttpRequest) -> dict[str, Any]:
    """Its list; the trial balance lies below it, but has an entry of its own."""
    is_active = request.path != reverse("admin:transactions_trial_balance")
    return _entry(request, "Transactions", "swap_horiz", Transaction, is_active=is_active)


def _adjustments(request: HttpRequest) -> dict[str, Any]:
    entry = _page(request, "Adjustments", "balance", Adjustment)
    if may_view(request, Adjustment):
        entry |= _badge(_open_adjustments(), "warning")
    return entry


def _trial_balance(request: HttpRequest) -> dict[str, Any]:
    page = reverse("admin:transactions_trial_balance")
    return {
        "title": "Trial balance",
        "icon": "calculate",
        "link": page,
        "active": lambda _: request.path == page,
        "permission": lambda _: may_view(request, Transaction),
    }


def _badge(rows: QuerySet[Any], variant: str) -> dict[str, Any]:
    number = up_to(rows)
    return {"badge": number, "badge_variant": variant} if number != "0" else {}


def _staff_pages(request: HttpRequest) -> list[dict[str, Any]]:
    return [
        _page(request, "Groups", "group", Group),
        _page(request, "Staff log", "history", LogEntry),
    ]


def may_view(request: HttpRequest, model: Any) -> bool:
    return request.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")


def up_to(rows: QuerySet[Any]) -> str:
    """How many rows there are, up to a bound: "3", "99+"."""
    number = len(rows.order_by().values_list("pk", flat=True)[: SHOWN_MAX + 1])
    return f"{SHOWN_MAX}+" if number > SHOWN_MAX else str(number)


def _kyc_waiting() -> QuerySet[User]:
    return User.objects.filter(kyc_status=KYCStatus.PENDING)


def _parked_events() -> QuerySet[WebhookEvent]:
    return WebhookEvent.objects.filter(status=WebhookEvent.Status.PARKED)


def _open_suspense() -> QuerySet[SuspendedDeposit]:
    return SuspendedDeposit.objects.filter(status=SuspendedDeposit.Status.OPEN)


def _open_breaks() -> QuerySet[ReconciliationBreak]:
    return ReconciliationBreak.objects.filter(status=ReconciliationBreak.Status.OPEN)


def _open_adjustments() -> QuerySet[Adjustment]:
    return Adjustment.objects.filter(status=Adjustment.Status.PROPOSED)


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The first page: what waits for staff, and the newest transactions."""
    context["tiles"] = [
        tile | {"number": up_to(tile["rows"])}
        for tile in _tiles()
        if may_view(request, tile["rows"].model)
    ]
    if may_view(request, Transaction):
        context["newest"] = _newest_transactions()
    return context


def _tiles() -> list[dict[str, Any]]:
    received = WebhookEvent.objects.filter(status=WebhookEvent.Status.RECEIVED)
    frozen = Wallet.objects.filter(status=Wallet.Status.FROZEN)
    return [
        _tile("KYC waiting", _kyc_waiting(), "kyc_status__exact=pending"),
        _tile("Parked webhook events", _parked_events(), "status__exact=parked"),
        _tile("Events in the queue", received, "status__exact=received"),
        _tile("Money in suspense", _open_suspense(), "status__exact=open"),
        _tile("Intents for staff", PaymentIntent.objects.filter(needs_staff=True), _FOR_STAFF),
        _tile("Payouts for staff", Payout.objects.filter(needs_staff=True), _FOR_STAFF),
        _tile("Reconciliation breaks", _open_breaks(), "status__exact=open"),
        _tile("Frozen wallets", frozen, "status__exact=frozen"),
        _tile("Adjustments to decide", _open_adjustments(), "status__exact=proposed"),
    ]


def _tile(title: str, rows: QuerySet[Any], query: str) -> dict[str, Any]:
    return {"title": title, "rows": rows, "link": f"{list_page(rows.model)}?{query}"}


def _newest_transactions() -> dict[str, Any]:
    newest = Transaction.objects.select_related("from_user", "to_user").order_by("-pk")[:NEWEST]
    return {
        "headers": ["Reference", "Type", "Amount", "From", "To", "When"],
        "rows": [
            [
                link(made),
                made.get_type_display(),
                money(made.amount, made.currency),
                link(made.from_user),
                link(made.to_user),
                f"{made.created_at:%Y-%m-%d %H:%M}",
            ]
            for made in newest
        ],
    }
