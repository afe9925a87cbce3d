"""Batches in the admin: who asked for what, and what became of each leg."""

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from transactions.batches import Batch, transfer_batch
from transactions.models import Transaction, TransferBatch
from transactions.tests.helpers import person
from transactions.transfers import Transfer
from users.models import User
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db

LIST = reverse("admin:transactions_transferbatch_changelist")


def page(batch: TransferBatch) -> str:
    return reverse("admin:transactions_transferbatch_change", args=[batch.pk])


def admin_of(*permissions: str) -> Client:
    client = Client()
    client.force_login(StaffFactory(permissions=list(permissions)))
    return client


@pytest.fixture
def staff() -> Client:
    return admin_of("transactions.view_transferbatch")


def make(sender: User, *legs: tuple[str, str]) -> TransferBatch:
    """Each leg for itself; `legs` are recipients and amounts."""
    asked = [Transfer(recipient=to, amount=Decimal(amount), currency="USD") for to, amount in legs]
    return transfer_batch(sender, Batch(TransferBatch.Mode.INDEPENDENT, asked)).batch


def found(client: Client, **query: Any) -> list[TransferBatch]:
    return list(client.get(LIST, query).context["cl"].result_list)


def test_given_a_batch_when_listed_then_who_when_how_and_how_much(staff):
    alice, bob = person("100.00"), person()
    make(alice, (bob.email, "1.50"), ("nobody@example.com", "2.00"), (bob.email, "2.25"))
    html = staff.get(LIST).content.decode()
    for shown in (alice.email, "Each for itself", "Partial", ">3<", ">2<", ">1<", "3.75 USD"):
        assert shown in html, shown


def test_given_a_batch_when_shown_then_each_leg_with_its_outcome_and_its_transaction(staff):
    alice, bob = person("100.00"), person()
    batch = make(alice, (bob.email, "1.50"), ("nobody@example.com", "2.00"))
    [made] = Transaction.objects.filter(to_user=bob)
    response = staff.get(page(batch))
    html = response.content.decode()
    done, refused = response.context["legs"]["rows"]
    assert done[:3] == ["0", "Done", "1.50 USD"]
    assert refused[:2] == ["1", "Refused: recipient_not_found"]
    assert reverse("admin:transactions_transaction_change", args=[made.pk]) in html
    assert made.reference_id in html
    assert ">Partial<" in html.replace("\n", "").replace("  ", "")
    assert 'name="_save"' not in html


def test_given_a_transaction_of_a_batch_when_shown_then_it_leads_to_the_batch():
    alice, bob = person("100.00"), person()
    batch = make(alice, (bob.email, "1.50"))
    [made] = Transaction.objects.filter(to_user=bob)
    client = admin_of("transactions.view_transaction")
    html = client.get(reverse("admin:transactions_transaction_change", args=[made.pk]))
    assert page(batch) in html.content.decode()


def test_given_an_id_or_a_name_when_searching_then_that_batch(staff):
    alice, bob = person("100.00", email="alice-only@example.com"), person("100.00")
    mine, theirs = make(alice, (bob.email, "1.00")), make(bob, (alice.email, "2.00"))
    made = Transaction.objects.get(to_user=bob, amount="1.00")
    for text in (str(mine.pk), str(alice.pk), str(made.pk), "alice-only"):
        assert found(staff, q=text) == [mine], text
    assert found(staff, q="nobody") == []
    assert found(staff) == [theirs, mine]


def test_given_more_legs_when_shown_then_as_many_queries(staff):
    alice, bob = person("100.00"), person()

    def queries(legs: int) -> int:
        batch = make(alice, *[(bob.email, "0.01")] * legs)
        with CaptureQueriesContext(connection) as seen:
            assert staff.get(page(batch)).status_code == 200
        return len(seen)

    assert queries(2) == queries(40)


def test_given_more_legs_than_a_page_holds_when_shown_then_they_are_turned_page_by_page(staff):
    alice, bob = person("100.00"), person()
    batch = make(alice, *[(bob.email, "0.01")] * 101)

    def legs(query: str) -> list[str]:
        return [row[0] for row in staff.get(page(batch) + query).context["legs"]["rows"]]

    hundred = [str(number) for number in range(100)]
    assert legs("") == legs("?from=x") == legs("?from=-1") == legs("?from=99999") == hundred
    assert legs("?from=100") == ["100"]
    assert legs("?from=9999") == []
    assert 'href="?from=100"' in staff.get(page(batch)).content.decode()
    assert 'href="?from=0"' in staff.get(page(batch) + "?from=100").content.decode()


def test_given_no_permission_when_opened_then_403():
    alice, bob = person("100.00"), person()
    batch = make(alice, (bob.email, "1.00"))
    other = admin_of("transactions.view_transaction")
    assert other.get(LIST).status_code == 403
    assert other.get(page(batch)).status_code == 403
    assert LIST not in other.get("/admin/").content.decode()
