"""`manage.py seed_demo`: a handful of people with money and history. Harmless when repeated.

Everything goes through the services, as it would for real customers: KYC is submitted and reviewed,
money arrives by signed gateway events, transfers carry idempotency keys. A second run finds each
key answered and changes nothing.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management.base import CommandError
from django.utils import timezone

from fintech_core import operations
from fintech_core.commands import OurCommand
from fintech_core.idempotency import IdempotentCall
from payments.models import PaymentIntent, WebhookEvent
from payments.payouts import Destination, NewOrder
from payments.services import PaymentService
from transactions import checkpoints
from transactions.holds import Reservation
from transactions.models import Transaction
from transactions.services import TransactionService, Transfer
from users import services as users
from users.models import KYCStatus, User

PASSWORD = "demo-Wallet-2026"  # noqa: S105 - printed for everyone to see; sandbox only
REVIEWER = "olivia@example.com"
SHOP = "chiara@example.com"


@dataclass(frozen=True)
class Person:
    email: str
    first_name: str
    last_name: str
    phone_number: str
    born: date
    address: str
    city: str
    postal_code: str
    country: str
    kyc: KYCStatus = KYCStatus.APPROVED


PEOPLE = [
    Person(
        "alice@example.com", "Alice", "Martin", "+14155550101", date(1989, 3, 14),
        "812 Valencia Street", "San Francisco", "94110", "US",
    ),
    Person(
        "bob@example.com", "Bob", "Tanner", "+14155550102", date(1993, 11, 2),
        "45 Court Street", "Brooklyn", "11201", "US",
    ),
    Person(
        "chiara@example.com", "Chiara", "Rossi", "+393335550103", date(1984, 7, 21),
        "Via Garibaldi 8", "Torino", "10122", "IT",
    ),
    Person(
        "daniel@example.com", "Daniel", "Okafor", "+447700900104", date(1997, 1, 30),
        "17 Brixton Road", "London", "SW9 6DE", "GB", KYCStatus.PENDING,
    ),
    Person(
        "emma@example.com", "Emma", "Lindqvist", "+46701740605", date(2001, 9, 9),
        "Hornsgatan 51", "Stockholm", "118 49", "SE", KYCStatus.NOT_SUBMITTED,
    ),
]  # fmt: skip

DEPOSITS = [
    ("alice@example.com", "1500.00"),
    ("bob@example.com", "400.00"),
    ("chiara@example.com", "250.00"),
    ("emma@example.com", "20.00"),
]

TRANSFERS = [
    ("alice@example.com", "chiara@example.com", "18.40", "Lunch for two"),
    ("bob@example.com", "alice@example.com", "62.50", "Concert tickets"),
    ("alice@example.com", "bob@example.com", "240.00", "Half of the rent"),
    ("chiara@example.com", "bob@example.com", "9.90", "Coffee beans"),
    ("bob@example.com", "emma@example.com", "35.00", "Happy birthday!"),
    ("alice@example.com", "chiara@example.com", "120.00", "Italian lessons, November"),
]


class Command(OurCommand):
    help = "Create demo people with money and history (sandbox only); harmless when repeated."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.PAYMENTS_SANDBOX:
            raise CommandError("The demo needs the sandbox gateway: set PAYMENTS_SANDBOX=true.")
        reviewer = _reviewer()
        for person in PEOPLE:
            _verify(_register(person), person, reviewer)
        for email, amount in DEPOSITS:
            _deposit(User.objects.get(email=email), amount)
        for number, transfer in enumerate(TRANSFERS, start=1):
            _transfer(number, *transfer)
        _hold("captured", "alice@example.com", "75.00", "Rental car, reserved", take="60.00")
        _hold("active", "bob@example.com", "40.00", "Table for four, reserved")
        _refund("chiara@example.com", "4.20", "One coffee less")
        _payout("chiara@example.com", "60.00", "IT60X0542811101000000123456")
        self._take_checkpoint()
        self._say_who_is_there()

    def _take_checkpoint(self) -> None:
        """So that everyone has a proof at once; nothing is signed if nothing moved since the last.

        A refusal is told and no more: the demo is there, and `make run` should start.
        """
        try:
            checkpoints.take()
        except (checkpoints.CheckpointInProgress, checkpoints.CheckpointRefused) as refusal:
            self.stderr.write(f"No checkpoint was taken: {refusal}")

    def _say_who_is_there(self) -> None:
        self.stdout.write("Demo people (all with the password " + PASSWORD + "):")
        for user in User.objects.filter(email__in=[p.email for p in PEOPLE]).order_by("pk"):
            balance = f"{user.wallet.balance} {user.wallet.currency}"
            self.stdout.write(f"  {user.email:22} KYC {user.get_kyc_status_display():14} {balance}")
        self.stdout.write(f"  {REVIEWER:22} operations staff, may review KYC in /admin/")


def _reviewer() -> User:
    """Found again, she gets what an earlier version of this command did not give her."""
    reviewer = User.objects.filter(email=REVIEWER).first() or User.objects.create_user(
        REVIEWER, PASSWORD, first_name="Olivia", last_name="Bennett", is_staff=True
    )
    reviewer.user_permissions.add(
        *Permission.objects.filter(content_type__app_label="users", codename="review_kyc")
    )
    reviewer.groups.add(*Group.objects.filter(name=operations.GROUP))
    return User.objects.get(pk=reviewer.pk)


def _register(person: Person) -> User:
    if found := User.objects.filter(email=person.email).first():
        return found
    return users.register(
        email=person.email,
        password=PASSWORD,
        first_name=person.first_name,
        last_name=person.last_name,
        phone_number=person.phone_number,
    )


def _verify(user: User, person: Person, reviewer: User) -> None:
    """As far as the person's story goes, and only if it has not been told yet."""
    if user.kyc_status != KYCStatus.NOT_SUBMITTED or person.kyc == KYCStatus.NOT_SUBMITTED:
        return
    users.submit_kyc(
        user_id=user.pk,
        document_type="passport",
        document_number=f"X{person.phone_number[-7:]}",
        identity=users.Identity(
            date_of_birth=person.born,
            address_line1=person.address,
            city=person.city,
            postal_code=person.postal_code,
            country=person.country,
        ),
        document_file=SimpleUploadedFile("passport.pdf", _specimen(person)),
        today=timezone.localdate(),
    )
    if person.kyc == KYCStatus.APPROVED:
        users.approve_kyc(user_id=user.pk, reviewer=reviewer)


def _call(user: User, operation: str, asked: dict[str, str]) -> IdempotentCall:
    return IdempotentCall.internal(
        user_id=user.pk, operation=f"seed_demo {operation}", key="demo", asked=asked
    )


def _deposit(user: User, amount: str) -> None:
    """A top-up as the mobile app makes it; the sandbox's event is handled here and now."""
    answer = PaymentService.create_payment_intent(
        user=user,
        amount=Decimal(amount),
        currency=user.wallet.currency,
        gateway="sandbox",
        idempotency=_call(user, "deposit", {"amount": amount}),
    )
    intent = PaymentIntent.objects.get(pk=UUID(answer.content["id"]))
    if intent.status == PaymentIntent.Status.SUCCEEDED:
        return
    PaymentService.simulate_payment_success(user=user, intent_id=intent.pk)
    for event in WebhookEvent.objects.filter(status=WebhookEvent.Status.RECEIVED):
        PaymentService.process_payment_webhook(event.pk)


def _hold(name: str, payer: str, amount: str, description: str, take: str | None = None) -> None:
    """Chiara's shop reserves, and takes some of it if `take` says so."""
    user, shop = User.objects.get(email=payer), User.objects.get(email=SHOP)
    reservation = Reservation(
        recipient=SHOP,
        amount=Decimal(amount),
        currency=user.wallet.currency,
        description=description,
        expires_in=timedelta(days=30),
    )
    answer = TransactionService.create_hold(
        payer=user,
        reservation=reservation,
        idempotency=_call(user, f"hold {name}", {"amount": amount}),
    )
    if take:
        TransactionService.capture_hold(
            caller=shop,
            hold_id=UUID(answer.content["id"]),
            amount=Decimal(take),
            idempotency=_call(shop, f"capture {name}", {"amount": take}),
        )


def _refund(recipient: str, amount: str, reason: str) -> None:
    """Of the first payment that the recipient got."""
    user = User.objects.get(email=recipient)
    first = Transaction.objects.filter(to_user=user, type=Transaction.Type.TRANSFER).earliest("pk")
    TransactionService.refund(
        caller=user,
        transaction_id=first.pk,
        amount=Decimal(amount),
        reason=reason,
        idempotency=_call(user, "refund", {"amount": amount}),
    )


def _payout(owner: str, amount: str, iban: str) -> None:
    """It waits for the sandbox to pay it: the admin has the address of the page that decides."""
    user = User.objects.get(email=owner)
    PaymentService.create_payout(
        user=user,
        order=NewOrder(
            amount=Decimal(amount),
            currency=user.wallet.currency,
            gateway="sandbox",
            destination=Destination(iban=iban, name=user.get_full_name()),
        ),
        idempotency=_call(user, "payout", {"amount": amount}),
    )


def _transfer(number: int, sender: str, recipient: str, amount: str, description: str) -> None:
    user = User.objects.get(email=sender)
    transfer = Transfer(
        recipient=recipient,
        amount=Decimal(amount),
        currency=user.wallet.currency,
        description=description,
    )
    asked = {"recipient": recipient, "amount": amount}
    TransactionService.transfer_money(
        sender=user, transfer=transfer, idempotency=_call(user, f"transfer {number}", asked)
    )


def _specimen(person: Person) -> bytes:
    """A one-page PDF that shows a reviewer something to look at."""
    lines = ["SPECIMEN PASSPORT", f"{person.last_name}, {person.first_name}", f"{person.born}"]
    text = " ".join(f"({line}) Tj 0 -28 Td" for line in lines)
    content = f"BT /F1 20 Tf 60 720 Td {text} ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    return _pdf(objects)


def _pdf(objects: list[str]) -> bytes:
    """The objects with the cross-reference table that ISO 32000 asks for."""
    body, offsets = "%PDF-1.4\n", []
    for number, written in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{written}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    return (
        f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    ).encode("latin-1")
