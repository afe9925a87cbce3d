"""What staff see of outgoing webhooks, and the little that they may do."""

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from fintech_core.models import WebhookDelivery, WebhookEndpoint
from fintech_core.tests.webhooks.helpers import endpoint_for, register_quietly
from fintech_core.webhooks.services import REPLAY_PERMISSION, SWITCH_PERMISSION
from transactions.tests.helpers import person, send
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db

VIEW = ["fintech_core.view_webhookendpoint", "fintech_core.view_webhookdelivery"]


def staff_client(*permissions):
    client = Client()
    client.force_login(StaffFactory(permissions=[*VIEW, *permissions]))
    return client


def page(row, name="change"):
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{name}", args=[row.pk])


@pytest.fixture
def endpoint():
    alice = person("100.00")
    made = register_quietly(alice)
    send(alice, person(), "1.00")
    return made


def test_given_an_endpoint_when_opened_then_no_secret_and_no_query(endpoint):
    noisy = endpoint_for(endpoint.user, "https://8.8.8.8/x?token=of-the-receiver")
    client = staff_client()
    for row in (endpoint, noisy, WebhookDelivery.objects.get()):
        text = client.get(page(row)).content.decode()
        assert row.pk.hex in text or str(row.pk) in text
        assert "whsec_" not in text
        assert "of-the-receiver" not in text
    listed = client.get("/admin/fintech_core/webhookendpoint/").content.decode()
    assert "of-the-receiver" not in listed


def test_given_the_permission_when_switching_off_then_recorded(endpoint):
    client = staff_client(SWITCH_PERMISSION)
    action = f"/admin/fintech_core/webhookendpoint/{endpoint.pk}/switch-off/"
    assert client.get(action).status_code == 200
    assert WebhookEndpoint.objects.get().is_active
    assert client.post(action).status_code == 302
    endpoint.refresh_from_db()
    assert (endpoint.status, endpoint.disabled_reason) == ("disabled", "staff")
    assert LogEntry.objects.get().get_change_message() == "Switched off."
    assert "switch-on" in client.get(page(endpoint)).content.decode()
    client.post(f"/admin/fintech_core/webhookendpoint/{endpoint.pk}/switch-on/")
    endpoint.refresh_from_db()
    assert endpoint.is_active


def test_given_the_permission_when_delivering_again_then_it_is_due(endpoint):
    made = WebhookDelivery.objects.get()
    client = staff_client(REPLAY_PERMISSION)
    action = f"/admin/fintech_core/webhookdelivery/{made.pk}/deliver-again/"
    client.post(action)
    assert not LogEntry.objects.exists()  # it is on its way already
    made.status, made.next_attempt_at, made.finished_at = "failed", None, made.created_at
    made.save()
    client.post(action)
    made.refresh_from_db()
    assert made.status == "pending"
    assert LogEntry.objects.get().get_change_message() == "It will be delivered again."


def test_given_no_permission_when_acting_then_403(endpoint):
    client, made = staff_client(), WebhookDelivery.objects.get()
    for path in (
        f"/admin/fintech_core/webhookendpoint/{endpoint.pk}/switch-off/",
        f"/admin/fintech_core/webhookdelivery/{made.pk}/deliver-again/",
    ):
        assert client.post(path).status_code == 403
    endpoint.refresh_from_db()
    assert endpoint.is_active
