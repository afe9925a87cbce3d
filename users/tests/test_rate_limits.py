import socket
import sys

import pytest
from django_redis import get_redis_connection

from fintech_core import ratelimit
from fintech_core.own_redis import OwnRedis
from users.tests.factories import UserFactory, client_for
from users.tests.helpers import at_once, get, login, patch, post, refusal
from users.tests.test_registration import ALICE

WRONG = "wrong password"


@pytest.fixture(autouse=True)
def tight_limits(settings):
    settings.RATE_LIMIT_LOGIN = settings.RATE_LIMIT_REGISTER = "3/d"


@pytest.fixture
def no_redis(settings, monkeypatch):
    monkeypatch.setattr(ratelimit, "_own", OwnRedis(ratelimit._pool))  # or the connection is kept
    settings.CACHES = {
        "default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
    }


def codes(responses):
    return sorted(response.status_code for response in responses)


@pytest.mark.django_db
class TestLoginLimit:
    def test_given_too_many_tries_when_signing_in_then_429_with_retry_after(self):
        assert codes(login("a@example.com", WRONG) for _ in range(3)) == [401] * 3
        response = login("a@example.com", WRONG)
        assert refusal(response) == (429, "rate_limited")
        assert int(response["Retry-After"]) > 0

    def test_given_forged_forwarded_for_when_signing_in_then_the_limit_still_counts(self):
        answers = [
            login(f"{n}@example.com", WRONG, HTTP_X_FORWARDED_FOR=f"10.0.0.{n}") for n in range(5)
        ]
        assert codes(answers) == [401, 401, 401, 429, 429]

    def test_given_one_account_from_many_addresses_when_guessing_then_limited_in_any_case(self):
        alice = UserFactory(email="alice@example.com")
        spellings = ["alice@example.com", "ALICE@example.com", " Alice@Example.com "]
        for number, spelling in enumerate(spellings):
            login(spelling, WRONG, REMOTE_ADDR=f"10.0.0.{number}")
        assert refusal(login(alice.email, REMOTE_ADDR="10.0.0.9")) == (429, "rate_limited")

    def test_given_limits_switched_off_when_signing_in_then_never_429(self, settings):
        settings.RATELIMIT_ENABLE = False
        assert codes(login("a@example.com", WRONG) for _ in range(5)) == [401] * 5

    def test_given_wrong_passwords_when_changing_it_then_429(self):
        client = client_for(UserFactory())
        body = {"current_password": WRONG, "new_password": "a quite different sentence"}
        answers = [post("users/me/password/", body, client) for _ in range(4)]
        assert codes(answers) == [400, 400, 400, 429]

    def test_given_many_from_one_address_when_registering_then_429(self):
        answers = [
            post("users/register/", {**ALICE, "password": "x"}, HTTP_X_FORWARDED_FOR=f"1.1.1.{n}")
            for n in range(4)
        ]
        assert codes(answers) == [400, 400, 400, 429]


@pytest.mark.django_db
class TestOtherLimits:
    def test_given_many_phone_numbers_when_asking_whether_somebody_has_them_then_429(
        self, settings
    ):
        settings.PROFILE_RATE = "3/d"
        client = client_for(UserFactory())
        answers = [
            patch("users/me/", {"phone_number": f"+4915199{n:06d}"}, client) for n in range(4)
        ]
        assert codes(answers) == [200, 200, 200, 429]
        assert get("users/me/", client).status_code == 200

    def test_given_many_documents_when_submitting_then_429_and_json_is_not_counted(self, settings):
        settings.DOCUMENT_RATE = "3/d"
        client = client_for(UserFactory())
        for _ in range(4):
            assert post("users/me/kyc/", {}, client).status_code == 400
        answers = [
            post("users/me/kyc/", {"city": "x"}, client, format="multipart") for _ in range(4)
        ]
        assert codes(answers) == [400, 400, 400, 429]
        capitals = "Multipart/Form-Data; boundary=x"
        answer = client.generic("POST", "/api/v1/users/me/kyc/", b"--x--\r\n", capitals)
        assert answer.status_code == 429

    def test_given_a_flood_when_refreshing_verifying_or_signing_out_then_429(self, settings):
        settings.SESSION_RATE = "3/d"
        answers = [
            post("auth/refresh/", {"refresh": "x"}),
            post("auth/verify/", {"token": "x"}),
            post("auth/logout/", {"refresh": "x"}),
            post("auth/refresh/", {"refresh": "x"}),
        ]
        assert codes(answers) == [401, 401, 401, 429]


@pytest.mark.django_db(transaction=True)
class TestAtOnceAndWithoutRedis:
    def test_given_many_at_once_when_signing_in_then_no_more_than_allowed_get_through(self):
        answers = at_once(*[lambda n=n: login(f"{n}@example.com", WRONG) for n in range(8)])
        assert codes(answers) == [401] * 3 + [429] * 5

    def test_given_a_lost_connection_when_signing_in_then_it_is_made_anew_and_still_counted(self):
        assert codes(login("a@example.com", WRONG) for _ in range(3)) == [401] * 3
        ratelimit._own.client.connection._sock.shutdown(socket.SHUT_RDWR)
        assert codes([login("a@example.com", WRONG)]) == [429]

    def test_given_an_interrupt_before_the_answer_when_asking_again_then_it_gets_its_own(
        self, monkeypatch
    ):
        assert ratelimit._own.ask("ECHO", "zero") == b"zero"
        connection = ratelimit._own.client.connection
        with monkeypatch.context() as interrupted:
            interrupted.setattr(connection, "read_response", lambda: sys.exit(1))
            with pytest.raises(SystemExit):
                ratelimit._own.ask("ECHO", "first")
        assert ratelimit._own.ask("ECHO", "second") == b"second"

    def test_given_threads_that_end_when_signing_in_then_their_connections_are_given_back(self):
        pool = get_redis_connection().connection_pool
        login("a@example.com", WRONG)
        before = len(pool._in_use_connections)
        for _ in range(3):
            at_once(lambda: login("a@example.com", WRONG))
        assert len(pool._in_use_connections) == before

    @pytest.mark.usefixtures("no_redis")
    def test_given_no_redis_when_signing_in_then_counted_in_postgresql(self):
        answers = [login("a@example.com", WRONG) for _ in range(4)]
        assert codes(answers) == [401, 401, 401, 429]
        assert int(answers[-1]["Retry-After"]) > 0

    @pytest.mark.usefixtures("no_redis")
    def test_given_no_redis_and_many_at_once_when_signing_in_then_no_more_get_through(self):
        answers = at_once(*[lambda n=n: login(f"{n}@example.com", WRONG) for n in range(6)])
        assert codes(answers) == [401] * 3 + [429] * 3

    @pytest.mark.usefixtures("no_redis")
    def test_given_no_redis_when_registering_then_counted_in_postgresql(self):
        answers = [post("users/register/", {**ALICE, "password": "x"}) for _ in range(4)]
        assert codes(answers) == [400, 400, 400, 429]
