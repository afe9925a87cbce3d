"""Users in states that production can reach, made through the same services."""

from datetime import date
from functools import lru_cache
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission
from factory.declarations import Iterator, PostGeneration, Sequence
from factory.django import DjangoModelFactory
from factory.helpers import post_generation
from rest_framework.test import APIClient

from users import services
from users.models import User
from users.tokens import TokenPair

PASSWORD = "correct horse battery staple"
TODAY = date(2026, 11, 22)
IDENTITY = services.Identity(
    date_of_birth=date(1990, 5, 17),
    address_line1="1 High Street",
    city="London",
    postal_code="SW1A 1AA",
    country="GB",
)


@lru_cache
def hashed(password: str) -> str:
    """Slow on purpose, so once for all users with the same password."""
    return make_password(password)


class UserFactory(DjangoModelFactory):
    """A customer. `kyc` names where their KYC stands; they get there step by step.

    UserFactory()                    registered, nothing submitted
    UserFactory(kyc="approved")      submitted, and approved by a reviewer
    """

    class Meta:
        model = User
        skip_postgeneration_save = True

    email = Sequence(lambda n: f"person{n}@example.com")
    phone_number = Sequence(lambda n: f"+49151{n:08d}")
    first_name = Iterator(["Alice", "Bob", "Charlie", "Dana"])
    last_name = Iterator(["Archer", "Tailor", "Mason", "Smith"])
    password = PASSWORD

    @classmethod
    def _create(cls, model_class: type[User], *_: Any, **facts: Any) -> User:
        facts["password"] = hashed(facts["password"])
        return model_class.objects.create(**facts)

    @post_generation
    def kyc(user: User, create: bool, status: str | None, **_: Any) -> None:  # noqa: N805
        if not create or status in (None, "not_submitted"):
            return
        submit_kyc(user)
        if status == "approved":
            services.approve_kyc(user_id=user.pk, reviewer=reviewer())
        elif status == "rejected":
            services.reject_kyc(user_id=user.pk, reviewer=reviewer(), reason="Unreadable.")
        user.refresh_from_db()


class StaffFactory(UserFactory):
    """Operations staff; `permissions` such as `["users.review_kyc"]`."""

    email = Sequence(lambda n: f"staff{n}@example.com")
    phone_number = Sequence(lambda n: f"+49160{n:08d}")
    is_staff = True

    @post_generation
    def permissions(
        user: User,  # noqa: N805
        create: bool,
        names: list[str] | None,
        **_: Any,
    ) -> None:
        for name in names or []:
            app, _dot, codename = name.partition(".")
            user.user_permissions.add(
                Permission.objects.get(content_type__app_label=app, codename=codename)
            )


class ReviewerFactory(StaffFactory):
    """Staff who may approve and reject KYC submissions."""

    permissions = PostGeneration(
        lambda user, *_: user.user_permissions.add(
            Permission.objects.get(content_type__app_label="users", codename="review_kyc")
        )
    )


def reviewer() -> User:
    """One reviewer for all users of a test."""
    email = "reviewer@staff.example.com"
    found: User | None = User.objects.filter(email=email).first()
    return found or ReviewerFactory.create(email=email)


def submit_kyc(user: User, **facts: Any) -> User:
    """A believable submission."""
    submission: dict[str, Any] = {
        "document_type": "passport",
        "document_number": "C01X00T47",
        "identity": IDENTITY,
        "today": TODAY,
    }
    return services.submit_kyc(user_id=user.pk, **(submission | facts))


def sign_in(user: User) -> TokenPair:
    """A session as login opens it, without the slow password."""
    return services._open_session(user)


def client_for(user: User | None = None) -> APIClient:
    """A client signed in as `user`, or as nobody."""
    client = APIClient()
    if user is not None:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {sign_in(user).access}")
    return client
