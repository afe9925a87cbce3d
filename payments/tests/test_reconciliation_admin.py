"""Refunds and reconciliation as staff see and do them."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, override_settings

from payments import reconciliation, reconciliation_admin
from payments.models import DepositRefund, ReconciliationBreak, ReconciliationRun
from payments.tests.helpers import balance
from payments.tests.test_reconciliation import HEADER, today
from payments.tests.test_refunds import PATH, paid
from transactions.tests.helpers import breaches
from users.models import User
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db(transaction=True)

BREAKS = "/admin/payments/reconciliationbreak/"
RUNS = "/admin/payments/reconciliationrun/"
VIEWS = [
    "payments.view_paymentintent",
    "payments.view_depositrefund",
    "payments.view_reconciliationrun",
    "payments.view_reconciliationbreak",
]


@pytest.fixture(autouse=True)
def other_beside(monkeypatch):
    monkeypatch.setattr(reconciliation, "_today", lambda: today() + timedelta(days=1))
    with override_settings(PAYMENT_GATEWAYS={**settings.PAYMENT_GATEWAYS, "other": PATH}):
        yield


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(response: Any) -> str:
    return response.content.decode()


@pytest.fixture
def operator() -> User:
    return StaffFactory(permissions=[*VIEWS, "payments.refund_deposit", "payments.reconcile"])


@pytest.fixture
def onlooker() -> User:
    return StaffFactory(permissions=VIEWS)


def page_of(intent):
    return f"/admin/payments/paymentintent/{intent.pk}/"


class TestRefund:
    def test_given_a_get_then_only_asked(self, operator):
        intent = paid()
        client = client_of(operator)
        assert f"{page_of(intent)}refund/" in text_of(client.get(f"{page_of(intent)}change/"))
        assert client.get(f"{page_of(intent)}refund/").status_code == 200
        assert balance(intent.user) == Decimal("100.00")

    def test_given_one_form_when_sent_twice_then_one_refund_that_the_gateway_knows(self, operator):
        intent = paid()
        form = {"amount": "40.00", "reason": "Paid twice.", "form_id": str(uuid4())}
        client = client_of(operator)
        first = client.post(f"{page_of(intent)}refund/", form, follow=True)
        assert "Ordered: 40.00 USD back through other." in text_of(first)
        again = client.post(f"{page_of(intent)}refund/", form, follow=True)
        assert "This was ordered already." in text_of(again)
        refund = DepositRefund.objects.get()
        assert (refund.requested_by, refund.gateway_reference) == (operator, f"rt_{refund.pk.hex}")
        assert balance(intent.user) == Decimal("60.00")
        assert LogEntry.objects.filter(user=operator, object_id=str(intent.pk)).count() == 1
        page = text_of(client.get(f"/admin/payments/depositrefund/{refund.pk}/change/"))
        assert refund.transaction.reference_id in page
        assert breaches() == []

    @pytest.mark.parametrize("amount", ["100.01", "x", "0", "-1", "1.001"])
    def test_given_a_wrong_amount_when_sent_then_nothing_moves(self, operator, amount):
        intent = paid()
        form = {"amount": amount, "reason": "x", "form_id": str(uuid4())}
        client_of(operator).post(f"{page_of(intent)}refund/", form)
        assert balance(intent.user) == Decimal("100.00")

    def test_given_no_permission_or_ones_own_money_then_refused(self, onlooker, operator):
        intent = paid()
        form = {"reason": "x", "form_id": str(uuid4())}
        assert client_of(onlooker).post(f"{page_of(intent)}refund/", form).status_code == 403
        own = paid(user=operator)
        client = client_of(operator)
        assert f"{page_of(own)}refund/" not in text_of(client.get(f"{page_of(own)}change/"))
        client.post(f"{page_of(own)}refund/", form)
        assert DepositRefund.objects.count() == 0


def report(lines: str = "", name: str = "report.csv", body: bytes | None = None) -> dict[str, Any]:
    file = SimpleUploadedFile(name, (HEADER + lines).encode() if body is None else body)
    return {"gateway": "other", "day": str(today()), "report": file}


class TestUpload:
    def test_given_a_report_when_uploaded_then_compared_and_on_record(self, operator):
        client = client_of(operator)
        assert "multipart/form-data" in text_of(client.get(f"{RUNS}upload/"))
        line = f"payment_intent,ch_1,1.00,USD,{today()}T10:00:00Z\n"
        response = client.post(f"{RUNS}upload/", report(line), follow=True)
        assert "1 lines: 0 matched, 1 breaks." in text_of(response)
        run = ReconciliationRun.objects.get()
        assert (run.source, run.status, run.requested_by) == ("csv", "breaks", operator)
        assert LogEntry.objects.filter(user=operator, object_id=str(run.pk)).exists()

    @pytest.mark.parametrize(
        ("body", "fault"),
        [(b"nonsense", "Line 1"), (b"", "empty"), (HEADER.encode() + b"x\n", "Line 2")],
    )
    def test_given_a_bad_report_when_uploaded_then_its_lines_are_named(self, operator, body, fault):
        response = client_of(operator).post(f"{RUNS}upload/", report(body=body))
        assert response.status_code == 200
        assert fault in text_of(response)

    def test_given_too_big_a_report_when_uploaded_then_refused(self, operator, monkeypatch):
        monkeypatch.setattr(reconciliation_admin, "FILE_SIZE_MAX", 10)
        response = client_of(operator).post(f"{RUNS}upload/", report("x" * 20))
        assert "At most 5 MB" in text_of(response)
        assert ReconciliationRun.objects.count() == 0

    @pytest.mark.parametrize("day", ["0001-01-01", "1999-12-31"])
    def test_given_a_day_before_2000_when_uploaded_then_refused(self, operator, day):
        response = client_of(operator).post(f"{RUNS}upload/", report() | {"day": day})
        assert response.status_code == 200
        assert "before 2000" in text_of(response)
        assert ReconciliationRun.objects.count() == 0

    def test_given_no_permission_when_uploading_then_403_and_no_button(self, onlooker):
        client = client_of(onlooker)
        assert client.get(f"{RUNS}upload/").status_code == 403
        assert client.post(f"{RUNS}upload/", report()).status_code == 403
        assert f"{RUNS}upload/" not in text_of(client.get(RUNS))
        assert ReconciliationRun.objects.count() == 0


class TestBreaks:
    @pytest.fixture
    def broken(self, operator) -> ReconciliationBreak:
        line = f"payment_intent,ch_<b>1,1.00,USD,{today()}T10:00:00Z\n"
        client_of(operator).post(f"{RUNS}upload/", report(line))
        return ReconciliationBreak.objects.get()

    def test_given_a_break_when_listed_then_with_its_age_and_as_text(self, operator, broken, owner):
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "UPDATE payments_reconciliationbreak SET opened_at = now() - interval '9 days'"
        )
        page = text_of(client_of(operator).get(BREAKS))
        assert "9 days" in page
        assert "ch_&lt;b&gt;1" in page
        assert "ch_<b>1" not in page

    def test_given_an_age_when_filtered_then_the_older_ones(self, operator, broken):
        client = client_of(operator)
        assert broken not in client.get(BREAKS, {"age": "1"}).context["cl"].result_list
        assert broken in client.get(BREAKS, {"age": "x"}).context["cl"].result_list
        assert broken in client.get(BREAKS, {"status__exact": "open"}).context["cl"].result_list

    def test_given_a_note_when_resolved_then_on_record_once(self, operator, broken):
        client = client_of(operator)
        page = f"{BREAKS}{broken.pk}/resolve/"
        assert "Say" not in text_of(client.get(page))
        assert client.post(page, {"note": " "}).status_code == 200
        client.post(page, {"note": "Their bug."})
        response = client.post(page, {"note": "Another."}, follow=True)
        assert "The break has ended already." in text_of(response)
        broken.refresh_from_db()
        assert (broken.status, broken.note, broken.resolved_by) == (
            "resolved", "Their bug.", operator,
        )  # fmt: skip

    def test_given_no_permission_when_resolving_then_403(self, onlooker, broken):
        client = client_of(onlooker)
        page = f"{BREAKS}{broken.pk}/resolve/"
        assert client.post(page, {"note": "x"}).status_code == 403
        assert page not in text_of(client.get(f"{BREAKS}{broken.pk}/change/"))
        broken.refresh_from_db()
        assert broken.status == "open"
