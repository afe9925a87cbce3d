"""One effect per `Idempotency-Key`, and the same answer to every retry.

The key is claimed, by a lock of PostgreSQL that ends with the transaction, before the effect; the
record of the answer is inserted after it, in the same database transaction. A twin request waits
for the claim until the first has committed (then it replays) or rolled back (then it goes ahead).
So there is no moment in which both act, and a crash leaves neither record nor effect. That a key
has one record is a constraint. See draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, cast
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request

from fintech_core.database import (
    execute,
    retry_on_conflict,
    send_along,
    sent_together,
    sqlstate,
)
from fintech_core.exceptions import CONTENT_TYPE, DomainError, problem_of
from fintech_core.models import IdempotencyRecord
from fintech_core.renderers import as_json

REPLAY_HEADER = "Idempotent-Replayed"
REMEMBERED_REFUSAL = 422
# How long a call may be busy with a gateway before a retry takes it over.
LEASE = timedelta(seconds=30)

_KEY = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)
# SQLSTATEs of our own; see migrations/0003_claim.py.
_KEY_IS_TAKEN = "FC001"
_KEY_STAYS_LOCKED = "FC002"


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
        response = HttpResponse(self.body.encode(), status=self.status, content_type=content_type)
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
        sent = request._request  # REST framework's own looks for each attribute in two places
        return cls(
            user_id=cast(UUID, request.user.pk),
            operation=f"{sent.method} {sent.path}",
            key=read_key(sent.META.get("HTTP_IDEMPOTENCY_KEY")),
            fingerprint=fingerprint_of(asked),
            present=present,
            status=status,
            request=sent,
        )

    @classmethod
    def internal(
        cls, *, user_id: UUID, operation: str, key: str, asked: Mapping[str, Any]
    ) -> "IdempotentCall":
        """A call made inside the process (a command, a test); the answer is `{"id": …}`."""
        return cls(user_id, operation, key, fingerprint_of(asked), lambda made: {"id": made.pk})

    def once(self, effect: Callable[[], Any]) -> Answer:
        """Run `effect` in one transaction with its answer, unless the key has one; return it.

        A 422 refusal undoes whatever `effect` did and is remembered; any other exception undoes
        everything and is raised. Raises IdempotencyKeyReused and IdempotencyInProgress.
        """
        try:
            return retry_on_conflict(lambda: self._once(effect))
        except DomainError as refusal:
            return self._earlier_answer_or(refusal)
        except DatabaseError as exc:
            if sqlstate(exc) == _KEY_STAYS_LOCKED:
                raise IdempotencyInProgress from exc
            if sqlstate(exc) != _KEY_IS_TAKEN:
                raise
        return self._earlier_answer_or(IdempotencyInProgress())

    @transaction.atomic
    def _once(self, effect: Callable[[], Any]) -> Answer:
        with sent_together():
            send_along(_CLAIM, **self._name)
            answer = _answer(self.status, self.present(effect()))
            send_along(_KEEP, **self._name, fingerprint=self.fingerprint, **vars(answer))
        return answer

    def begin(self, create: Callable[[], Any]) -> "Answer | UUID":
        """First half of a call that needs a gateway: commit the intention, or find the earlier one.

        Returns the remembered answer, or the id of the object to go on with; `finish` is the second
        half. Whoever finds a call that another is busy with gets IdempotencyInProgress, until the
        lease has run out.
        """
        try:
            return retry_on_conflict(lambda: self._begin(create))
        except DomainError as refusal:
            return self._earlier_answer_or(refusal)

    @transaction.atomic(durable=True)
    def _begin(self, create: Callable[[], Any]) -> "Answer | UUID":
        record, remembered = self._look()
        if remembered:
            return remembered
        if record.resource_id is None:
            record.resource_id = create().pk
        elif self._records().filter(busy_until__gt=Now()).exists():
            raise IdempotencyInProgress
        record.busy_until = Now() + LEASE
        record.save()
        return record.resource_id

    def release(self) -> None:
        """The gateway could not be asked: the next retry need not wait for the lease to run out."""
        self._records().update(busy_until=None)

    def finish(self, effect: Callable[[], Any]) -> Answer:
        """Second half: store what the gateway said, and the answer, together."""
        return retry_on_conflict(lambda: self._finish(effect))

    @transaction.atomic
    def _finish(self, effect: Callable[[], Any]) -> Answer:
        record, remembered = self._look()
        return remembered or _store(record, _answer(self.status, self.present(effect())))

    def refuse(self, refusal: DomainError, effect: Callable[[], object]) -> Answer:
        """Second half, if the gateway will not do it: `effect`, and the refusal as the answer.

        Both together, and remembered: `refusal` is a 422.
        """
        return retry_on_conflict(lambda: self._refuse(refusal, effect))

    @transaction.atomic
    def _refuse(self, refusal: DomainError, effect: Callable[[], object]) -> Answer:
        effect()
        return self._recall(refusal)

    def _earlier_answer_or(self, refusal: DomainError) -> Answer:
        """Whatever the refused call did is undone. Should the key have an answer, that counts."""
        return retry_on_conflict(lambda: self._recall(refusal))

    @transaction.atomic
    def _recall(self, refusal: DomainError) -> Answer:
        record, remembered = self._look()
        if remembered:
            return remembered
        if refusal.status != REMEMBERED_REFUSAL:
            raise refusal
        return _store(record, _answer(refusal.status, problem_of(refusal).body(self.request)))

    def _look(self) -> tuple[IdempotencyRecord, Answer | None]:
        """The key's record, perhaps a new one that is not saved, and its answer if it has one.

        Until the transaction ends nobody else has the key. Raises IdempotencyKeyReused.
        """
        self._lock_key()
        record = self._records().first()
        if record is None:
            return IdempotencyRecord(**self._name, fingerprint=self.fingerprint), None
        if record.fingerprint != self.fingerprint:
            raise IdempotencyKeyReused
        return record, _remembered(record)

    def _lock_key(self) -> None:
        try:
            execute(_LOCK_KEY, **self._name)
        except DatabaseError as exc:
            if sqlstate(exc) == _KEY_STAYS_LOCKED:
                raise IdempotencyInProgress from exc
            raise

    @cached_property
    def _name(self) -> dict[str, Any]:
        return {"user_id": str(self.user_id), "operation": self.operation, "key": self.key}

    def _records(self) -> QuerySet[IdempotencyRecord]:
        return IdempotencyRecord.objects.filter(**self._name)


_LOCK_KEY = "SELECT fintech_core_lock_key(%(user_id)s, %(operation)s, %(key)s)"
_CLAIM = "SELECT fintech_core_claim(%(user_id)s, %(operation)s, %(key)s)"
_KEEP = """
INSERT INTO fintech_core_idempotencyrecord
       (user_id, operation, key, fingerprint, response_status, response_body)
VALUES (%(user_id)s, %(operation)s, %(key)s, %(fingerprint)s, %(status)s, %(body)s)
"""


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
    return hashlib.sha256(_canonical(asked).encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"cannot fingerprint {type(value).__name__}")


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain).encode


def _answer(status: int, body: Mapping[str, Any]) -> Answer:
    return Answer(status, as_json(body))


def _store(record: IdempotencyRecord, answer: Answer) -> Answer:
    record.response_status, record.response_body = answer.status, answer.body
    record.save()
    return answer


def _remembered(record: IdempotencyRecord) -> Answer | None:
    if record.response_status is None or record.response_body is None:
        return None
    return Answer(record.response_status, record.response_body, replayed=True)
