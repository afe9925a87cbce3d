"""Everything that changes a user, their KYC or their sessions. Each function is one transaction."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import IO, Any, NoReturn
from uuid import UUID

from django.contrib.auth import authenticate
from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import get_error_detail

from fintech_core.database import violated_constraint
from users import events, queries, tokens
from users.documents import EXTENSIONS, Document, check_document
from users.exceptions import (
    InvalidCredentials,
    InvalidState,
    NotOnOneself,
    NotPermitted,
    TokenNotValid,
    UserNotFound,
)
from users.models import (
    KYCDocumentAccess,
    KYCStatus,
    KYCStep,
    KYCSubmission,
    Session,
    SessionEnd,
    User,
)
from users.tokens import TokenPair

logger = logging.getLogger(__name__)

ADULT_YEARS = 18
OLDEST_YEARS = 130
REVIEW_PERMISSION = "users.review_kyc"
CHANGE_PERMISSION = "users.change_user"

_TAKEN = {
    "users_user_email_is_unique": "email",
    "users_user_phone_number_is_unique": "phone_number",
}


# --- Registration and profile ------------------------------------------------------------------


def register(
    *, email: str, password: str, first_name: str, last_name: str, phone_number: str
) -> User:
    """Make a customer, and with them (by signal) the first KYC step and a wallet.

    Refuses a password that Django's validators refuse, and an email or phone number that somebody
    has, with a ValidationError naming the field; of two at the same moment one is refused.
    """
    user = User(email=email, first_name=first_name, last_name=last_name, phone_number=phone_number)
    _require_good_password("password", password, user)
    user.set_password(password)
    try:
        user.save(force_insert=True)
    except IntegrityError as exc:
        _raise_taken(exc)
    logger.info("user registered", extra={"subject_id": str(user.pk)})
    return user


@transaction.atomic
def update_profile(*, user_id: UUID, changes: Mapping[str, str]) -> User:
    """Change `first_name`, `last_name` or `phone_number`.

    Raises InvalidState when a name would change while KYC is pending or approved, and a
    ValidationError when somebody has the phone number.
    """
    user = _locked_user(user_id)
    renamed = any(
        name in changes and changes[name] != getattr(user, name)
        for name in ("first_name", "last_name")
    )
    if renamed and user.has_frozen_names:
        raise InvalidState(f"Names stand still while KYC is {user.kyc_status}.")
    for name in ("first_name", "last_name", "phone_number"):
        setattr(user, name, changes.get(name, getattr(user, name)))
    try:
        with transaction.atomic():
            user.save(update_fields=["first_name", "last_name", "phone_number"])
    except IntegrityError as exc:
        _raise_taken(exc)
    return user


def _raise_taken(exc: IntegrityError) -> NoReturn:
    field = _TAKEN.get(violated_constraint(exc))
    if field is None:
        raise exc
    what = field.replace("_", " ")
    detail = ErrorDetail(f"Somebody has registered with this {what} already.", code="unique")
    raise ValidationError({field: [detail]}) from exc


def _require_good_password(field: str, password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except DjangoValidationError as refusal:
        raise ValidationError({field: get_error_detail(refusal)}) from refusal


def _locked_user(user_id: UUID) -> User:
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if user is None:
        raise UserNotFound
    return user


# --- Signing in and out ------------------------------------------------------------------------


def login(*, email: str, password: str) -> TokenPair:
    """Open a session: a new family of tokens.

    Raises InvalidCredentials, after the same work, for an unknown email, a wrong password and a
    deactivated user.
    """
    user = authenticate(None, username=email, password=password)
    if not isinstance(user, User):
        raise InvalidCredentials
    return _open_session(user)


@transaction.atomic
def _open_session(user: User) -> TokenPair:
    """Under the user's lock: a password changed a moment ago must not leave this session alive."""
    current = _locked_user(user.pk)
    if not current.is_active or current.password != user.password:
        raise InvalidCredentials
    refresh = tokens.new_refresh_token()
    session = Session(
        user=current,
        refresh_jti=refresh["jti"],
        expires_at=timezone.now() + refresh.lifetime,
    )
    session.save(force_insert=True)
    return tokens.pair_for(session, refresh)


def refresh_session(*, refresh: str) -> TokenPair:
    """Exchange the living refresh token for a new pair; it is dead at once.

    Raises TokenNotValid. A dead token of a living family is a stolen or copied one: the family is
    revoked, and that is committed although the caller is refused.
    """
    pair = _rotate(tokens.read_refresh(refresh))
    if pair is None:
        raise TokenNotValid
    return pair


@transaction.atomic(durable=True)
def _rotate(claims: tokens.Claims) -> TokenPair | None:
    session = _locked_session(claims)
    if session is None or not session.is_alive(now=timezone.now()):
        return None
    if session.refresh_jti != claims.jti:
        _end_session(session, SessionEnd.REUSE)
        return None
    refresh = tokens.new_refresh_token()
    session.refresh_jti = refresh["jti"]
    session.expires_at = timezone.now() + refresh.lifetime
    session.save(update_fields=["refresh_jti", "expires_at"])
    return tokens.pair_for(session, refresh)


@transaction.atomic
def logout(*, refresh: str) -> None:
    """End the session of a refresh token. Safe to repeat: a session that is over stays so.

    Raises TokenNotValid for what is not a refresh token of ours, or has expired.
    """
    claims = tokens.read_refresh(refresh)
    session = _locked_session(claims)
    if session is not None and session.revoked_at is None:
        was_reused = session.refresh_jti != claims.jti
        _end_session(session, SessionEnd.REUSE if was_reused else SessionEnd.LOGOUT)


def verify_token(*, token: str) -> None:
    """Raises TokenNotValid unless the access or refresh token would be accepted right now."""
    claims = tokens.read_any(token)
    session = queries.find_session(claims)
    if session is None or not session.is_alive(now=timezone.now()):
        raise TokenNotValid
    if claims.is_refresh and session.refresh_jti != claims.jti:
        raise TokenNotValid


def _locked_session(claims: tokens.Claims) -> Session | None:
    return (
        Session.objects.select_for_update(of=("self",), no_key=True)
        .select_related("user")
        .filter(pk=claims.session_id, user_id=claims.user_id)
        .first()
    )


def _end_session(session: Session, reason: SessionEnd) -> None:
    session.revoked_at = timezone.now()
    session.revoked_reason = reason
    session.save(update_fields=["revoked_at", "revoked_reason"])
    facts = {"subject_id": str(session.user_id), "session_id": str(session.pk), "reason": reason}
    level = logging.WARNING if reason == SessionEnd.REUSE else logging.INFO
    logger.log(level, "session ended", extra=facts)


def delete_dead_sessions(*, batch_size: int = 1000, batches_max: int = 100) -> int:
    """Remove sessions that expired, or were revoked a week ago; returns how many.

    Their tokens stay refused: a token without a session is not valid.
    """
    now = timezone.now()
    dead = Q(expires_at__lt=now) | Q(revoked_at__lt=now - timedelta(days=7))
    deleted = 0
    for _ in range(batches_max):
        with transaction.atomic():
            batch = Session.objects.select_for_update(skip_locked=True).filter(dead)
            count, _by_model = Session.objects.filter(
                pk__in=list(batch.values_list("pk", flat=True)[:batch_size])
            ).delete()
        deleted += count
        if count < batch_size:
            break
    return deleted


# --- Password and deactivation -----------------------------------------------------------------


def change_password(*, user_id: UUID, current_password: str, new_password: str) -> None:
    """Set a new password; every session ends at once, this one too (a trigger does it).

    Refuses with a ValidationError naming the field: a wrong current password, a weak new one, and
    one that is not new.
    """
    user = User.objects.get(pk=user_id)
    if not user.check_password(current_password):
        raise _wrong_current_password()
    if new_password == current_password:
        detail = ErrorDetail("This is your password already.", code="password_unchanged")
        raise ValidationError({"new_password": [detail]})
    _require_good_password("new_password", new_password, user)
    hashed = make_password(new_password)  # slow on purpose, so before the lock
    with transaction.atomic():
        locked = _locked_user(user_id)
        if locked.password != user.password:  # somebody else changed it meanwhile
            raise _wrong_current_password()
        locked.password = hashed
        locked.save(update_fields=["password"])
    logger.info("password changed", extra={"subject_id": str(user_id)})


def _wrong_current_password() -> ValidationError:
    detail = ErrorDetail("This is not your current password.", code="wrong_password")
    return ValidationError({"current_password": [detail]})


@transaction.atomic
def set_active(*, user_id: UUID, is_active: bool, actor: User) -> User:
    """Deactivate a user (their sessions end at once), or let them in again.

    Raises PermissionDenied without `users.change_user` or for oneself, and UserNotFound.
    """
    require_staff(actor, CHANGE_PERMISSION, subject_id=user_id)
    user = _locked_user(user_id)
    user.is_active = is_active
    user.save(update_fields=["is_active"])
    facts = {"subject_id": str(user_id), "actor_id": str(actor.pk), "is_active": is_active}
    logger.info("user activity changed", extra=facts)
    return user


def require_staff(actor: User, permission: str, *, subject_id: UUID | None = None) -> None:
    """Raises PermissionDenied unless `actor` is active staff with `permission`, not the subject.

    Asked of the database, not of an object that may be as old as its request.
    """
    current = User.objects.filter(pk=actor.pk, is_active=True, is_staff=True).first()
    if current is None or not current.has_perm(permission):
        raise NotPermitted
    if current.pk == subject_id:
        raise NotOnOneself


# --- KYC ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a user declares about themselves, as it goes into their row and the submission's."""

    date_of_birth: date
    address_line1: str
    address_line2: str = ""
    city: str
    postal_code: str
    country: str


def submit_kyc(
    *,
    user_id: UUID,
    document_type: str,
    document_number: str,
    identity: Identity,
    document_file: UploadedFile | None = None,
    today: date,
) -> User:
    """Hand in a submission: its facts and document are frozen, and KYC becomes `pending`.

    Raises InvalidState from `pending` and `approved`; a ValidationError naming the field for
    somebody under 18 on `today`, and for a document that is too large, of another type than PDF,
    JPEG and PNG by its content, or active.
    """
    _require_adult(identity.date_of_birth, today)
    _require_open(User.objects.only("kyc_status").get(pk=user_id))  # before the file costs any work
    document = _checked(document_file)
    submission = KYCSubmission(
        user_id=user_id,
        document_type=document_type,
        document_number=document_number,
        **asdict(identity),
    )
    if document is not None:
        _attach(submission, document)
    try:
        return _submit(submission, identity)
    except BaseException:
        _discard_file(submission)
        raise


def _discard_file(submission: KYCSubmission) -> None:
    """No row will name the file; it is stored already if it has its final name."""
    if str(submission.document_file.name or "").startswith("kyc/"):
        submission.document_file.delete(save=False)


def _require_adult(born: date, today: date) -> None:
    age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    if age < ADULT_YEARS:
        detail = ErrorDetail(f"You must be {ADULT_YEARS} or older.", code="under_age")
    elif age > OLDEST_YEARS:
        detail = ErrorDetail("Check the year.", code="invalid")
    else:
        return
    raise ValidationError({"date_of_birth": [detail]})


def _checked(upload: UploadedFile | None) -> Document | None:
    try:
        return check_document(upload) if upload is not None else None
    except DjangoValidationError as refusal:
        raise ValidationError({"document_file": get_error_detail(refusal)}) from refusal


def _attach(submission: KYCSubmission, document: Document) -> None:
    submission.document_file = ContentFile(document.content, name=f"document.{document.extension}")
    submission.document_media_type = document.media_type
    submission.document_sha256 = document.sha256


def _require_open(user: User) -> None:
    if user.has_frozen_names:
        raise InvalidState(f"KYC is {user.kyc_status} already.")


@transaction.atomic
def _submit(submission: KYCSubmission, identity: Identity) -> User:
    user = _locked_user(submission.user_id)
    _require_open(user)
    submission.save(force_insert=True)
    for name, value in asdict(identity).items():
        setattr(user, name, value)
    _step(user, KYCStatus.PENDING, submission=submission, actor=user, fields=[*asdict(identity)])
    return user


def approve_kyc(*, user_id: UUID, reviewer: User) -> User:
    """Approve the pending submission of somebody else.

    Raises PermissionDenied unless `reviewer` is active staff with `users.review_kyc` and not the
    subject, UserNotFound, and InvalidState unless KYC is `pending`.
    """
    return _review(user_id=user_id, reviewer=reviewer, verdict=KYCStatus.APPROVED)


def reject_kyc(*, user_id: UUID, reviewer: User, reason: str) -> User:
    """Reject the pending submission of somebody else; they read the reason and may submit again.

    Raises what `approve_kyc` raises, and a ValidationError for an empty reason.
    """
    reason = reason.strip()
    if not reason:
        raise ValidationError({"reason": [ErrorDetail("Say why.", code="blank")]})
    return _review(user_id=user_id, reviewer=reviewer, verdict=KYCStatus.REJECTED, reason=reason)


@transaction.atomic
def _review(*, user_id: UUID, reviewer: User, verdict: KYCStatus, reason: str = "") -> User:
    require_staff(reviewer, REVIEW_PERMISSION, subject_id=user_id)
    user = _locked_user(user_id)
    if user.kyc_status != KYCStatus.PENDING:
        raise InvalidState(f"KYC is {user.kyc_status}, not pending.")
    submission = queries.latest_submission(user)
    _step(user, verdict, submission=submission, actor=reviewer, reason=reason)
    events.kyc_decided(user)
    return user


def _step(
    user: User,
    to_status: KYCStatus,
    *,
    submission: KYCSubmission | None,
    actor: User,
    reason: str = "",
    fields: list[str] | None = None,
) -> None:
    """Move a locked user along and record it; the database refuses the one without the other."""
    KYCStep.objects.create(
        user=user,
        submission=submission,
        from_status=user.kyc_status,
        to_status=to_status,
        actor=actor,
        reason=reason,
    )
    facts: dict[str, Any] = {"subject_id": str(user.pk), "from_status": user.kyc_status}
    user.kyc_status = to_status
    user.kyc_rejection_reason = reason if to_status == KYCStatus.REJECTED else ""
    user.save(update_fields=["kyc_status", "kyc_rejection_reason", *(fields or [])])
    facts |= {"to_status": str(to_status), "actor_id": str(actor.pk)}
    logger.info("kyc step", extra=facts)


@dataclass(frozen=True)
class OpenedDocument:
    file: IO[bytes]
    filename: str
    media_type: str


def open_document(*, submission_id: UUID, reader: User) -> OpenedDocument:
    """Open a submission's document for a reviewer, and record for good that they read it.

    Raises PermissionDenied unless `reader` is active staff with `users.review_kyc`, and
    UserNotFound when there is no such submission, or no document with it.
    """
    require_staff(reader, REVIEW_PERMISSION)
    submission = KYCSubmission.objects.filter(pk=submission_id).exclude(document_file="").first()
    if submission is None:
        raise UserNotFound("There is no such document.")
    KYCDocumentAccess.objects.create(submission=submission, reader=reader)
    facts = {"submission_id": str(submission_id), "actor_id": str(reader.pk)}
    logger.info("kyc document read", extra=facts)
    extension = EXTENSIONS[submission.document_media_type]
    return OpenedDocument(
        file=submission.document_file.open("rb"),
        filename=f"kyc-{submission_id}.{extension}",
        media_type=submission.document_media_type,
    )
