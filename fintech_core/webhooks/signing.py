"""Secrets, and what is signed with them, as Standard Webhooks has it."""

import base64
import json
import secrets
from datetime import UTC, datetime
from math import floor

from standardwebhooks.webhooks import Webhook

from fintech_core.webhooks.models import OutgoingEvent, WebhookEndpoint

SECRET_BYTES = 32  # the standard: between 24 and 64
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def body_of(event: OutgoingEvent) -> bytes:
    """The same bytes in every try; `data` is what was written with the effect, to the letter."""
    moment = event.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    members = {"type": event.type, "timestamp": moment, "user_id": str(event.user_id)}
    head = json.dumps(members, separators=(",", ":")).removesuffix("}")
    return f'{head},"data":{event.data}}}'.encode()


def headers_of(
    event: OutgoingEvent, endpoint: WebhookEndpoint, body: bytes, *, now: datetime
) -> dict[str, str]:
    """With a signature by each secret that counts at `now`, the newest first."""
    text = body.decode()
    signatures = [
        Webhook(secret).sign(msg_id=str(event.pk), timestamp=now, data=text)
        for secret in living_secrets(endpoint, now=now)
    ]
    return {
        ID: str(event.pk),
        TIMESTAMP: str(floor(now.timestamp())),
        SIGNATURE: " ".join(signatures),
        "Content-Type": "application/json",
        "User-Agent": "Fintech-Core-Webhooks/1",
    }


def living_secrets(endpoint: WebhookEndpoint, *, now: datetime) -> list[str]:
    old, until = endpoint.previous_secret, endpoint.previous_secret_expires_at
    return [endpoint.secret, *([old] if old and until and until > now else [])]
