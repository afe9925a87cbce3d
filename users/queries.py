"""Reads that are more than a look-up by key."""

import re
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q, QuerySet

from fintech_core.database import query
from fintech_core.rows import from_text, instance_of, read_moments
from users.models import KYCStep, KYCSubmission, Session, User
from users.tokens import Claims

SEARCH_WORDS_MAX = 4
KYC_STEPS_SHOWN = 50
FOUND_MAX = 100


def find_session(claims: Claims) -> Session | None:
    """The session that a token names, with its user, in one query. It may be over.

    Every request asks, so PostgreSQL plans it once and the ORM does not spell it out each time. Of
    the user it reads what requests use; the rest is read when somebody asks for it.
    """
    found = query(_FIND_SESSION, session=claims.session, user=claims.user)
    if not found:
        return None
    [(text,)] = found
    row = from_text(text)
    read_moments(row, "created_at", "expires_at", "revoked_at", "date_joined")
    user = {name: row[name] for name in _USER_COLUMNS}
    session = {name: row[name] for name in _SESSION_COLUMNS}
    return instance_of(
        Session,
        {"id": claims.session_id, "user_id": claims.user_id, **session},
        user=instance_of(User, {"id": claims.user_id, **user}),
    )


# Not the ids by which it is found: to make a UUID of text takes as long as three other columns.
_SESSION_COLUMNS = ["refresh_jti", "created_at", "expires_at", "revoked_at", "revoked_reason"]
_USER_COLUMNS = [
    "is_superuser", "email", "phone_number", "first_name", "last_name", "is_active",
    "is_staff", "date_joined", "kyc_status", "kyc_rejection_reason",
]  # fmt: skip
_FIND_SESSION = (
    "SELECT row_to_json(found)::text FROM users_find_session(%(session)s, %(user)s) found"
)


def search_users(users: QuerySet[User], text: str) -> QuerySet[User]:
    """Users in whom every word of `text` begins the email, a name or the phone number.

    Beginnings only, because those are ranges of an index: a million users are searched as fast as a
    thousand.
    """
    for word in text.split()[:SEARCH_WORDS_MAX]:
        users = users.filter(_begins_with(word))
    return users


def found_ids(text: str) -> list[UUID]:
    """The ids of the newest users whom `search_users` finds, for looking up what is theirs."""
    found = search_users(User.objects.all(), text).order_by("-pk")
    return list(found.values_list("pk", flat=True)[:FOUND_MAX])


def _begins_with(word: str) -> Q:
    found = (
        Q(email__startswith=word.lower())
        | Q(first_name__istartswith=word)
        | Q(last_name__istartswith=word)
    )
    if re.fullmatch(r"\+?[0-9]+", word):
        found |= Q(phone_number__startswith=f"+{word.removeprefix('+')}")
    try:
        return found | Q(pk=UUID(word))
    except ValueError:
        return found


def latest_submission(user: User) -> KYCSubmission | None:
    return user.kyc_submissions.order_by("-id").first()


@dataclass(frozen=True)
class KYCRecord:
    """Where a user's KYC stands, and how it came there (newest step first)."""

    kyc_status: str
    kyc_rejection_reason: str
    submission: KYCSubmission | None
    steps: list[KYCStep]


def kyc_record(user: User) -> KYCRecord:
    return KYCRecord(
        kyc_status=user.kyc_status,
        kyc_rejection_reason=user.kyc_rejection_reason,
        submission=latest_submission(user),
        steps=list(user.kyc_steps.order_by("-id")[:KYC_STEPS_SHOWN]),
    )
