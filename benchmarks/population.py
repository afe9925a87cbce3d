"""The people: approved, with wallets, money and tokens, made in bulk.

Under the rules of the database, so in a state that production could reach; one password hash serves
all, because nobody signs in. Needs Django to be set up.
"""

import random
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import connections, transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

from benchmarks.people import People, Person
from transactions.services import TransactionService
from users import tokens
from users.models import DocumentType, KYCStatus, KYCStep, KYCSubmission, Session, User
from wallet.models import Wallet

FUNDS = Decimal("10000000.00")
_IDENTITY = {
    "date_of_birth": date(1990, 5, 17),
    "address_line1": "1 High Street",
    "city": "London",
    "postal_code": "SW1A 1AA",
    "country": "GB",
}


def gather(*, senders: int, recipients: int, seed: int) -> People:
    """Make them all in the default database, which is left unused, so that it can be copied."""
    users = _approved(senders + recipients + 1)
    people = _signed_in(users)
    for user in users[:senders]:
        _fund(user)
    connections.close_all()
    return People(
        people[:senders],
        people[senders : senders + recipients],
        people[-1],
        random.Random(seed),  # noqa: S311 - to be repeatable, not to be secret
    )


def _fund(user: User) -> None:
    TransactionService.add_money(
        wallet_id=user.wallet.pk,
        amount=FUNDS,
        currency=settings.DEFAULT_CURRENCY,
        effect_key=f"benchmark:{user.pk}",
    )


@transaction.atomic
def _approved(count: int) -> list[User]:
    """Registered, submitted, approved: the steps of `users.services`, many people at a time."""
    password = make_password("nobody signs in with this")
    reviewer = User(email="reviewer@staff.example.com", is_staff=True, password=password)
    users = [
        User(
            email=f"person{number}@example.com",
            phone_number=f"+49151{number:08d}",
            first_name="Pat",
            last_name="Payer",
            password=password,
        )
        for number in range(count)
    ]
    everybody = [reviewer, *users]
    User.objects.bulk_create(everybody)
    Wallet.objects.bulk_create(
        Wallet(user=user, currency=settings.DEFAULT_CURRENCY) for user in everybody
    )
    KYCStep.objects.bulk_create(
        KYCStep(user=user, from_status="", to_status=KYCStatus.NOT_SUBMITTED) for user in everybody
    )
    submissions = KYCSubmission.objects.bulk_create(
        KYCSubmission(
            user=user,
            document_type=DocumentType.PASSPORT,
            document_number="C01X00T47",
            **_IDENTITY,
        )
        for user in users
    )
    found = User.objects.filter(pk__in=[user.pk for user in users])
    found.update(kyc_status=KYCStatus.PENDING, **_IDENTITY)
    _record(submissions, KYCStatus.NOT_SUBMITTED, KYCStatus.PENDING, None)
    found.update(kyc_status=KYCStatus.APPROVED)
    _record(submissions, KYCStatus.PENDING, KYCStatus.APPROVED, reviewer)
    return list(found.select_related("wallet").order_by("pk"))


def _record(
    submissions: Sequence[KYCSubmission], before: str, after: str, actor: User | None
) -> None:
    """`actor` None: each did it themselves."""
    KYCStep.objects.bulk_create(
        KYCStep(
            user_id=submission.user_id,
            submission=submission,
            from_status=before,
            to_status=after,
            actor=actor or submission.user,
        )
        for submission in submissions
    )


def _signed_in(users: Sequence[User]) -> list[Person]:
    """A session and an access token each."""
    sessions, people = [], []
    for user in users:
        refresh = tokens.new_refresh_token()
        session = Session(
            id=uuid7(),
            user=user,
            refresh_jti=refresh["jti"],
            expires_at=timezone.now() + refresh.lifetime,
        )
        sessions.append(session)
        people.append(Person(user.email, tokens.pair_for(session, refresh).access))
    Session.objects.bulk_create(sessions)
    return people
