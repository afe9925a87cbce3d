"""One effect per key, and the same answer to every retry."""

import json
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection, transaction

from fintech_core.idempotency import IdempotencyInProgress, read_key
from fintech_core.models import IdempotencyRecord
from transactions import posting
from transactions.models import Transaction
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    client_of,
    freeze,
    fund,
    person,
    refused_by,
    send,
)
from transactions.tests.test_transfer import URL, post, refusal

pytestmark = pytest.mark.django_db(transaction=True)


def test_given_a_retry_when_sending_then_the_same_bytes_and_no_second_effect():
    alice, bob = person("100.00"), person()
    client, body = client_of(alice), {"recipient": bob.email, "amount": "10.00"}
    first = post(client, body, key="key-1")
    second = post(client, body, key="key-1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert "Idempotent-Replayed" not in first
    assert second["Idempotent-Replayed"] == "true"
    assert balance(bob) == Decimal("10.00")


def test_given_the_quoted_form_when_retrying_then_it_is_the_same_key():
    alice, bob = person("100.00"), person()
    client, body = client_of(alice), {"recipient": bob.email, "amount": "10.00"}
    post(client, body, key="abc")
    assert post(client, body, key='"abc"')["Idempotent-Replayed"] == "true"


def test_given_the_same_meaning_written_differently_when_retrying_then_it_is_a_replay():
    alice, bob = person("100.00"), person()
    client = client_of(alice)
    post(client, {"recipient": bob.email, "amount": "10.00"}, key="k")
    again = post(
        client,
        {"amount": 10, "recipient": bob.email.upper(), "currency": "USD", "metadata": {}},
        key="k",
    )
    assert again.status_code == 201
    assert again["Idempotent-Replayed"] == "true"


def test_given_another_request_under_the_key_when_sending_then_422_and_nothing_moves():
    alice, bob = person("100.00"), person()
    client = client_of(alice)
    post(client, {"recipient": bob.email, "amount": "10.00"}, key="k")
    response = post(client, {"recipient": bob.email, "amount": "11.00"}, key="k")
    assert refusal(response) == (422, "idempotency_key_reused")
    assert balance(bob) == Decimal("10.00")


def test_given_the_key_of_somebody_else_when_sending_then_it_is_a_key_of_ones_own():
    alice, bob = person("100.00"), person("100.00")
    post(client_of(alice), {"recipient": bob.email, "amount": "10.00"}, key="k")
    response = post(client_of(bob), {"recipient": alice.email, "amount": "10.00"}, key="k")
    assert response.status_code == 201
    assert "Idempotent-Replayed" not in response


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "idempotency_key_required"),
        ("", "idempotency_key_invalid"),
        ('""', "idempotency_key_invalid"),
        ("x" * 256, "idempotency_key_invalid"),
        ("käse", "idempotency_key_invalid"),
        ("a\tb", "idempotency_key_invalid"),
    ],
)
def test_given_no_proper_key_when_sending_then_400(key, code):
    alice, bob = person("100.00"), person()
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"recipient": bob.email, "amount": "1.00"}
    response = client_of(alice).post(URL, body, headers=headers)
    assert refusal(response) == (400, code)
    assert balance(alice) == Decimal("100.00")


def test_given_255_characters_when_reading_a_key_then_it_is_one():
    assert read_key("x" * 255) == "x" * 255


def test_given_a_remembered_refusal_when_money_has_arrived_since_then_the_same_refusal():
    alice, bob = person("1.00"), person()
    client, body = client_of(alice), {"recipient": bob.email, "amount": "10.00"}
    first = post(client, body, key="k")
    fund(alice, "100.00")
    again = post(client, body, key="k")
    assert refusal(first) == (422, "insufficient_funds")
    assert again.content == first.content
    assert again["Content-Type"] == "application/problem+json"
    assert again["Idempotent-Replayed"] == "true"
    assert post(client, body, key="k2").status_code == 201


def test_given_a_403_when_approved_since_then_the_key_is_still_fresh():
    newcomer, bob = person("10.00"), person()
    client, body = client_of(newcomer), {"recipient": bob.email, "amount": "1.00"}
    type(newcomer).objects.filter(pk=newcomer.pk).update(is_active=False)
    assert post(client, body, key="k").status_code == 403
    type(newcomer).objects.filter(pk=newcomer.pk).update(is_active=True)
    assert post(client, body, key="k").status_code == 201


def test_given_a_400_when_corrected_then_the_key_is_still_fresh():
    alice, bob = person("10.00"), person()
    client = client_of(alice)
    assert post(client, {"recipient": bob.email, "amount": "x"}, key="k").status_code == 400
    assert post(client, {"recipient": bob.email, "amount": "1.00"}, key="k").status_code == 201


def test_given_a_remembered_answer_when_the_sender_may_no_longer_pay_then_it_is_replayed():
    alice, bob = person("10.00"), person()
    client, body = client_of(alice), {"recipient": bob.email, "amount": "1.00"}
    first = post(client, body, key="k")
    freeze(alice)
    assert post(client, body, key="k").content == first.content


def test_given_a_crash_before_the_commit_when_retrying_then_it_happens_once(monkeypatch):
    alice, bob = person("10.00"), person()
    client, body = client_of(alice), {"recipient": bob.email, "amount": "4.00"}
    client.raise_request_exception = False

    def crash(*args, **options):
        raise RuntimeError("power cut")

    with monkeypatch.context() as broken:
        broken.setattr(posting.Journal, "write", crash)
        failed = post(client, body, key="k")
    assert refusal(failed) == (500, "internal_error")
    assert b"power cut" not in failed.content
    assert Transaction.objects.filter(type="transfer").count() == 0
    assert IdempotencyRecord.objects.count() == 0

    assert post(client, body, key="k").status_code == 201
    assert balance(bob) == Decimal("4.00")
    assert breaches() == []


def test_given_sixteen_duplicates_at_once_when_sending_then_one_effect():
    alice, bob = person("100.00"), person()
    body = {"recipient": bob.email, "amount": "10.00"}
    responses = at_once(*[lambda: post(client_of(alice), body, key="k") for _ in range(16)])
    assert {r.status_code for r in responses} <= {201, 409}
    answers = {r.content for r in responses if r.status_code == 201}
    assert len(answers) == 1
    for response in responses:
        if response.status_code == 409:
            assert json.loads(response.content)["code"] == "idempotency_in_progress"
            assert response["Retry-After"]
    assert sum("Idempotent-Replayed" not in r for r in responses if r.status_code == 201) == 1
    assert balance(bob) == Decimal("10.00")
    assert breaches() == []


def test_given_a_twin_that_takes_long_when_sending_then_409_in_progress():
    alice, bob = person("100.00"), person()
    send(alice, bob, "1.00", key="slow")

    def hold_the_key():
        with transaction.atomic():
            name = IdempotencyRecord.objects.filter(key="slow")
            lock_key = "SELECT fintech_core_lock_key(%s, %s, %s)"
            with connection.cursor() as cursor:
                cursor.execute(lock_key, name.values_list("user_id", "operation", "key").get())
                cursor.execute("SELECT pg_sleep(1.5)")

    def retry():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.3)")
            cursor.execute("SET lock_timeout = '300ms'")
        return send(alice, bob, "1.00", key="slow")

    _, outcome = at_once(hold_the_key, retry)
    assert isinstance(outcome, IdempotencyInProgress)
    assert outcome.status == 409


@pytest.mark.parametrize(
    "change",
    [
        "key = 'moved'",
        "operation = 'x'",
        "fingerprint = 'x'",
        "response_body = '{}'",
        "response_status = NULL, response_body = NULL",
        "user_id = gen_random_uuid()",
    ],
)
def test_given_an_answered_key_when_rewriting_it_then_refused(change):
    alice, bob = person("10.00"), person()
    send(alice, bob, "1.00", key="k")
    with refused_by("fintech_core_idempotency_is_frozen"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE fintech_core_idempotencyrecord SET {change} WHERE key = 'k'")


def test_given_an_answered_key_when_the_owner_deletes_it_then_refused(owner):
    send(person("10.00"), person(), "1.00", key="k")
    for statement in ("DELETE FROM", "TRUNCATE"):
        with pytest.raises(Exception, match="kept for ever"):
            owner.execute(f"{statement} fintech_core_idempotencyrecord")


def test_given_two_operations_when_using_one_key_then_they_do_not_meet():
    alice, bob = person("100.00"), person()
    key = str(uuid4())
    send(alice, bob, "1.00", key=key)
    response = post(client_of(alice), {"recipient": bob.email, "amount": "1.00"}, key=key)
    assert response.status_code == 201
    assert "Idempotent-Replayed" not in response
