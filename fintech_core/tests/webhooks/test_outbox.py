"""Every effect that somebody listens to is told to them, and to nobody else."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.utils import timezone

from fintech_core.models import OutgoingEvent, WebhookDelivery, WebhookEndpoint
from fintech_core.tests.webhooks.helpers import endpoint_for, listener
from fintech_core.webhooks.kinds import EventType
from fintech_core.webhooks.outbox import Happened, emit
from payments.services import PaymentService
from payments.tests.factories import PaymentIntentFactory, event_body, signed
from payments.tests.helpers import post_webhook
from transactions.batches import Batch
from transactions.exceptions import RecipientNotFound
from transactions.models import Hold, Transaction, TransferBatch
from transactions.services import TransactionService, Transfer
from transactions.tests.helpers import (
    breaches,
    call_by,
    capture,
    client_of,
    close,
    freeze,
    fund,
    hold_of,
    let_time_pass,
    person,
    refund,
    refused_by,
    reserve,
    send,
    unfreeze,
)
from users import services as users
from users.models import User
from users.tests.factories import UserFactory, reviewer, submit_kyc

pytestmark = pytest.mark.django_db(transaction=True)

HOOK = "http://127.0.0.1:9/hooks"


@pytest.fixture(autouse=True)
def private_targets(settings):
    settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = True


def listening(funded=None, *types):
    user = person(funded)
    endpoint_for(user, HOOK, *types)
    return user


def told(user, kind=None):
    """The data of each event that the user's endpoints get, oldest first."""
    rows = WebhookDelivery.objects.filter(endpoint__user=user).order_by("event__id")
    rows = rows.filter(event__type=kind) if kind else rows
    return [json.loads(row.event.data) for row in rows.select_related("event")]


def kinds_told(user):
    rows = WebhookDelivery.objects.filter(endpoint__user=user)
    return sorted(rows.values_list("event__type", flat=True))


class TestMoney:
    def test_given_both_listen_when_transferring_then_each_hears_with_their_own_balance(self):
        alice, bob = listening("100.00"), listening("7.00")
        send(alice, bob, "10.00")
        [sent], [received] = told(alice, "transfer.sent"), told(bob, "transfer.received")
        assert (sent["amount"], sent["balance_after"]) == ("10.00", "90.00")
        assert (received["amount"], received["balance_after"]) == ("10.00", "17.00")
        assert sent["id"] == received["id"]
        assert sent["to_user"] == {"id": str(bob.pk), "display_name": bob.display_name}
        assert bob.email not in json.dumps(sent)
        assert kinds_told(alice) == ["transfer.sent"]
        assert breaches() == []

    def test_given_the_api_when_transferring_then_the_event_is_what_it_answered(self):
        alice, bob = listening("100.00"), person()
        answer = client_of(alice).post(
            "/api/v1/transactions/transfer/",
            {"recipient": bob.email, "amount": "10.00", "description": "Tea ☕ <b>"},
            headers={"Idempotency-Key": "k"},
        )
        assert told(alice) == [answer.json()]

    def test_given_nobody_listens_when_transferring_then_nothing_is_written(self):
        send(person("100.00"), person(), "10.00")
        assert not OutgoingEvent.objects.exists()

    def test_given_a_stranger_listens_when_transferring_then_they_hear_nothing(self):
        stranger = listening()
        send(person("100.00"), person(), "10.00")
        assert told(stranger) == []
        assert not OutgoingEvent.objects.exists()

    @pytest.mark.parametrize("types", [["transfer.received"], ["kyc.approved"]])
    def test_given_other_types_when_transferring_then_nothing_is_written(self, types):
        alice = person("100.00")
        endpoint_for(alice, HOOK, *types)
        send(alice, person(), "10.00")
        assert not OutgoingEvent.objects.exists()

    def test_given_a_rollback_when_transferring_then_nothing_is_sent(self):
        alice, bob = listening("100.00"), person()
        with transaction.atomic():
            send(alice, bob, "10.00")
            assert OutgoingEvent.objects.exists()
            transaction.set_rollback(True)
        assert not OutgoingEvent.objects.exists()
        assert not WebhookDelivery.objects.exists()

    def test_given_a_refusal_when_transferring_then_nothing_is_sent(self):
        alice = listening("5.00")
        assert send(alice, person(), "10.00").status == 422
        assert not OutgoingEvent.objects.exists()

    def test_given_the_same_key_when_transferring_twice_then_one_event(self):
        alice, bob = listening("100.00"), person()
        send(alice, bob, "10.00", key="same")
        send(alice, bob, "10.00", key="same")
        assert len(told(alice)) == 1

    def test_given_a_batch_when_it_is_made_then_each_leg_is_told(self):
        alice, bob = listening("100.00"), listening()
        legs = [Transfer(recipient=str(bob.pk), amount=Decimal(n)) for n in (1, 2, 500)]
        batch = Batch(mode=TransferBatch.Mode.INDEPENDENT, legs=legs)
        call = replace(call_by(alice), present=lambda made: {"id": made.batch.pk})
        TransactionService.transfer_batch(sender=alice, batch=batch, idempotency=call)
        assert [leg["balance_after"] for leg in told(alice)] == ["99.00", "97.00"]
        assert [leg["balance_after"] for leg in told(bob)] == ["1.00", "3.00"]

    def test_given_a_deposit_when_its_event_comes_then_it_is_told_once(self):
        intent = PaymentIntentFactory()
        endpoint_for(intent.user, HOOK)
        for body in (event_body(intent), event_body(intent)):
            post_webhook(body, signed(body))
        PaymentService.sweep_webhook_events()
        [deposit] = told(intent.user, "deposit.succeeded")
        assert (deposit["amount"], deposit["balance_after"]) == ("100.00", "100.00")
        assert deposit["from_user"] is None

    def test_given_a_refund_when_made_then_both_hear_of_it(self):
        alice, bob = listening("100.00"), listening()
        send(alice, bob, "10.00")
        refund(bob, Transaction.objects.get(from_user=alice).pk, "4.00")
        [to_alice], [to_bob] = told(alice, "refund.created"), told(bob, "refund.created")
        assert (to_alice["balance_after"], to_bob["balance_after"]) == ("94.00", "6.00")
        assert breaches() == []


class TestHolds:
    def test_given_a_hold_when_it_is_captured_then_both_hear_of_each_step(self):
        alice, bob = listening("100.00"), listening()
        hold = hold_of(reserve(alice, bob, "10.00"))
        capture(bob, hold, "4.00")
        for party in (alice, bob):
            assert kinds_told(party) == ["hold.captured", "hold.created"]
            [captured] = told(party, "hold.captured")
            assert (captured["status"], captured["captured_amount"]) == ("captured", "4.00")
            assert captured["transaction_id"]
        assert breaches() == []

    def test_given_a_hold_when_it_is_voided_then_both_hear_of_it(self):
        alice, bob = listening("100.00"), listening()
        hold = hold_of(reserve(alice, bob, "10.00"))
        TransactionService.void_hold(caller=bob, hold_id=hold.pk)
        assert [told(each, "hold.voided")[0]["status"] for each in (alice, bob)] == ["voided"] * 2

    def test_given_holds_that_are_due_when_they_expire_then_it_is_told(self, owner):
        alice, bob = listening("100.00"), listening()
        for _ in range(2):
            let_time_pass(owner, hold_of(reserve(alice, bob, "10.00")))
        assert TransactionService.expire_holds() == 2
        expired = told(bob, "hold.expired")
        assert [each["status"] for each in expired] == ["expired"] * 2
        stored = {str(hold.pk): hold.resolved_at for hold in Hold.objects.all()}
        for each in expired:
            assert each["resolved_at"] == stored[each["id"]].isoformat().replace("+00:00", "Z")


class TestPeople:
    def test_given_a_decision_about_kyc_then_it_is_told(self):
        user = UserFactory()
        endpoint_for(user, HOOK)
        submit_kyc(user)
        users.reject_kyc(user_id=user.pk, reviewer=reviewer(), reason="Unreadable.")
        submit_kyc(user)
        users.approve_kyc(user_id=user.pk, reviewer=reviewer())
        assert kinds_told(user) == ["kyc.approved", "kyc.rejected"]
        assert told(user, "kyc.rejected")[0]["kyc_rejection_reason"] == "Unreadable."
        assert told(user, "kyc.approved")[0]["kyc_status"] == "approved"

    def test_given_a_wallet_when_staff_change_its_status_then_it_is_told_without_the_reason(self):
        user = listening()
        freeze(user)
        unfreeze(user)
        close(user)
        assert kinds_told(user) == ["wallet.closed", "wallet.frozen", "wallet.unfrozen"]
        assert [each["status"] for each in told(user)] == ["frozen", "active", "closed"]
        assert "Under review" not in json.dumps(told(user))


class TestEverybody:
    def test_given_staff_listen_to_everybody_when_transferring_then_both_sides(self):
        staff = listener()
        endpoint_for(staff, HOOK, scope="everybody")
        alice, bob = person("100.00"), person()
        send(alice, bob, "10.00")
        rows = WebhookDelivery.objects.filter(endpoint__user=staff, event__type__startswith="tran")
        assert {(row.event.type, row.event.user_id) for row in rows} == {
            ("transfer.sent", alice.pk),
            ("transfer.received", bob.pk),
        }


class TestWhatPostgresqlRefuses:
    def test_given_an_endpoint_of_another_when_a_delivery_is_written_then_refused(self):
        alice, bob = listening("100.00"), listening()
        send(alice, person(), "1.00")
        event = OutgoingEvent.objects.get()
        with refused_by("fintech_core_webhookdelivery_may_be_heard"):
            WebhookDelivery.objects.create(
                event=event, endpoint=WebhookEndpoint.objects.get(user=bob)
            )

    def test_given_an_event_when_rewritten_then_refused(self):
        alice = listening("100.00")
        send(alice, person(), "1.00")
        with refused_by("fintech_core_outgoingevent_never_changes"):
            OutgoingEvent.objects.update(data="{}")

    def test_given_a_delivery_when_sent_elsewhere_then_refused(self):
        alice = listening("100.00")
        other = endpoint_for(alice, HOOK, "kyc.approved")
        send(alice, person(), "1.00")
        with refused_by("fintech_core_webhookdelivery_is_frozen"):
            WebhookDelivery.objects.update(endpoint=other)

    def test_given_an_endpoint_when_given_to_another_then_refused(self):
        listening()
        with refused_by("fintech_core_webhookendpoint_is_its_users"):
            WebhookEndpoint.objects.update(user=person())

    def test_given_a_customer_when_listening_to_everybody_in_sql_then_refused(self):
        with refused_by("fintech_core_webhookendpoint_everybody_is_for_staff"):
            WebhookEndpoint.objects.create(
                user=person(), scope="everybody", url=HOOK, event_types=["*"], secret="s"
            )

    @pytest.mark.parametrize("secret", ["whsec_abc", ""])
    def test_given_a_plain_secret_when_stored_then_refused(self, secret):
        listening()
        with (
            refused_by("fintech_core_webhookendpoint_secret_is_encrypted"),
            connection.cursor() as cursor,
        ):
            cursor.execute("UPDATE fintech_core_webhookendpoint SET secret = %s", [secret])

    def test_given_no_types_when_stored_then_refused(self):
        listening()
        with refused_by("fintech_core_webhookendpoint_listens"):
            WebhookEndpoint.objects.update(event_types=[])


def test_given_an_endpoint_that_is_off_when_something_happens_then_nothing_is_written():
    alice = listening("100.00")
    WebhookEndpoint.objects.update(
        status="disabled", disabled_reason="owner", disabled_at=timezone.now()
    )
    send(alice, person(), "1.00")
    assert not OutgoingEvent.objects.exists()


@pytest.mark.parametrize("lost", ["is_staff", "is_active"])
def test_given_staff_no_more_when_something_happens_to_others_then_nothing_is_written(lost):
    staff, alice = listener(), person("100.00")
    endpoint_for(staff, HOOK, "transfer.sent", scope="everybody")
    send(alice, person(), "1.00")
    User.objects.filter(pk=staff.pk).update(**{lost: False})
    send(alice, person(), "1.00")
    assert len(told(staff)) == OutgoingEvent.objects.count() == 1


def test_given_many_endpoints_when_something_happens_then_one_event_and_ids_in_order_of_time():
    alice = person("100.00")
    for _ in range(3):
        endpoint_for(alice, HOOK)
    before = timezone.now()
    send(alice, person(), "1.00")
    event = OutgoingEvent.objects.get()
    ids = list(event.deliveries.values_list("pk", flat=True))
    assert len(ids) == 3
    for made in ids:
        assert made.version == 7
        assert abs((made.int >> 80) / 1000 - before.timestamp()) < timedelta(minutes=1).seconds


def test_given_text_of_all_kinds_when_emitted_then_it_arrives_to_the_letter():
    alice = listening()
    data = {"text": 'quote " backslash \\ percent %s newline \n ☕ \u2028 ; DROP', "n": None}
    with transaction.atomic():
        emit(Happened(EventType.KYC_APPROVED, alice.pk, data))
    assert told(alice) == [data]


def test_given_an_unknown_recipient_when_transferring_then_no_event():
    alice = listening("10.00")
    assert send(alice, "nobody@example.com", "1.00").content["code"] == RecipientNotFound.code
    fund(alice, "1.00")
    assert kinds_told(alice) == ["deposit.succeeded"]
