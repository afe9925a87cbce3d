"""One effect per `Idempotency-Key`, and the same answer to every retry.

The record is inserted, unanswered, as the first statement of the database transaction that has the
effect. A twin request waits on the unique index until the first has committed (then it replays) or
rolled back (then it goes ahead), so there is no moment in which both act, and a crash leaves
neither record nor effect. See draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from fintech_core.database import retry_on_conflict, sqlstate
from fintech_core.exceptions import CONTENT_TYPE, DomainError, problem_of
from fintech_core.models import IdempotencyRecord

REPLAY_HEADER = "Idempotent-Replayed"
REMEMBERED_REFUSAL = 422
# How long a call may be busy with a gateway before a retry takes it over.
LEASE = timedelta(seconds=30)

_KEY = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)
_LOCK_NOT_AVAILABLE = "55P03"


class IdempotencyKeyRequired(DomainError):
    code = "idempotency_key_required"
    title = "This call needs an Idempotency-Key header."
    status = 400


class IdempotencyKeyInvalid(DomainError):
    code = "idempotency_key_invalid"
    title = "An Idempotency-Key has 1 to 255 printable ASCII characters."
    status = 400


class IdempotencyKeyReused(DomainError):
    code = "idempotency_key_reused"
    title = "This key was already used for a different request. Take a new key."


class IdempotencyInProgress(DomainError):
    code = "idempotency_in_progress"
    title = "A request with this key is still being worked on. Try again shortly."
    status = 409
    retry_after_seconds = 1


@dataclass(frozen=True)
class Answer:
    """A finished call: what the client gets, now and at every retry."""

    status: int
    body: str
    replayed: bool = False

    @property
    def content(self) -> dict[str, Any]:
        """The body as an object, for callers inside the process."""
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded

    def as_response(self) -> HttpResponse:
        """The stored bytes, unchanged, so that a replay equals the first answer to the letter."""
        content_type = CONTENT_TYPE if self.status >= 400 else "application/json"
        response = HttpResponse(self.body, status=self.status, content_type=content_type)
        if self.replayed:
            response[REPLAY_HEADER] = "true"
        return response


@dataclass(frozen=True)
class IdempotentCall:
    """Who asks for which operation, under which key, and for what exactly.

    `present` turns the effect's result into the body of the answer.
    """

    user_id: UUID
    operation: str
    key: str
    fingerprint: str
    present: Callable[[Any], Mapping[str, Any]]
    status: int = 201
    request: HttpRequest | None = None

    @classmethod
    def from_request(
        cls,
        request: Request,
        asked: Mapping[str, Any],
        present: Callable[[Any], Mapping[str, Any]],
        status: int = 201,
    ) -> "IdempotentCall":
        """Read the key from the header. `asked` is the validated, normalised request.

        Raises IdempotencyKeyRequired or IdempotencyKeyInvalid.
        """
        return cls(
            user_id=cast(UUID, request.user.pk),
            operation=f"{request.method} {request.path}",
            key=read_key(request.headers.get("Idempotency-Key")),
            fingerprint=fingerprint_of(asked),
            present=present,
            status=status,
            request=request._request,
        )

    @classmethod
    def internal(
        cls, *, user_id: UUID, operation: str, key: str, asked: Mapping[str, Any]
    ) -> "IdempotentCall":
        """A call made inside the process (a command, a test); the answer is `{"id": …}`."""
        return cls(user_id, operation, key, fingerprint_of(asked), lambda made: {"id": made.pk})

    def once(self, effect: Callable[[], Any]) -> Answer:
        """Run `effect` in this transaction unless the key has an answer; return the answer.

        A 422 refusal is remembered; any other exception rolls everything back and is raised.
        Raises IdempotencyKeyReused and IdempotencyInProgress.
        """
        return retry_on_conflict(lambda: self._once(effect))

    @transaction.atomic
    def _once(self, effect: Callable[[], Any]) -> Answer:
        record = self._claim()
        if remembered := _remembered(record):
            return remembered
        return self._finish(record, effect)

    @transaction.atomic(durable=True)
    def begin(self, create: Callable[[], Any]) -> "Answer | UUID":
        """First half of a call that needs a gateway: commit the intention, or find the earlier one.

        Returns the remembered answer, or the id of the object to go on with. Whoever finds a
        call that another is busy with gets IdempotencyInProgress, until the lease has run out.
        """
        record = self._claim()
        if remembered := _remembered(record):
            return remembered
        if record.resource_id is None:
            try:
                with transaction.atomic():
                    record.resource_id = create().pk
            except DomainError as refusal:
                return self._remember(record, refusal)
        elif self._records().filter(busy_until__gt=Now()).exists():
            raise IdempotencyInProgress
        record.busy_until = Now() + LEASE
        record.save(update_fields=["resource_id", "busy_until"])
        return record.resource_id

    def release(self) -> None:
        """The gateway could not be asked: the next retry need not wait for the lease to run out."""
        self._records().update(busy_until=None)

    @transaction.atomic
    def complete(self, effect: Callable[[], Any]) -> Answer:
        """Second half: store what the gateway said, and the answer, together."""
        record = self._claim()
        if remembered := _remembered(record):
            return remembered
        return self._finish(record, effect)

    def _finish(self, record: IdempotencyRecord, effect: Callable[[], Any]) -> Answer:
        try:
            with transaction.atomic():
                result = effect()
        except DomainError as refusal:
            return self._remember(record, refusal)
        return _store(record, self.status, self.present(result))

    def _remember(self, record: IdempotencyRecord, refusal: DomainError) -> Answer:
        if refusal.status != REMEMBERED_REFUSAL:
            raise refusal
        return _store(record, refusal.status, problem_of(refusal).body(self.request))

    def _claim(self) -> IdempotencyRecord:
        """Insert the record, or lock the one that is there. Waits for a twin, within bounds."""
        try:
            self._insert()
            record = self._records().select_for_update(no_key=True).get()
        except OperationalError as exc:
            if sqlstate(exc) == _LOCK_NOT_AVAILABLE:
                raise IdempotencyInProgress from exc
            raise
        if record.fingerprint != self.fingerprint:
            raise IdempotencyKeyReused
        return record

    def _records(self) -> QuerySet[IdempotencyRecord]:
        return IdempotencyRecord.objects.filter(
            user_id=self.user_id, operation=self.operation, key=self.key
        )

    def _insert(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO fintech_core_idempotencyrecord (user_id, operation, key, fingerprint)
                VALUES (%s, %s, %s, %s)
                ON CONFLICT ON CONSTRAINT fintech_core_idempotency_one_effect_per_key DO NOTHING
                """,
                [self.user_id, self.operation, self.key, self.fingerprint],
            )


def read_key(header: str | None) -> str:
    """The key in an `Idempotency-Key` header; the quoted structured-field form is the same key."""
    if header is None:
        raise IdempotencyKeyRequired
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = re.sub(r'\\(["\\])', r"\1", key[1:-1])
    if not _KEY.fullmatch(key):
        raise IdempotencyKeyInvalid
    return key


def fingerprint_of(asked: Mapping[str, Any]) -> str:
    """SHA-256 of the validated request: equal for requests that mean the same."""
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"cannot fingerprint {type(value).__name__}")


def _store(record: IdempotencyRecord, status: int, body: Mapping[str, Any]) -> Answer:
    record.response_status = status
    record.response_body = JSONRenderer().render(body).decode()
    record.save(update_fields=["response_status", "response_body"])
    return Answer(status, record.response_body)


def _remembered(record: IdempotencyRecord) -> Answer | None:
    if record.response_status is None or record.response_body is None:
        return None
    return Answer(record.response_status, record.response_body, replayed=True)
