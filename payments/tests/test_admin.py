"""The inbox as staff see it: what was sent, what became of it, and once more."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from payments import inbox, payouts
from payments.exceptions import GatewayUnavailable
from payments.gateways.base import Outcome, Statement, Subject
from payments.gateways.sandbox import SandboxGateway
from payments.models import DepositRefund, Payout, SuspendedDeposit, WebhookEvent
from payments.refunds import RefundOrder
from payments.services import PaymentService
from payments.tests.factories import (
    IBAN,
    PaymentIntentFactory,
    PayoutFactory,
    WebhookEventFactory,
    deliver,
    event_body,
    pay_out,
    settle,
)
from payments.tests.helpers import balance, credits_of
from transactions.tests.helpers import close, person
from users.models import User
from users.tests.factories import StaffFactory, UserFactory

pytestmark = pytest.mark.django_db

EVENTS = "/admin/payments/webhookevent/"
OPERATOR = ["payments.view_webhookevent", "payments.view_webhookattempt", "payments.process_again"]


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page_of(event: WebhookEvent, word: str = "change") -> str:
    return f"{EVENTS}{event.pk}/{word}/"


def text_of(response: Any) -> str:
    return response.content.decode()


@pytest.fixture
def operator() -> User:
    return StaffFactory(permissions=OPERATOR)


@pytest.fixture
def orphan() -> tuple[Any, WebhookEvent]:
    """An intent, and its event that was tried before the intent had its reference: ignored."""
    intent = PaymentIntentFactory()
    event = deliver(event_body(intent))
    WebhookEvent.objects.filter(pk=event.pk).update(status="parked", next_attempt_at=None)
    event.refresh_from_db()
    return intent, event


def select(*events: WebhookEvent) -> dict[str, Any]:
    return {
        "action": "process_selected_again",
        "_selected_action": [str(event.pk) for event in events],
    }


class TestAnEvent:
    def test_given_a_parked_event_when_shown_then_payload_attempts_and_reason_are_readable(
        self, operator
    ):
        event = WebhookEventFactory(status="parked")
        page = text_of(client_of(operator).get(page_of(event)))
        assert "&quot;amount&quot;: &quot;1.23&quot;" in page
        assert "The event says 1.23 USD, the intent 100.00 USD." in page
        assert "webhook-signature" in page

    def test_given_a_processed_event_when_shown_then_its_effect_is_a_link(self, operator):
        event = WebhookEventFactory(status="processed")
        page = text_of(client_of(operator).get(page_of(event)))
        assert f"/admin/transactions/transaction/{event.intent.transaction_id}/change/" in page
        assert page_of(event, "process-again") not in page

    def test_given_markup_in_a_payload_when_shown_then_it_is_text(self, operator):
        event = deliver(event_body(None, note="</pre><script>alert(1)</script>"))
        page = text_of(client_of(operator).get(page_of(event)))
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page

    def test_given_many_payloads_when_listing_then_none_is_read(
        self, operator, django_assert_max_num_queries
    ):
        for _ in range(3):
            deliver(event_body())
        client = client_of(operator)
        with django_assert_max_num_queries(15) as queries:
            client.get(EVENTS)
        assert not any('"body"' in query["sql"] for query in queries.captured_queries)


class TestProcessAgain:
    def test_given_a_get_then_only_asked(self, operator, orphan):
        _intent, event = orphan
        assert client_of(operator).get(page_of(event, "process-again")).status_code == 200
        event.refresh_from_db()
        assert event.status == "parked"

    def test_given_a_parked_event_when_processed_again_twice_then_credited_once(
        self, operator, orphan
    ):
        intent, event = orphan
        client = client_of(operator)
        for _ in range(2):
            response = client.post(page_of(event, "process-again"), follow=True)
            assert "It will be processed again." in text_of(response)
        PaymentService.process_payment_webhook(event.pk)
        PaymentService.process_payment_webhook(event.pk)
        response = client.post(page_of(event, "process-again"), follow=True)
        assert "It is processed already, or its payload is gone." in text_of(response)
        assert credits_of(intent.user) == 1
        assert balance(intent.user) == intent.amount
        event.refresh_from_db()
        assert (event.status, event.requested_by) == ("processed", operator)
        assert event.tries.get().requested_by == operator
        assert LogEntry.objects.filter(user=operator, object_id=str(event.pk)).count() == 2

    def test_given_many_when_chosen_in_the_list_then_the_open_ones_are_processed_again(
        self, operator, orphan
    ):
        _intent, event = orphan
        done = WebhookEventFactory(status="processed")
        response = client_of(operator).post(EVENTS, select(event, done), follow=True)
        assert "1 of 2 will be processed again." in text_of(response)
        event.refresh_from_db()
        done.refresh_from_db()
        assert (event.status, done.status) == ("received", "processed")

    def test_given_select_across_when_forged_then_at_most_a_page_is_taken(self, operator, orphan):
        form = select(orphan[1]) | {"select_across": "1"}
        assert client_of(operator).post(EVENTS, form).status_code == 302

    def test_given_no_permission_then_refused_in_both_places(self, orphan):
        _intent, event = orphan
        client = client_of(StaffFactory(permissions=OPERATOR[:2]))
        assert client.post(page_of(event, "process-again")).status_code == 403
        assert page_of(event, "process-again") not in text_of(client.get(page_of(event)))
        client.post(EVENTS, select(event))
        event.refresh_from_db()
        assert event.status == "parked"


class TestIntents:
    def test_given_an_intent_when_shown_then_without_the_clients_secret(self):
        intent = PaymentIntentFactory(status="succeeded")
        root = UserFactory(is_staff=True, is_superuser=True)
        page = text_of(client_of(root).get(f"/admin/payments/paymentintent/{intent.pk}/change/"))
        assert intent.gateway_reference in page
        assert intent.client_secret not in page
        assert intent.transaction.reference_id in page


class TestAllAgain:
    def test_given_parked_events_when_asked_for_all_like_one_then_those_and_no_others(
        self, operator, monkeypatch
    ):
        monkeypatch.setattr(inbox, "BATCH", 2)
        alike = [WebhookEventFactory(status="parked") for _ in range(5)]
        ignored = WebhookEventFactory(status="ignored")
        client = client_of(operator)
        page = page_of(alike[0], "process-all-again")
        assert client.get(page).status_code == 200
        response = client.post(page, follow=True)
        assert "5 will be processed again." in text_of(response)
        statuses = WebhookEvent.objects.values_list("pk", "status")
        assert {status for pk, status in statuses if pk != ignored.pk} == {"received"}
        assert dict(statuses)[ignored.pk] == "ignored"


class TestPayouts:
    PAYOUTS = "/admin/payments/payout/"
    MAY = ("payments.view_payout", "payments.settle_payout")

    def page(self, payout: Payout, word: str = "change") -> str:
        return f"{self.PAYOUTS}{payout.pk}/{word}/"

    def test_given_a_failed_payout_when_shown_then_masked_and_with_its_effects(self):
        payout = PayoutFactory(status="failed")
        root = client_of(UserFactory(is_staff=True, is_superuser=True))
        pages = [text_of(root.get(url)) for url in (self.PAYOUTS, self.page(payout))]
        assert all(IBAN not in page and "DE••••3000" in page for page in pages)
        for made in (payout.transaction, payout.reversal):
            assert f"/admin/transactions/transaction/{made.pk}/change/" in pages[1]
        event = text_of(root.get(page_of(payout.webhook_events.get())))
        assert f"/admin/transactions/transaction/{payout.reversal.pk}/change/" in event
        assert self.page(payout) in event

    def test_given_words_of_it_when_searched_then_it_is_found(self):
        payout = PayoutFactory()
        PayoutFactory()
        root = client_of(UserFactory(is_staff=True, is_superuser=True))
        for text in (payout.gateway_reference, payout.pk, payout.transaction_id, payout.user.email):
            page = text_of(root.get(self.PAYOUTS, {"q": str(text)}))
            assert page.count("DE••••3000") == 1

    def test_given_a_payout_that_the_gateway_knows_when_given_up_then_refused(self):
        payout = PayoutFactory()
        client = client_of(StaffFactory(permissions=self.MAY))
        assert self.page(payout, "give-up") not in text_of(client.get(self.page(payout)))
        response = client.post(self.page(payout, "give-up"), follow=True)
        assert "The gateway knows this payout" in text_of(response)
        assert balance(payout.user) == Decimal("60.00")

    def test_given_a_lost_payout_when_given_up_then_the_money_is_back_once(self, monkeypatch):
        payout = self.lost(monkeypatch)
        client = client_of(StaffFactory(permissions=self.MAY))
        assert self.page(payout, "give-up") in text_of(client.get(self.page(payout)))
        for _ in range(2):
            client.post(self.page(payout, "give-up"))
        payout.refresh_from_db()
        assert (payout.status, payout.failure_code) == ("failed", "never_sent")
        assert balance(payout.user) == Decimal("100.00")
        assert LogEntry.objects.filter(object_id=str(payout.pk)).count() == 1

    def test_given_a_lost_payout_when_its_reference_is_named_then_it_is_asked_about(
        self, monkeypatch
    ):
        other = PayoutFactory()
        payout = self.lost(monkeypatch)
        client = client_of(StaffFactory(permissions=self.MAY))
        page = self.page(payout, "name-reference")
        taken = client.post(page, {"reference": other.gateway_reference}, follow=True)
        assert "Another payout has this reference." in text_of(taken)
        client.post(page, {"reference": "sbx_found"})
        payout.refresh_from_db()
        assert (payout.gateway_reference, payout.status) == ("sbx_found", "pending")
        assert payout.next_poll_at <= timezone.now()

    def test_given_no_permission_or_ones_own_when_given_up_then_refused(self, monkeypatch):
        payout = self.lost(monkeypatch)
        viewer = client_of(StaffFactory(permissions=self.MAY[:1]))
        assert viewer.post(self.page(payout, "give-up")).status_code == 403
        User.objects.filter(pk=payout.user_id).update(is_staff=True, is_superuser=True)
        own = client_of(User.objects.get(pk=payout.user_id))
        own.post(self.page(payout, "give-up"))
        payout.refresh_from_db()
        assert payout.status == "pending"

    def lost(self, monkeypatch: Any) -> Payout:
        """Ordered a day ago, and the gateway never said anything."""
        with monkeypatch.context() as away:
            away.setattr(SandboxGateway, "payout", no_answer)
            with pytest.raises(GatewayUnavailable):
                pay_out(person("100.00"))
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
        return Payout.objects.get(gateway_reference=None)


class TestLostRefunds:
    MAY = ("payments.view_depositrefund", "payments.settle_refund")

    @pytest.fixture
    def lost(self, monkeypatch: Any) -> DepositRefund:
        """Ordered a day ago, and the gateway never said anything."""
        intent = PaymentIntentFactory(status="succeeded")
        asked = RefundOrder(intent_id=intent.pk, amount=Decimal("40.00"), reason="Paid twice.")
        staff = StaffFactory(permissions=["payments.refund_deposit"])
        refund = PaymentService.order_refund(staff=staff, asked=asked)
        with monkeypatch.context() as away:
            away.setattr(SandboxGateway, "refund", no_answer)
            PaymentService.send_refund(refund.pk)
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(0))
        return refund

    def page(self, refund: DepositRefund, word: str = "change") -> str:
        return f"/admin/payments/depositrefund/{refund.pk}/{word}/"

    def test_given_a_refund_that_is_still_asked_for_when_shown_then_nothing_is_offered(
        self, lost, monkeypatch
    ):
        monkeypatch.setattr(payouts, "ASKED_WITHIN", timedelta(hours=23))
        client = client_of(StaffFactory(permissions=self.MAY))
        assert self.page(lost, "give-up") not in text_of(client.get(self.page(lost)))
        response = client.post(self.page(lost, "give-up"), follow=True)
        assert "The gateway is still being asked" in text_of(response)
        lost.refresh_from_db()
        assert lost.status == "pending"

    def test_given_a_lost_refund_when_given_up_then_the_money_is_back_once(self, lost):
        client = client_of(StaffFactory(permissions=self.MAY))
        assert self.page(lost, "give-up") in text_of(client.get(self.page(lost)))
        assert "Give the money back" in text_of(client.get(self.page(lost, "give-up")))
        for _ in range(2):
            client.post(self.page(lost, "give-up"))
        lost.refresh_from_db()
        assert (lost.status, lost.failure_code) == ("failed", "never_sent")
        assert balance(lost.intent.user) == Decimal("100.00")
        assert LogEntry.objects.filter(object_id=str(lost.pk)).count() == 1
        assert self.page(lost, "give-up") not in text_of(client.get(self.page(lost)))

    def test_given_a_lost_refund_when_its_reference_is_named_then_it_is_settled(
        self, lost, monkeypatch
    ):
        client = client_of(StaffFactory(permissions=self.MAY))
        page = self.page(lost, "name-reference")
        assert page in text_of(client.get(self.page(lost)))
        unknown = client.post(page, {"reference": "sbx_found"}, follow=True)
        assert "The gateway does not say" in text_of(unknown)
        said = Statement(
            subject=Subject.REFUND,
            outcome=Outcome.SUCCEEDED,
            gateway_reference="sbx_found",
            amount=lost.amount,
            currency=lost.currency,
        )
        monkeypatch.setattr(SandboxGateway, "fetch", lambda *_: said)
        client.post(page, {"reference": "sbx_found"})
        lost.refresh_from_db()
        assert (lost.gateway_reference, lost.status) == ("sbx_found", "succeeded")
        assert balance(lost.intent.user) == Decimal("60.00")

    def test_given_no_permission_or_ones_own_when_given_up_then_refused(self, lost):
        viewer = client_of(StaffFactory(permissions=[*self.MAY[:1], "payments.refund_deposit"]))
        for word in ("give-up", "name-reference"):
            assert viewer.post(self.page(lost, word)).status_code == 403
        User.objects.filter(pk=lost.intent.user_id).update(is_staff=True, is_superuser=True)
        own = client_of(User.objects.get(pk=lost.intent.user_id))
        assert self.page(lost, "give-up") not in text_of(own.get(self.page(lost)))
        own.post(self.page(lost, "give-up"))
        lost.refresh_from_db()
        assert lost.status == "pending"


def no_answer(*_: object) -> str:
    raise GatewayUnavailable


class TestSuspense:
    def test_given_money_in_suspense_when_resolved_then_once_with_a_note_and_by_whom(self):
        intent = PaymentIntentFactory()
        close(intent.user)
        settle(intent)
        one = SuspendedDeposit.objects.get()
        page = f"/admin/payments/suspendeddeposit/{one.pk}/"
        staff = StaffFactory(
            permissions=["payments.view_suspendeddeposit", "payments.resolve_suspense"]
        )
        client = client_of(staff)
        assert "100.00 USD" in text_of(client.get("/admin/payments/suspendeddeposit/"))
        assert "in suspense" in text_of(client.get("/admin/"))
        client.post(f"{page}resolve/", {"note": " "})
        one.refresh_from_db()
        assert one.status == "open"
        for note in ("Sent back, re_1.", "Otherwise."):
            client.post(f"{page}resolve/", {"note": note})
        one.refresh_from_db()
        assert (one.status, one.note, one.resolved_by) == ("resolved", "Sent back, re_1.", staff)

    def test_given_a_late_success_when_listed_then_it_can_be_filtered(self):
        late, timely = (PaymentIntentFactory(status=one) for one in ("expired", "succeeded"))
        settle(late)
        root = client_of(UserFactory(is_staff=True, is_superuser=True))
        page = text_of(root.get("/admin/payments/paymentintent/", {"late_after__exact": "expired"}))
        assert late.gateway_reference in page
        assert timely.gateway_reference not in page
