"""A call of each operation of the API that succeeds, for tests that hold for all of them.

An operation is named by its method and route: `GET /api/v1/users/{id}/`. What follows a `?` names
another way through the same operation.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from django.conf import settings
from django.db.models.functions import Now

from fintech_core.models import WebhookDelivery, WebhookEndpoint
from fintech_core.tests.webhooks.helpers import register_quietly
from payments.tests.factories import (
    IBAN,
    PaymentIntentFactory,
    PayoutFactory,
    WebhookEventFactory,
    event_body,
    signed,
)
from transactions import checkpoints
from transactions.models import Hold, Transaction, TransactionLedger
from transactions.tests.helpers import freeze, hold_of, person, reserve, send
from users.models import User
from users.tests.factories import (
    PASSWORD,
    ReviewerFactory,
    StaffFactory,
    UserFactory,
    client_for,
    sign_in,
)
from wallet.services import STATUS_PERMISSION

DOCUMENT = Path(settings.BASE_DIR) / "docs" / "openapi.yaml"
METHODS = ("get", "post", "put", "patch", "delete")
PEOPLE = 3  # behind the rows of each list, so that a query for each row would show

_BUSY = "busy@example.com"
_LONG_AGO, _NEVER = "2026-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
_IDENTITY = {
    "document_type": "passport",
    "document_number": "C01X00T47",
    "date_of_birth": "1990-05-17",
    "address_line1": "1 High Street",
    "city": "London",
    "postal_code": "SW1A 1AA",
    "country": "GB",
}


def documented() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation of the OpenAPI document, with what the document says of it."""
    document = yaml.safe_load(DOCUMENT.read_text())
    for route, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {route}", item[method]


def schema_of(operation: Mapping[str, Any]) -> str:
    """The name of what an operation answers with 200, as JSON; empty if nothing has a name."""
    content = operation["responses"].get("200", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    return str(reference).rpartition("/")[2]


def lists() -> dict[str, dict[str, Any]]:
    """The operations that answer with a page of a list."""
    return {name: said for name, said in documented() if schema_of(said).startswith("Paginated")}


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is sent, and by whom (None: by nobody); `path` fills in the route."""

    by: User | None = None
    path: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def ready(self, operation: str) -> Callable[..., Any]:
        """Sign in. What is returned sends the call, with more of a query if given, and reads the
        answer to its end."""
        method, _, route = operation.partition("?")[0].partition(" ")
        client = client_for(self.by)
        headers = {"Idempotency-Key": str(uuid4()), **self.headers}

        def sent(**query: Any) -> Any:
            asked = {**self.query, **query} if method == "GET" else self.body
            kind = {"content_type": "application/json"} if isinstance(asked, bytes) else {}
            send_it = getattr(client, method.lower())
            response = send_it(route.format(**self.path), asked, headers=headers, **kind)
            assert 200 <= response.status_code < 300, response.content
            return _read(response)

        return sent


def _read(response: Any) -> Any:
    """A statement is written while it is read, and asks for its lines only then."""
    if response.streaming:
        list(response.streaming_content)
    return response


CALLS: dict[str, Callable[[], Call]] = {}


def succeeds(operation: str) -> Callable[[Callable[[], Call]], Callable[[], Call]]:
    """The function below makes whatever a call of the operation needs to succeed."""

    def keep(prepare: Callable[[], Call]) -> Callable[[], Call]:
        CALLS[operation] = prepare
        return prepare

    return keep


# --- Signing in, oneself -------------------------------------------------------------------------


@succeeds("POST /api/v1/auth/login/")
def login() -> Call:
    return Call(body={"email": UserFactory().email, "password": PASSWORD})


@succeeds("POST /api/v1/auth/logout/")
@succeeds("POST /api/v1/auth/refresh/")
def with_refresh_token() -> Call:
    return Call(body={"refresh": sign_in(UserFactory()).refresh})


@succeeds("POST /api/v1/auth/verify/")
def verify() -> Call:
    return Call(body={"token": sign_in(UserFactory()).access})


@succeeds("POST /api/v1/users/register/")
def register() -> Call:
    new = UserFactory.build()
    return Call(
        body={
            "email": new.email,
            "password": PASSWORD,
            "first_name": "Alice",
            "last_name": "Archer",
            "phone_number": new.phone_number,
        }
    )


@succeeds("GET /api/v1/users/me/")
@succeeds("GET /api/v1/users/me/kyc/")
def oneself() -> Call:
    return Call(by=UserFactory(kyc="approved"))


@succeeds("PATCH /api/v1/users/me/")
def change_phone_number() -> Call:
    return Call(by=UserFactory(), body={"phone_number": UserFactory.build().phone_number})


@succeeds("POST /api/v1/users/me/password/")
def change_password() -> Call:
    body = {"current_password": PASSWORD, "new_password": "another good password"}
    return Call(by=UserFactory(), body=body)


@succeeds("POST /api/v1/users/me/kyc/")
def submit_kyc() -> Call:
    return Call(by=UserFactory(), body=_IDENTITY)


# --- Staff ---------------------------------------------------------------------------------------


@succeeds("GET /api/v1/users/")
def list_users() -> Call:
    UserFactory.create_batch(PEOPLE)
    return Call(by=StaffFactory())


@succeeds("GET /api/v1/users/{id}/")
def read_user() -> Call:
    return Call(by=StaffFactory(), path={"id": UserFactory().pk})


@succeeds("POST /api/v1/users/{id}/kyc/approve/")
def approve_kyc() -> Call:
    return Call(by=ReviewerFactory(), path={"id": UserFactory(kyc="pending").pk})


@succeeds("POST /api/v1/users/{id}/kyc/reject/")
def reject_kyc() -> Call:
    path = {"id": UserFactory(kyc="pending").pk}
    return Call(by=ReviewerFactory(), path=path, body={"reason": "Unreadable."})


def _about(wallet_of: User) -> Call:
    staff = StaffFactory(permissions=[STATUS_PERMISSION])
    return Call(by=staff, path={"id": wallet_of.wallet.pk}, body={"reason": "Reviewed."})


@succeeds("POST /api/v1/wallets/{id}/freeze/")
@succeeds("POST /api/v1/wallets/{id}/close/")
def decide_about_wallet() -> Call:
    return _about(person())


@succeeds("POST /api/v1/wallets/{id}/unfreeze/")
def unfreeze_wallet() -> Call:
    frozen = person()
    freeze(frozen)
    return _about(frozen)


# --- One's wallet --------------------------------------------------------------------------------


def busy() -> User:
    """Somebody with money, who sent some to several people and had some held. For reads alone:
    one for all of them."""
    found: User | None = User.objects.filter(email=_BUSY).first()
    return found or _make_busy()


def _make_busy() -> User:
    payer = person("100.00", email=_BUSY)
    for _ in range(PEOPLE):
        payee = person()
        send(payer, payee, "1.00")
        reserve(payer, payee, "2.00")
    return payer


@succeeds("GET /api/v1/wallets/me/")
@succeeds("GET /api/v1/wallets/me/balance/")
@succeeds("GET /api/v1/wallets/me/limits/")
@succeeds("GET /api/v1/transactions/")
@succeeds("GET /api/v1/transactions/history/")
@succeeds("GET /api/v1/transactions/ledger/")
@succeeds("GET /api/v1/transactions/holds/")
def read_own() -> Call:
    return Call(by=busy())


@succeeds("GET /api/v1/transactions/?created_after&created_before")
def list_within_days() -> Call:
    return Call(by=busy(), query={"created_after": _LONG_AGO, "created_before": _NEVER})


@succeeds("GET /api/v1/wallets/me/balance/?at")
def balance_at() -> Call:
    payer = busy()
    newest = TransactionLedger.objects.filter(wallet=payer.wallet).latest("sequence")
    return Call(by=payer, query={"at": newest.created_at.isoformat()})


@succeeds("GET /api/v1/wallets/me/statement/")
def statement() -> Call:
    return Call(by=busy(), query={"from": "2026-01-01", "to": "2100-01-01"})


@succeeds("GET /api/v1/transactions/checkpoints/")
@succeeds("GET /api/v1/wallets/me/proof/")
def read_signed() -> Call:
    payer = busy()
    for _ in range(2):
        send(payer, person(), "0.01")
        checkpoints.take()
    return Call(by=payer)


# --- Transactions --------------------------------------------------------------------------------


@succeeds("POST /api/v1/transactions/transfer/")
def transfer() -> Call:
    return Call(by=person("100.00"), body={"recipient": person().email, "amount": "10.00"})


@succeeds("POST /api/v1/transactions/batch/")
def batch() -> Call:
    legs = [{"recipient": person().email, "amount": "1.00"} for _ in range(PEOPLE)]
    return Call(by=person("100.00"), body={"mode": "atomic", "transfers": legs})


@succeeds("GET /api/v1/transactions/{id}/")
@succeeds("GET /api/v1/transactions/{id}/ledger/")
def read_transaction() -> Call:
    payer = busy()
    made = Transaction.objects.filter(from_user=payer).latest("pk")
    return Call(by=payer, path={"id": made.pk})


@succeeds("POST /api/v1/transactions/{id}/refund/")
def refund() -> Call:
    payer, payee = person("100.00"), person()
    send(payer, payee, "10.00")
    made = Transaction.objects.get(from_user=payer)
    return Call(by=payee, path={"id": made.pk}, body={"amount": "4.00"})


# --- Holds ---------------------------------------------------------------------------------------


@succeeds("POST /api/v1/transactions/holds/")
def hold() -> Call:
    return Call(by=person("100.00"), body={"recipient": person().email, "amount": "10.00"})


def _held() -> Hold:
    return hold_of(reserve(person("100.00"), person(), "10.00"))


@succeeds("GET /api/v1/transactions/holds/{id}/")
@succeeds("POST /api/v1/transactions/holds/{id}/void/")
def by_payee() -> Call:
    made = _held()
    return Call(by=made.to_user, path={"id": made.pk})


@succeeds("POST /api/v1/transactions/holds/{id}/capture/")
def capture() -> Call:
    made = _held()
    return Call(by=made.to_user, path={"id": made.pk}, body={"amount": "4.00"})


# --- Payments ------------------------------------------------------------------------------------


@succeeds("GET /api/v1/payments/intents/")
def list_intents() -> Call:
    payer = person()
    for _ in range(PEOPLE):
        PaymentIntentFactory(user=payer)
    return Call(by=payer)


@succeeds("POST /api/v1/payments/intents/")
def begin_top_up() -> Call:
    return Call(by=person(), body={"amount": "10.00"})


@succeeds("GET /api/v1/payments/intents/{id}/")
@succeeds("POST /api/v1/payments/intents/{id}/cancel/")
def own_intent() -> Call:
    intent = PaymentIntentFactory()
    return Call(by=intent.user, path={"id": intent.pk})


@succeeds("POST /api/v1/payments/intents/{id}/simulate/")
def simulate() -> Call:
    intent = PaymentIntentFactory()
    return Call(by=intent.user, path={"id": intent.pk}, body={"outcome": "succeeded"})


@succeeds("POST /api/v1/payments/payouts/")
def order_payout() -> Call:
    destination = {"type": "bank_account", "iban": IBAN, "name": "Ada Lovelace"}
    return Call(by=person("100.00"), body={"amount": "10.00", "destination": destination})


@succeeds("GET /api/v1/payments/payouts/")
def list_payouts() -> Call:
    payer = person("100.00")
    for _ in range(PEOPLE):
        PayoutFactory(user=payer, amount="10.00")
    return Call(by=payer)


@succeeds("GET /api/v1/payments/payouts/{id}/")
def own_payout() -> Call:
    payout = PayoutFactory()
    return Call(by=payout.user, path={"id": payout.pk})


@succeeds("POST /api/v1/payments/intents/{id}/refund/")
def refund_deposit() -> Call:
    staff = StaffFactory(permissions=["payments.refund_deposit"])
    intent = PaymentIntentFactory(status="succeeded")
    return Call(by=staff, path={"id": intent.pk}, body={"amount": "4.00", "reason": "Paid twice."})


@succeeds("POST /api/v1/payments/webhooks/{gateway}/")
def deliver() -> Call:
    body = event_body(PaymentIntentFactory())
    return Call(path={"gateway": "sandbox"}, body=body, headers=signed(body))


def _may_read_events() -> User:
    return StaffFactory(permissions=["payments.view_webhookevent"])


@succeeds("GET /api/v1/payments/webhook-events/")
def list_events() -> Call:
    for _ in range(PEOPLE):
        WebhookEventFactory(status="processed")
    return Call(by=_may_read_events())


@succeeds("GET /api/v1/payments/webhook-events/{id}/")
def read_event() -> Call:
    return Call(by=_may_read_events(), path={"id": WebhookEventFactory(status="processed").pk})


# --- Outgoing webhooks ---------------------------------------------------------------------------


@succeeds("POST /api/v1/webhook-endpoints/")
def register_endpoint() -> Call:
    body = {"url": "https://8.8.8.8/hooks", "event_types": ["transfer.received"]}
    return Call(by=person(), body=body)


@succeeds("GET /api/v1/webhook-endpoints/")
def list_endpoints() -> Call:
    owner = person()
    for _ in range(PEOPLE):
        register_quietly(owner)
    return Call(by=owner)


def _endpoint() -> WebhookEndpoint:
    return register_quietly(person())


def _by_its_owner(endpoint: WebhookEndpoint, body: Any = None) -> Call:
    return Call(by=endpoint.user, path={"id": endpoint.pk}, body=body)


@succeeds("GET /api/v1/webhook-endpoints/{id}/")
@succeeds("DELETE /api/v1/webhook-endpoints/{id}/")
@succeeds("POST /api/v1/webhook-endpoints/{id}/rotate-secret/")
def own_endpoint() -> Call:
    return _by_its_owner(_endpoint())


@succeeds("PATCH /api/v1/webhook-endpoints/{id}/")
def change_endpoint() -> Call:
    return _by_its_owner(_endpoint(), {"event_types": ["*"]})


def _told() -> WebhookEndpoint:
    payer = person("100.00")
    endpoint = register_quietly(payer)
    for _ in range(PEOPLE):
        send(payer, person(), "1.00")
    return endpoint


@succeeds("GET /api/v1/webhook-endpoints/{id}/deliveries/")
def list_deliveries() -> Call:
    return _by_its_owner(_told())


def _delivery(endpoint: WebhookEndpoint) -> Call:
    made = WebhookDelivery.objects.filter(endpoint=endpoint).latest("pk")
    path = {"id": endpoint.pk, "delivery_id": made.pk}
    return Call(by=endpoint.user, path=path)


@succeeds("GET /api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}/")
def read_delivery() -> Call:
    return _delivery(_told())


@succeeds("POST /api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}/replay/")
def replay_delivery() -> Call:
    endpoint = _told()
    WebhookDelivery.objects.filter(endpoint=endpoint).update(
        status="delivered", next_attempt_at=None, finished_at=Now()
    )
    return _delivery(endpoint)
