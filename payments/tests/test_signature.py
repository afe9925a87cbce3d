"""Who may speak for a gateway. Whatever is refused here leaves no row."""

import base64
import json
import secrets
from datetime import timedelta

import pytest
from django.test import override_settings

from payments.models import WebhookEvent
from payments.tests.factories import PaymentIntentFactory, event_body, signed
from payments.tests.helpers import WEBHOOK_URL, code_of, post_webhook

pytestmark = pytest.mark.django_db


def assert_refused(response, code):
    assert code_of(response) == (400, code)
    assert not WebhookEvent.objects.exists()


def test_given_a_good_signature_when_delivered_then_it_is_stored_as_it_was_sent():
    body = event_body()
    response = post_webhook(body, signed(body, event_id="evt_1"))
    assert (response.status_code, response.json()) == (200, {"received": True})
    event = WebhookEvent.objects.get()
    assert bytes(event.body) == body
    assert set(event.headers) == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    assert (event.event_id, event.event_type) == ("evt_1", "payment_intent.succeeded")
    assert (event.status, event.attempts) == ("received", 0)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_given_a_header_is_missing_when_delivered_then_the_signature_is_invalid(missing):
    body = event_body()
    headers = signed(body)
    del headers[missing]
    assert_refused(post_webhook(body, headers), "invalid_signature")


@pytest.mark.parametrize("age", [timedelta(seconds=301), timedelta(seconds=-302)])
def test_given_an_old_or_future_time_when_delivered_then_the_signature_is_invalid(age):
    body = event_body()
    assert_refused(post_webhook(body, signed(body, age=age)), "invalid_signature")


@pytest.mark.parametrize("age", [timedelta(seconds=290), timedelta(seconds=-290)])
def test_given_a_clock_a_little_off_when_delivered_then_it_is_accepted(age):
    body = event_body()
    assert post_webhook(body, signed(body, age=age)).status_code == 200


def test_given_the_same_json_written_otherwise_when_delivered_then_the_signature_is_invalid():
    body = event_body()
    again = json.dumps(json.loads(body), indent=1).encode()
    assert_refused(post_webhook(again, signed(body)), "invalid_signature")


def test_given_another_id_or_time_than_signed_when_delivered_then_the_signature_is_invalid():
    body = event_body()
    headers = signed(body)
    assert_refused(post_webhook(body, headers | {"webhook-id": "evt_x"}), "invalid_signature")
    later = str(int(headers["webhook-timestamp"]) + 1)
    assert_refused(post_webhook(body, headers | {"webhook-timestamp": later}), "invalid_signature")


def test_given_a_strangers_secret_when_delivered_then_the_signature_is_invalid():
    body = event_body()
    stranger = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    assert_refused(post_webhook(body, signed(body, secret=stranger)), "invalid_signature")


def test_given_two_secrets_while_rotating_when_either_signs_then_it_is_accepted():
    old, new = ("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() for _ in "ab")
    body = event_body()
    with override_settings(SANDBOX_WEBHOOK_SECRETS=[new, old]):
        for secret in (old, new):
            assert post_webhook(body, signed(body, secret=secret)).status_code == 200
    with override_settings(SANDBOX_WEBHOOK_SECRETS=[new]):
        assert code_of(post_webhook(body, signed(body, secret=old))) == (400, "invalid_signature")


def test_given_several_signatures_when_one_is_ours_then_it_is_accepted():
    body = event_body()
    headers = signed(body)
    wrong = "v1," + base64.b64encode(b"x" * 32).decode()
    headers["webhook-signature"] = f"{wrong} v1a,AAAA {headers['webhook-signature']}"
    assert post_webhook(body, headers).status_code == 200


HOSTILE = {
    "signature without comma": {"webhook-signature": "v1"},
    "signature with two commas": {"webhook-signature": "v1,a,b"},
    "signature not base64": {"webhook-signature": "v1,%%%"},
    "signature of wrong padding": {"webhook-signature": "v1,abc"},
    "signature not ascii": {"webhook-signature": "v1,é"},
    "signature empty": {"webhook-signature": ""},
    "signature of spaces": {"webhook-signature": "   "},
    "signature huge": {"webhook-signature": "v1,AAAA " * 500},
    "another version": {"webhook-signature": "v2,AAAA"},
    "time nan": {"webhook-timestamp": "nan"},
    "time inf": {"webhook-timestamp": "inf"},
    "time negative": {"webhook-timestamp": "-1"},
    "time huge": {"webhook-timestamp": "9" * 400},
    "time 12 digits": {"webhook-timestamp": "999999999999"},
    "time exponent": {"webhook-timestamp": "1e3"},
    "time with underscores": {"webhook-timestamp": "1_700_000_000"},
    "time in other digits": {"webhook-timestamp": "\u0661\u0667" + "\u0660" * 8},
    "time empty": {"webhook-timestamp": ""},
    "id not ascii": {"webhook-id": "é"},
    "id empty": {"webhook-id": ""},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_given_hostile_headers_when_delivered_then_the_signature_is_invalid(name):
    body = event_body()
    assert_refused(post_webhook(body, signed(body) | HOSTILE[name]), "invalid_signature")


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"\x00", b"null"])
def test_given_garbage_unsigned_when_delivered_then_the_signature_is_invalid(body):
    assert_refused(post_webhook(body, {}), "invalid_signature")


GARBAGE = {
    "empty": b"",
    "not utf-8": b"\xff\xfe\x00",
    "encoded surrogate": b'{"type": "\xed\xa0\x80"}',
    "not json": b"type=payment_intent.succeeded",
    "null": b"null",
    "array": b"[]",
    "string": b'"payment_intent.succeeded"',
    "NaN": b'{"type": NaN}',
    "deep": b"[" * 100_000,
    "no type": b'{"data": {}}',
    "type null": b'{"type": null}',
    "type number": b'{"type": 1}',
    "type empty": b'{"type": ""}',
    "type too long": b'{"type": "' + b"x" * 101 + b'"}',
    "type with NUL": b'{"type": "a\\u0000b"}',
    "type a lone surrogate": b'{"type": "\\ud800"}',
    "type twice": b'{"type": "a", "type": "b"}',
    "no data": b'{"type": "payment_intent.succeeded"}',
    "data an array": b'{"type": "payment_intent.succeeded", "data": []}',
    "data empty": b'{"type": "payment_intent.succeeded", "data": {}}',
}
BAD_FACTS = [
    {"amount": None},
    {"amount": 100.0},
    {"amount": 100},
    {"amount": True},
    {"amount": "NaN"},
    {"amount": "Infinity"},
    {"amount": "1e3"},
    {"amount": "-5.00"},
    {"amount": "0.00"},
    {"amount": "1.234"},
    {"amount": " 1.00"},
    {"amount": "99999999999999.00"},
    {"amount": ["1.00"]},
    {"amount": {}},
    {"currency": None},
    {"currency": "usd"},
    {"currency": "USDX"},
    {"currency": ["USD"]},
    {"gateway_reference": None},
    {"gateway_reference": ""},
    {"gateway_reference": 7},
    {"gateway_reference": {"a": 1}},
    {"gateway_reference": "x" * 256},
    {"gateway_reference": "sbx\u0000"},
    {"gateway_reference": "sbx_\ud800"},
]


@pytest.mark.parametrize("name", GARBAGE)
def test_given_signed_garbage_when_delivered_then_it_is_no_event(name):
    body = GARBAGE[name]
    assert_refused(post_webhook(body, signed(body)), "malformed_event")


@pytest.mark.parametrize("facts", BAD_FACTS, ids=str)
def test_given_signed_facts_of_wrong_shape_when_delivered_then_it_is_no_event(facts):
    body = event_body(PaymentIntentFactory(), **facts)
    assert_refused(post_webhook(body, signed(body)), "malformed_event")


@pytest.mark.parametrize("event_id", ["x" * 256, "evt.1", "evt 1"])
def test_given_a_signed_id_that_is_none_when_delivered_then_it_is_no_event(event_id):
    body = event_body()
    assert_refused(post_webhook(body, signed(body, event_id=event_id)), "malformed_event")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense", ""],
)
def test_given_any_content_type_when_delivered_then_the_bytes_count(content_type):
    body = event_body()
    response = post_webhook(body, signed(body), content_type=content_type)
    assert response.status_code == 200
    assert bytes(WebhookEvent.objects.get().body) == body


def test_given_a_gateway_that_wants_xml_when_delivered_then_it_is_answered_all_the_same():
    body = event_body()
    response = post_webhook(body, signed(body) | {"Accept": "application/xml"})
    assert (response.status_code, response.json()) == (200, {"received": True})


def test_given_a_wrong_token_of_ours_when_delivered_then_only_the_signature_counts():
    body = event_body()
    headers = signed(body) | {"Authorization": "Bearer nonsense"}
    assert post_webhook(body, headers).status_code == 200


def test_given_256_kib_when_delivered_then_one_byte_more_is_too_large():
    most = 256 * 1024
    body = event_body()
    body += b" " * (most - len(body))
    assert post_webhook(body, signed(body)).status_code == 200
    too_large = body + b" "
    assert code_of(post_webhook(too_large, signed(too_large))) == (413, "payload_too_large")
    assert WebhookEvent.objects.count() == 1


@pytest.mark.parametrize("gateway", ["stripe", "SANDBOX", "nobody", "sand box", "a" * 300])
def test_given_an_unknown_gateway_when_delivered_then_it_is_not_found(client, gateway):
    body = event_body()
    response = client.post(
        f"/api/v1/payments/webhooks/{gateway}/",
        data=body,
        content_type="application/json",
        headers=signed(body),
    )
    assert code_of(response) == (404, "not_found")


def test_given_no_post_when_the_webhook_is_called_then_the_method_is_refused(client):
    assert code_of(client.get(WEBHOOK_URL)) == (405, "method_not_allowed")
