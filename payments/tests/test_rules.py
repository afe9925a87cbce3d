"""PostgreSQL refuses what the code forgot, and says which rule it was."""

from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now

from payments.models import PaymentIntent, WebhookEvent
from payments.tests.factories import (
    PaymentIntentFactory,
    WebhookEventFactory,
    deliver,
    event_body,
)
from transactions.models import Transaction
from transactions.tests.helpers import fund, refused_by
from users.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


def update(row, **changes):
    with transaction.atomic():
        type(row).objects.filter(pk=row.pk).update(**changes)


def new_intent(**facts):
    user = UserFactory()
    return PaymentIntent.objects.create(
        **{
            "user": user,
            "wallet": user.wallet,
            "amount": Decimal("1.00"),
            "currency": "USD",
            "gateway": "sandbox",
            "expires_at": Now(),
        }
        | facts
    )


class TestIntent:
    @pytest.mark.parametrize(
        ("amount", "constraint"),
        [
            ("0.00", "payments_paymentintent_amount_positive"),
            ("-1.00", "payments_paymentintent_amount_positive"),
        ],
    )
    def test_given_an_amount_that_is_none_when_written_then_refused(self, amount, constraint):
        with refused_by(constraint), transaction.atomic():
            new_intent(amount=Decimal(amount))

    def test_given_nan_when_written_then_refused(self):
        intent = PaymentIntentFactory()
        with refused_by("payments_paymentintent_amount_positive"), transaction.atomic():
            insert_copy(intent, amount="'NaN'")

    def test_given_a_currency_that_is_none_when_written_then_refused(self):
        with refused_by("payments_paymentintent_currency_is_a_code"), transaction.atomic():
            new_intent(currency="usd")

    @pytest.mark.parametrize("status", ["processing", "failed", "canceled", "expired"])
    def test_given_a_new_intent_when_it_begins_elsewhere_then_refused(self, status):
        with refused_by("payments_paymentintent_begins_unpaid"), transaction.atomic():
            new_intent(status=status)

    @pytest.mark.parametrize("column", ["amount", "currency", "gateway", "user", "wallet",
                                        "expires_at", "created_at"])  # fmt: skip
    def test_given_an_intent_when_its_terms_change_then_refused(self, column):
        intent = PaymentIntentFactory()
        other = UserFactory()
        values = {
            "amount": Decimal("1.00"),
            "currency": "EUR",
            "gateway": "stripe",
            "user": other,
            "wallet": other.wallet,
            "expires_at": Now(),
            "created_at": Now(),
        }
        with refused_by("payments_paymentintent_is_frozen"):
            update(intent, **{column: values[column]})

    @pytest.mark.parametrize("value", ["sbx_other", None])
    def test_given_a_reference_when_it_changes_then_refused(self, value):
        intent = PaymentIntentFactory()
        with refused_by("payments_paymentintent_reference_set_once"):
            update(intent, gateway_reference=value)

    def test_given_a_reference_when_another_intent_takes_it_then_refused(self):
        taken = PaymentIntentFactory().gateway_reference
        with refused_by("payments_paymentintent_one_per_reference"), transaction.atomic():
            new_intent(gateway_reference=taken)

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("processing", "requires_payment"),
            ("failed", "requires_payment"),
            ("failed", "processing"),
            ("failed", "canceled"),
            ("canceled", "requires_payment"),
            ("canceled", "failed"),
            ("expired", "processing"),
            ("expired", "canceled"),
        ],
    )
    def test_given_a_status_when_it_would_go_back_then_refused(self, before, after):
        intent = PaymentIntentFactory(status=before)
        with refused_by("payments_paymentintent_status_forward"):
            update(intent, status=after)

    @pytest.mark.parametrize("after", ["requires_payment", "processing", "failed", "canceled"])
    def test_given_success_when_it_would_end_then_refused(self, after):
        intent = PaymentIntentFactory(status="succeeded")
        with refused_by("payments_paymentintent_credited_once"):
            update(intent, status=after, transaction=None)
        with refused_by("payments_paymentintent_status_forward"):
            update(intent, status=after)

    def test_given_no_credit_when_it_claims_success_then_refused(self):
        intent = PaymentIntentFactory()
        with refused_by("payments_paymentintent_succeeded_iff_credited"):
            update(intent, status="succeeded")

    def test_given_a_status_nobody_knows_when_written_then_refused(self):
        intent = PaymentIntentFactory()
        with refused_by("payments_paymentintent_status_known"):
            update(intent, status="paid")

    def test_given_somebody_elses_deposit_when_claimed_as_credit_then_refused(self):
        intent = PaymentIntentFactory(amount="5.00")
        deposit = fund(intent.user, "5.00")
        with refused_by("payments_paymentintent_credit_is_its_own"):
            update(intent, status="succeeded", transaction=deposit)

    def test_given_a_credit_when_swapped_then_refused(self):
        intent = PaymentIntentFactory(status="succeeded")
        deposit = fund(intent.user, "100.00")
        with refused_by("payments_paymentintent_credited_once"):
            update(intent, transaction=deposit)

    def test_given_an_intent_when_deleted_then_refused(self):
        intent = PaymentIntentFactory()
        delete = "DELETE FROM payments_paymentintent WHERE id = %s"
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(delete, [intent.pk])
        assert PaymentIntent.objects.filter(pk=intent.pk).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("table", "verb"),
    [
        ("payments_paymentintent", "DELETE FROM"),
        ("payments_paymentintent", "TRUNCATE"),
        ("payments_webhookevent", "DELETE FROM"),
        ("payments_webhookevent", "TRUNCATE"),
    ],
)
def test_given_even_the_owner_when_rows_are_removed_then_the_trigger_refuses(owner, table, verb):
    WebhookEventFactory(status="processed")
    suffix = " CASCADE" if verb == "TRUNCATE" else ""
    with pytest.raises(Exception, match="never deleted") as refusal:
        owner.execute(f"{verb} {table}{suffix}")
    assert refusal.value.pgcode == "23514"


def insert_copy(intent, **columns):
    """The row again under a new id, with some columns set to SQL expressions."""
    names = ["id", "user_id", "wallet_id", "amount", "currency", "gateway", "status",
             "expires_at", "created_at", "updated_at"]  # fmt: skip
    values = {"id": "gen_random_uuid()"} | columns
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO payments_paymentintent ({', '.join(names)}) "
            f"SELECT {', '.join(values.get(name, name) for name in names)} "
            "FROM payments_paymentintent WHERE id = %s",
            [intent.pk],
        )


class TestEvent:
    @pytest.mark.parametrize(
        "changes",
        [
            {"body": b"{}"},
            {"body": b""},
            {"headers": {}},
            {"gateway": "stripe"},
            {"event_id": "evt_other"},
            {"event_type": "payment_intent.failed"},
            {"gateway_reference": None},
        ],
        ids=str,
    )
    def test_given_an_event_when_what_came_changes_then_refused(self, changes):
        event = WebhookEventFactory(status="processed")
        with refused_by("payments_webhookevent_is_frozen"):
            update(event, **changes)

    @pytest.mark.parametrize("status", ["received", "parked"])
    def test_given_an_open_event_when_its_payload_would_go_then_refused(self, status):
        event = WebhookEventFactory(status=status)
        with refused_by("payments_webhookevent_deleted_payload_is_empty"):
            update(event, body=b"", headers={}, payload_deleted_at=Now())

    def test_given_an_emptied_event_when_filled_again_then_refused(self):
        event = WebhookEventFactory(status="ignored")
        with refused_by("payments_webhookevent_deleted_payload_is_empty"):
            update(event, payload_deleted_at=Now())
        update(event, body=b"", headers={}, payload_deleted_at=Now())
        with refused_by("payments_webhookevent_is_frozen"):
            update(event, body=b"{}", payload_deleted_at=None)

    def test_given_a_processed_event_when_opened_again_then_refused(self):
        event = WebhookEventFactory(status="processed")
        with refused_by("payments_webhookevent_status_forward"):
            update(event, status="received", next_attempt_at=Now(), processed_at=None)

    def test_given_an_event_when_its_dates_and_status_disagree_then_refused(self):
        event = WebhookEventFactory()
        with refused_by("payments_webhookevent_due_iff_received"):
            update(event, next_attempt_at=None)
        with refused_by("payments_webhookevent_done_iff_dated"):
            update(event, processed_at=Now())
        with refused_by("payments_webhookevent_attempts_bounded"):
            update(event, attempts=101)

    def test_given_the_same_event_id_when_stored_otherwise_then_refused(self):
        deliver(event_body(), event_id="evt_1")
        with refused_by("payments_webhookevent_one_per_event_id"), transaction.atomic():
            WebhookEvent.objects.create(
                gateway="sandbox", event_id="evt_1", event_type="x", body=b"{}"
            )


@pytest.mark.django_db(transaction=True, databases=["default", "owner"])
def test_given_the_rules_when_migrated_back_and_forth_then_they_are_there_again():
    intent = PaymentIntentFactory()
    call_command("migrate", "payments", "0001", verbosity=0)
    try:
        update(intent, currency="EUR")
    finally:
        call_command("migrate", "payments", verbosity=0)
    with refused_by("payments_paymentintent_is_frozen"):
        update(PaymentIntentFactory(), currency="EUR")
    assert Transaction.objects.count() == 0
