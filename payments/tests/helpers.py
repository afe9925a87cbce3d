"""What the payment tests share."""

from decimal import Decimal
from typing import Any

from django.db.models.functions import Now
from django.test import Client

from payments.models import WebhookEvent
from transactions.models import Transaction
from users.models import User

WEBHOOK_URL = "/api/v1/payments/webhooks/sandbox/"
INTENTS_URL = "/api/v1/payments/intents/"


def post_webhook(
    body: bytes, headers: dict[str, str], *, content_type: str = "application/json", **more: Any
) -> Any:
    """A delivery over HTTP, as a gateway makes it: no token of ours."""
    return Client().post(WEBHOOK_URL, data=body, content_type=content_type, headers=headers, **more)


def code_of(response: Any) -> tuple[int, str]:
    """Status and code of a problem document."""
    assert response["Content-Type"] == "application/problem+json", response.content
    return response.status_code, response.json()["code"]


def balance(user: User) -> Decimal:
    return type(user.wallet).objects.get(user=user).balance


def credits_of(user: User) -> int:
    return Transaction.objects.filter(to_user=user, type="deposit").count()


def make_due(event: WebhookEvent) -> None:
    """Let the backoff pass."""
    WebhookEvent.objects.filter(pk=event.pk, status="received").update(next_attempt_at=Now())
