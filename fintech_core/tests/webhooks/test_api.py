"""`/webhook-endpoints/`: one's own, with a secret that is shown once."""

import socket
from uuid import uuid4

import pytest
from django.db import IntegrityError

from fintech_core.models import WebhookDelivery, WebhookEndpoint
from fintech_core.tests.webhooks.helpers import (
    SOMEWHERE,
    endpoint_for,
    listener,
    register_quietly,
)
from fintech_core.webhooks import targets
from transactions.tests.helpers import at_once, client_of, person, send
from users.models import User
from users.tests.factories import StaffFactory, client_for

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/api/v1/webhook-endpoints/"
BODY = {"url": SOMEWHERE, "event_types": ["transfer.received"]}


def codes(response):
    return {(each["field"], each["code"]) for each in response.json()["errors"]}


@pytest.fixture
def alice():
    return person("100.00")


@pytest.fixture
def client(alice):
    return client_of(alice)


class TestRegistering:
    def test_given_a_url_when_registered_then_the_secret_is_shown_once(self, client):
        made = client.post(PATH, {**BODY, "description": "The shop"})
        assert made.status_code == 201
        secret = made.json()["secret"]
        assert secret.startswith("whsec_")
        assert (made.json()["scope"], made.json()["is_active"]) == ("own", True)
        one = f"{PATH}{made.json()['id']}/"
        shown = [client.get(one), client.get(PATH), client.patch(one, {"description": "x"})]
        for response in shown:
            assert response.status_code == 200
            assert secret not in response.content.decode()
            assert "whsec_" not in response.content.decode()

    def test_given_a_stored_secret_then_it_is_encrypted(self, client, owner):
        secret = client.post(PATH, BODY).json()["secret"]
        owner.execute("SELECT secret FROM fintech_core_webhookendpoint")
        [(stored,)] = owner.fetchall()
        assert secret not in stored
        assert WebhookEndpoint.objects.get().secret == secret

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"url": "http://8.8.8.8/"}, ("url", "target_refused")),
            ({"url": "https://127.0.0.1/"}, ("url", "target_refused")),
            ({"url": "https://10.1.2.3:8443/x"}, ("url", "target_refused")),
            ({"url": "https://[fe80::1]/"}, ("url", "target_refused")),
            ({"url": "https://localhost/"}, ("url", "target_refused")),
            ({"url": "https://a:b@8.8.8.8/"}, ("url", "target_refused")),
            ({"url": "nonsense"}, ("url", "target_refused")),
            ({"url": 5}, ("url", "invalid")),
            ({"url": "https://8.8.8.8/" + "a" * 2048}, ("url", "max_length")),
            ({"event_types": []}, ("event_types", "min_length")),
            ({"event_types": ["*", "transfer.sent"]}, ("event_types", "alone")),
            ({"event_types": ["hold.voided", "hold.voided"]}, ("event_types", "twice")),
            ({"event_types": "*"}, ("event_types", "not_a_list")),
            ({"description": "a" * 256}, ("description", "max_length")),
            ({"scope": "all"}, ("scope", "invalid_choice")),
            ({"secret": "whsec_mine"}, ("secret", "unknown_field")),
            ({"user": str(uuid4())}, ("user", "unknown_field")),
        ],
    )
    def test_given_bad_input_when_registering_then_400_says_what(self, client, change, expected):
        response = client.post(PATH, {**BODY, **change})
        assert response.status_code == 400
        assert codes(response) == {expected}
        assert not WebhookEndpoint.objects.exists()

    def test_given_an_unknown_type_when_registering_then_400_names_it(self, client):
        response = client.post(PATH, {**BODY, "event_types": ["hold.voided", "money.printed"]})
        assert response.status_code == 400
        assert "money.printed" in response.content.decode()

    def test_given_a_name_that_leads_inside_when_registering_then_400(self, client, monkeypatch):
        inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443))]
        monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_, **__: inside)
        response = client.post(PATH, {**BODY, "url": "https://harmless.example/"})
        assert codes(response) == {("url", "target_refused")}

    def test_given_nobody_when_calling_then_401(self):
        assert client_for().post(PATH, BODY).status_code == 401

    def test_given_ten_when_registering_one_more_then_409_until_one_is_deleted(self, client):
        ids = [client.post(PATH, BODY).json()["id"] for _ in range(10)]
        refused = client.post(PATH, BODY)
        assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
        assert client.delete(f"{PATH}{ids[0]}/").status_code == 204
        assert client.post(PATH, BODY).status_code == 201

    def test_given_nine_when_registering_several_at_once_then_one_succeeds(self, alice):
        for _ in range(9):
            register_quietly(alice)
        statuses = at_once(*[lambda: client_of(alice).post(PATH, BODY).status_code] * 4)
        assert sorted(statuses) == [201, 409, 409, 409]

    def test_given_too_many_calls_when_registering_then_429(self, client, settings):
        settings.WEBHOOK_ENDPOINT_RATE = "2/m"
        statuses = [client.post(PATH, BODY).status_code for _ in range(3)]
        assert statuses == [201, 201, 429]
        assert client.get(PATH).status_code == 200


class TestEverybody:
    def test_given_a_customer_when_asking_for_everybody_then_403(self, client):
        assert client.post(PATH, {**BODY, "scope": "everybody"}).status_code == 403
        assert not WebhookEndpoint.objects.exists()

    def test_given_staff_without_the_permission_then_403(self):
        response = client_of(StaffFactory()).post(PATH, {**BODY, "scope": "everybody"})
        assert response.status_code == 403

    def test_given_staff_with_the_permission_then_201(self):
        response = client_of(listener()).post(PATH, {**BODY, "scope": "everybody"})
        assert (response.status_code, response.json()["scope"]) == (201, "everybody")

    @pytest.mark.parametrize("lost", ["the permission", "staff"])
    def test_given_the_right_is_lost_when_reading_what_was_sent_then_404(self, alice, lost):
        staff = listener()
        endpoint = endpoint_for(staff, SOMEWHERE, "transfer.sent", scope="everybody")
        send(alice, person(), "1.00")
        made = WebhookDelivery.objects.get()
        client, path = client_of(staff), f"{PATH}{endpoint.pk}/deliveries/"
        assert [each["id"] for each in client.get(path).json()["results"]] == [str(made.pk)]
        assert client.get(f"{path}{made.pk}/").status_code == 200
        if lost == "staff":
            User.objects.filter(pk=staff.pk).update(is_staff=False)
        else:
            staff.user_permissions.clear()
        answers = [
            client.get(path),
            client.get(f"{path}{made.pk}/"),
            client.post(f"{path}{made.pk}/replay/"),
        ]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
        assert client.delete(f"{PATH}{endpoint.pk}/").status_code == 204


class TestOthers:
    def test_given_anothers_endpoint_when_calling_then_404_each_time(self, alice):
        endpoint = register_quietly(alice)
        send(alice, person(), "1.00")
        made = WebhookDelivery.objects.get()
        one = f"{PATH}{endpoint.pk}/"
        for stranger in (person(), StaffFactory(is_superuser=True)):
            client = client_of(stranger)
            answers = [
                client.get(one),
                client.patch(one, {"description": "mine"}),
                client.delete(one),
                client.post(f"{one}rotate-secret/"),
                client.get(f"{one}deliveries/"),
                client.get(f"{one}deliveries/{made.pk}/"),
                client.post(f"{one}deliveries/{made.pk}/replay/"),
            ]
            assert {answer.status_code for answer in answers} == {404}
            assert client.get(PATH).json()["results"] == []

    def test_given_a_delivery_of_another_endpoint_when_asked_for_then_404(self, alice, client):
        register_quietly(alice)
        send(alice, person(), "1.00")
        made = WebhookDelivery.objects.get()
        other = register_quietly(alice)
        path = f"{PATH}{other.pk}/deliveries/{made.pk}/"
        assert client.get(path).status_code == 404
        assert client.post(f"{path}replay/").status_code == 404


class TestChanging:
    def test_given_changes_when_patched_then_they_count(self, alice, client):
        one = f"{PATH}{register_quietly(alice).pk}/"
        body = {"url": "https://8.8.4.4:8443/x", "event_types": ["kyc.approved"]}
        changed = client.patch(one, {**body, "is_active": False}).json()
        assert (changed["url"], changed["event_types"]) == (body["url"], body["event_types"])
        assert (changed["is_active"], changed["disabled_reason"]) == (False, "owner")
        again = client.patch(one, {"is_active": True}).json()
        assert (again["is_active"], again["disabled_reason"], again["disabled_at"]) == (
            True,
            "",
            None,
        )

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, ("", "required")),
            ({"scope": "everybody"}, ("scope", "unknown_field")),
            ({"is_active": "yes"}, ("is_active", "invalid")),
            ({"url": "https://192.168.1.1/"}, ("url", "target_refused")),
        ],
    )
    def test_given_bad_input_when_patched_then_400(self, alice, client, change, expected):
        response = client.patch(f"{PATH}{register_quietly(alice).pk}/", change)
        assert response.status_code == 400
        assert codes(response) == {expected}

    def test_given_staff_switched_it_off_when_its_owner_switches_it_on_then_409(
        self, alice, client
    ):
        from fintech_core.webhooks import services

        endpoint = register_quietly(alice)
        staff = StaffFactory(permissions=[services.SWITCH_PERMISSION])
        services.switch(endpoint_id=endpoint.pk, actor=staff, on=False)
        response = client.patch(f"{PATH}{endpoint.pk}/", {"is_active": True})
        assert (response.status_code, response.json()["code"]) == (409, "invalid_state")
        services.switch(endpoint_id=endpoint.pk, actor=staff, on=True)
        assert client.get(f"{PATH}{endpoint.pk}/").json()["is_active"] is True

    def test_given_a_deleted_one_when_looked_for_then_404_and_final(self, alice, client):
        endpoint = register_quietly(alice)
        one = f"{PATH}{endpoint.pk}/"
        assert client.delete(one).status_code == 204
        assert client.get(one).status_code == client.delete(one).status_code == 404
        with pytest.raises(IntegrityError):
            WebhookEndpoint.objects.filter(pk=endpoint.pk).update(status="active")

    def test_given_a_secret_when_rotated_then_the_new_one_is_shown(self, alice, client):
        endpoint = register_quietly(alice)
        rotated = client.post(f"{PATH}{endpoint.pk}/rotate-secret/").json()
        assert rotated["secret"] != endpoint.secret
        assert rotated["previous_secret_expires_at"]
        stored = WebhookEndpoint.objects.get()
        assert (stored.secret, stored.previous_secret) == (rotated["secret"], endpoint.secret)
        assert client.post(f"{PATH}{endpoint.pk}/rotate-secret/", {"x": 1}).status_code == 400


class TestDeliveries:
    def test_given_deliveries_when_listed_then_newest_first_and_by_status(self, alice, client):
        endpoint = register_quietly(alice)
        for _ in range(3):
            send(alice, person(), "1.00")
        path = f"{PATH}{endpoint.pk}/deliveries/"
        listed = client.get(path, {"page_size": 2}).json()
        newest = WebhookDelivery.objects.order_by("-pk").values_list("pk", flat=True)
        assert [each["id"] for each in listed["results"]] == [str(pk) for pk in newest[:2]]
        assert listed["results"][0]["event_type"] == "transfer.sent"
        assert len(client.get(listed["next"]).json()["results"]) == 1
        assert len(client.get(path, {"status": "pending"}).json()["results"]) == 3
        assert client.get(path, {"status": "delivered"}).json()["results"] == []
        assert client.get(path, {"status": "lost"}).status_code == 400

    def test_given_a_delivery_when_read_then_the_payload_as_it_is_signed(self, alice, client):
        endpoint = register_quietly(alice)
        send(alice, person(), "1.00")
        made = WebhookDelivery.objects.get()
        shown = client.get(f"{PATH}{endpoint.pk}/deliveries/{made.pk}/").json()
        assert shown["payload"].startswith('{"type":"transfer.sent","timestamp":"')
        assert (shown["tries"], shown["status"]) == ([], "pending")

    def test_given_a_delivery_on_its_way_when_replayed_then_409(self, alice, client):
        endpoint = register_quietly(alice)
        send(alice, person(), "1.00")
        made = WebhookDelivery.objects.get()
        path = f"{PATH}{endpoint.pk}/deliveries/{made.pk}/replay/"
        assert client.post(path).status_code == 409
        made.status, made.next_attempt_at, made.finished_at = "failed", None, made.created_at
        made.save()
        assert (client.post(path).status_code, client.post(path).status_code) == (202, 409)
        client.patch(f"{PATH}{endpoint.pk}/", {"is_active": False})
        made.save()
        assert client.post(path).status_code == 409
