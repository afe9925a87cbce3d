"""Who uses the wallet, what they proved about themselves, and where they are signed in."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import uuid4

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Lower, Now
from django.utils import timezone
from django.utils.crypto import salted_hmac
from uuid_utils.compat import uuid7

from users.fields import EncryptedTextField, LowerCaseEmailField
from users.validators import E164_PATTERN, ascii_only, e164, plain_line

NAME_MAX_LENGTH = 100
REASON_MAX_LENGTH = 500


class KYCStatus(models.TextChoices):
    NOT_SUBMITTED = "not_submitted"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


# Every step there is. The trigger on users_user and the check on users_kycstep say the same.
KYC_STEPS: frozenset[tuple[str, str]] = frozenset(
    {
        (KYCStatus.NOT_SUBMITTED, KYCStatus.PENDING),
        (KYCStatus.REJECTED, KYCStatus.PENDING),
        (KYCStatus.PENDING, KYCStatus.APPROVED),
        (KYCStatus.PENDING, KYCStatus.REJECTED),
    }
)
# What was submitted is being, or has been, compared with these names.
NAMES_FROZEN_IN = frozenset({KYCStatus.PENDING, KYCStatus.APPROVED})


class DocumentType(models.TextChoices):
    PASSPORT = "passport"
    NATIONAL_ID = "national_id"
    DRIVING_LICENCE = "driving_licence"


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> "User":
        """The user with this email, however it is capitalised."""
        return self.get(email=username)

    def create_user(self, email: str, password: str | None = None, **facts: Any) -> "User":
        """A user who can sign in. Checks nothing; `users.services.register` does."""
        user = self.model(email=email, **facts)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **facts: Any) -> "User":
        return self.create_user(
            email, password, **{**facts, "is_staff": True, "is_superuser": True}
        )


class User(AbstractBaseUser, PermissionsMixin):
    """A person: a customer, or one of the operations staff.

    Invariants
    * `email` is lower-case and unique; so is `phone_number` unique, in E.164.
    * `kyc_status` moves only along `KYC_STEPS`, by `users.services`; at commit the newest `KYCStep`
      says the same. The names and the identity facts stand still once they were submitted.
    * A changed `password`, or `is_active` turned off, revokes every session for good, the API's and
      the admin's (triggers see to it).
    * Never deleted: deactivated.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = LowerCaseEmailField(max_length=254, validators=[ascii_only])
    # Empty only for staff made by `createsuperuser`; null, because two users may both have none.
    phone_number = models.CharField(  # noqa: DJ001
        max_length=16, null=True, blank=True, validators=[e164]
    )
    first_name = models.CharField(
        max_length=NAME_MAX_LENGTH, blank=True, default="", validators=[plain_line]
    )
    last_name = models.CharField(
        max_length=NAME_MAX_LENGTH, blank=True, default="", validators=[plain_line]
    )
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    # Counted by a trigger. An admin session belongs to one count, so it does not come back to life.
    deactivation_count = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    date_joined = models.DateTimeField(default=timezone.now, editable=False)

    kyc_status = models.CharField(
        max_length=16, choices=KYCStatus, default=KYCStatus.NOT_SUBMITTED, editable=False
    )
    kyc_rejection_reason = models.CharField(
        max_length=REASON_MAX_LENGTH, blank=True, default="", editable=False
    )

    # The identity facts of the newest submission.
    date_of_birth = models.DateField(null=True, blank=True, editable=False)
    address_line1 = models.CharField(max_length=200, blank=True, default="", editable=False)
    address_line2 = models.CharField(max_length=200, blank=True, default="", editable=False)
    city = models.CharField(max_length=100, blank=True, default="", editable=False)
    postal_code = models.CharField(max_length=20, blank=True, default="", editable=False)
    country = models.CharField(max_length=2, blank=True, default="", editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        permissions = [("review_kyc", "Can review KYC submissions")]
        constraints = [
            # With this operator class one index serves equality and the staff's prefix search.
            models.UniqueConstraint(
                name="users_user_email_is_unique",
                fields=["email"],
                opclasses=["varchar_pattern_ops"],
                violation_error_message="Somebody has registered with this email already.",
            ),
            models.UniqueConstraint(
                name="users_user_phone_number_is_unique",
                fields=["phone_number"],
                opclasses=["varchar_pattern_ops"],
                violation_error_message="Somebody has registered with this phone number already.",
            ),
            models.CheckConstraint(
                name="users_user_email_is_lower_case", condition=Q(email=Lower("email"))
            ),
            models.CheckConstraint(
                name="users_user_phone_number_is_e164",
                condition=Q(phone_number__isnull=True) | Q(phone_number__regex=E164_PATTERN),
            ),
            models.CheckConstraint(
                name="users_user_kyc_status_is_known", condition=Q(kyc_status__in=KYCStatus.values)
            ),
            models.CheckConstraint(
                name="users_user_rejected_means_a_reason",
                condition=Q(kyc_status=KYCStatus.REJECTED, kyc_rejection_reason__gt="")
                | (~Q(kyc_status=KYCStatus.REJECTED) & Q(kyc_rejection_reason="")),
            ),
        ]
        indexes = [
            models.Index(fields=["kyc_status", "-id"], name="users_user_by_kyc_status"),
        ]

    def __str__(self) -> str:
        return self.email

    def save(self, *args: Any, **options: Any) -> None:
        """One transaction with what `post_save` adds: the first KYC step, and the wallet."""
        with transaction.atomic(using=options.get("using")):
            super().save(*args, **options)

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """What an admin session must match on each request; Django's own, and the count."""
        text = f"{self.password}{self.deactivation_count}"
        return salted_hmac(
            "users.User.session", text, secret=secret, algorithm="sha256"
        ).hexdigest()

    def get_full_name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()

    def get_short_name(self) -> str:
        return self.first_name

    @property
    def display_name(self) -> str:
        """What other customers see of a person: "Bob T."; pages of money write it by SQL."""
        initial = f"{self.last_name[0]}." if self.last_name else ""
        return f"{self.first_name} {initial}".strip()

    @property
    def is_kyc_approved(self) -> bool:
        return self.kyc_status == KYCStatus.APPROVED

    @property
    def has_frozen_names(self) -> bool:
        return self.kyc_status in NAMES_FROZEN_IN


def document_path(submission: "KYCSubmission", filename: str) -> str:
    """A random name: neither the client's, nor one that says whose document it is."""
    name = uuid4().hex
    return f"kyc/{name[:2]}/{name}.{filename.rpartition('.')[2]}"


class KYCSubmission(models.Model):
    """What a user declared and showed, as it was at that moment. Never changed, never deleted."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="kyc_submissions"
    )
    document_type = models.CharField(max_length=20, choices=DocumentType)
    document_number = EncryptedTextField()
    date_of_birth = models.DateField()
    address_line1 = models.CharField(max_length=200)
    address_line2 = models.CharField(max_length=200, blank=True, default="")
    city = models.CharField(max_length=100)
    postal_code = models.CharField(max_length=20)
    country = models.CharField(max_length=2)
    # Private: outside every URL, served to reviewers by `users.views.kyc_document` alone.
    document_file = models.FileField(upload_to=document_path, max_length=100, blank=True)
    document_media_type = models.CharField(max_length=40, blank=True, default="")
    # The file lies outside the database; a changed one is recognised.
    document_sha256 = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "KYC submission"
        indexes = [models.Index(fields=["user", "-id"], name="users_kycsubmission_by_user")]
        constraints = [
            models.CheckConstraint(
                name="users_kycsubmission_document_type_is_known",
                condition=Q(document_type__in=DocumentType.values),
            ),
            models.CheckConstraint(
                name="users_kycsubmission_country_is_a_code",
                condition=Q(country__regex=r"^[A-Z]{2}$"),
            ),
            models.CheckConstraint(
                name="users_kycsubmission_file_is_described",
                condition=Q(document_file="", document_media_type="", document_sha256="")
                | Q(
                    document_file__gt="",
                    document_media_type__gt="",
                    document_sha256__regex=r"^[0-9a-f]{64}$",
                ),
            ),
            # What the steps' composite foreign key points at.
            models.UniqueConstraint(
                name="users_kycsubmission_belongs_to_one_user", fields=["id", "user"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.document_type} of {self.user_id}"

    @property
    def masked_document_number(self) -> str:
        """The end of the number, enough to recognise it: "•••4711"."""
        number = self.document_number
        return f"•••{number[-4:]}" if len(number) >= 8 else "•••"


class KYCStep(models.Model):
    """One step of one user's KYC: who, when, from, to, why. Never changed, never deleted.

    Invariants
    * The steps of a user form a chain from "" (registered) to the user's `kyc_status`.
    * Every step but the first concerns a submission of that user.
    * Who approves or rejects is somebody else than the subject.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="kyc_steps"
    )
    submission = models.ForeignKey(
        KYCSubmission, on_delete=models.PROTECT, null=True, related_name="steps"
    )
    from_status = models.CharField(max_length=16, blank=True)
    to_status = models.CharField(max_length=16, choices=KYCStatus)
    # Empty for the first step alone: nobody decides that a new user has submitted nothing.
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+"
    )
    reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "KYC step"
        indexes = [models.Index(fields=["user", "-id"], name="users_kycstep_by_user")]
        constraints = [
            models.CheckConstraint(
                name="users_kycstep_is_a_known_step",
                condition=Q(
                    from_status="",
                    to_status=KYCStatus.NOT_SUBMITTED,
                    submission__isnull=True,
                    actor__isnull=True,
                )
                | Q(
                    from_status__in=[KYCStatus.NOT_SUBMITTED, KYCStatus.REJECTED],
                    to_status=KYCStatus.PENDING,
                    submission__isnull=False,
                    actor=F("user"),
                )
                | Q(
                    from_status=KYCStatus.PENDING,
                    to_status__in=[KYCStatus.APPROVED, KYCStatus.REJECTED],
                    submission__isnull=False,
                    actor__isnull=False,
                ),
            ),
            models.CheckConstraint(
                name="users_kycstep_nobody_reviews_themselves",
                condition=~Q(to_status__in=[KYCStatus.APPROVED, KYCStatus.REJECTED])
                | ~Q(actor=F("user")),
            ),
            models.CheckConstraint(
                name="users_kycstep_rejection_says_why",
                condition=~Q(to_status=KYCStatus.REJECTED) | Q(reason__gt=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.from_status or 'new'} → {self.to_status}"


class KYCDocumentAccess(models.Model):
    """A reviewer read a document: who, which, when. Never changed, never deleted."""

    submission = models.ForeignKey(
        KYCSubmission, on_delete=models.PROTECT, related_name="document_accesses"
    )
    reader = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "KYC document access"
        verbose_name_plural = "KYC document accesses"

    def __str__(self) -> str:
        return f"{self.submission_id} read by {self.reader_id}"


class SessionEnd(models.TextChoices):
    LOGOUT = "logout"
    REUSE = "reuse"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a reason, not a password
    DEACTIVATED = "deactivated"


class Session(models.Model):
    """One sign-in, and the family of tokens that descend from it.

    Invariants
    * `refresh_jti` names the only refresh token of the family that is alive.
    * Once `revoked_at` is set, no token of the family works again.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="sessions"
    )
    refresh_jti = models.CharField(max_length=32)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # Moves with every refresh.
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    revoked_reason = models.CharField(max_length=20, blank=True, default="", choices=SessionEnd)

    class Meta:
        indexes = [
            models.Index(
                fields=["user"],
                name="users_session_alive_by_user",
                condition=Q(revoked_at__isnull=True),
            ),
            models.Index(fields=["expires_at"], name="users_session_by_expiry"),
            models.Index(
                fields=["revoked_at"],
                name="users_session_by_revocation",
                condition=Q(revoked_at__isnull=False),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="users_session_revoked_means_a_reason",
                condition=Q(revoked_at__isnull=True, revoked_reason="")
                | Q(revoked_at__isnull=False, revoked_reason__in=SessionEnd.values),
            ),
        ]

    def __str__(self) -> str:
        return f"session {self.id}"

    def is_alive(self, *, now: datetime) -> bool:
        """Whether tokens of this family work at all; needs `user` to be loaded."""
        return self.revoked_at is None and now < self.expires_at and self.user.is_active
