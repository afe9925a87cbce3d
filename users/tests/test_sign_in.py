import time

import jwt
import pytest
from django.conf import settings
from rest_framework.test import APIClient

from users.models import User
from users.tests.factories import PASSWORD, UserFactory, client_for, sign_in
from users.tests.helpers import bearer, get, login, post, refusal, wrong_fields


def anonymous(body):
    """A problem without what differs from call to call."""
    return {k: v for k, v in body.items() if k != "request_id"}


@pytest.mark.django_db
class TestLogin:
    def test_given_the_right_password_when_signing_in_then_both_tokens_work(self):
        alice = UserFactory()
        body = login(alice.email).json()
        assert set(body) == {"access", "refresh"}
        assert get("users/me/", bearer(body["access"])).json()["id"] == str(alice.pk)

    def test_given_wrong_facts_when_signing_in_then_the_answers_are_the_same(self):
        alice, gone = UserFactory(), UserFactory(is_active=False)
        answers = [
            login(alice.email, "wrong password"),
            login("nobody@example.com", PASSWORD),
            login(gone.email, PASSWORD),
        ]
        assert {refusal(answer) for answer in answers} == {(401, "invalid_credentials")}
        assert all(answer["WWW-Authenticate"].startswith("Bearer") for answer in answers)
        bodies = [anonymous(answer.json()) for answer in answers]
        assert bodies[0] == bodies[1] == bodies[2]

    def test_given_an_unknown_email_when_signing_in_then_it_takes_as_long(self):
        alice = UserFactory()

        def fastest(email: str) -> float:
            took = []
            for _ in range(3):
                started = time.process_time()
                login(email, "wrong password")
                took.append(time.process_time() - started)
            return min(took)

        known, unknown = fastest(alice.email), fastest("nobody@example.com")
        assert 0.5 < unknown / known < 2

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"email": "a@example.com"}, "password"),
            ({"password": PASSWORD}, "email"),
            ({"email": "a@example.com", "password": "x" * 129}, "password"),
            ({"email": "a@example.com", "password": ""}, "password"),
            ({"email": ["a@example.com"], "password": PASSWORD}, "email"),
            ({"email": "a@example.com", "password": PASSWORD, "is_staff": True}, "is_staff"),
        ],
    )
    def test_given_a_bad_shape_when_signing_in_then_400(self, body, field):
        assert wrong_fields(post("auth/login/", body)) == [field]

    def test_given_an_old_authorization_header_when_signing_in_then_it_is_ignored(self):
        alice = UserFactory()
        response = login(alice.email, client=bearer("rubbish"))
        assert response.status_code == 200

    def test_given_any_case_when_looking_a_user_up_then_found(self):
        alice = UserFactory(email="alice@example.com")
        assert User.objects.get(email="ALICE@example.com") == alice
        assert User.objects.get_by_natural_key("Alice@Example.com") == alice


def forged(**changes):
    alice = UserFactory()
    claims = jwt.decode(
        sign_in(alice).access,
        settings.JWT_SIGNING_KEY,
        algorithms=["HS256"],
        audience="fintech-core-api",
    )
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


@pytest.mark.django_db
class TestAccess:
    def test_given_no_header_when_calling_then_not_authenticated_with_a_challenge(self):
        for client in (APIClient(), APIClient(HTTP_AUTHORIZATION="")):
            response = get("users/me/", client)
            assert refusal(response) == (401, "not_authenticated")
            assert response["WWW-Authenticate"].startswith("Bearer")

    @pytest.mark.parametrize(
        "header",
        [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer x",
            "Bearer a.b.c",
            "Bearer " + "x" * 5000,
            "Bearer \xff\xfe",
            "Basic YWxpY2U6cGFzc3dvcmQ=",
            "Token abc",
            "eyJhbGciOiJIUzI1NiJ9.e30.x",
        ],
    )
    def test_given_a_malformed_header_when_calling_then_token_not_valid(self, header):
        response = get("users/me/", APIClient(HTTP_AUTHORIZATION=header))
        assert refusal(response) == (401, "token_not_valid")
        assert response["WWW-Authenticate"].startswith("Bearer")

    def test_given_a_refresh_token_when_used_as_access_token_then_401(self):
        client = bearer(sign_in(UserFactory()).refresh)
        assert refusal(get("users/me/", client)) == (401, "token_not_valid")

    @pytest.mark.parametrize(
        "changes",
        [
            {"exp": 1},
            {"exp": None},
            {"aud": "somebody-else"},
            {"iss": "somebody-else"},
            {"sid": None},
            {"sid": "not-a-uuid"},
            {"sid": "0192f3f4-6f0e-7c1a-9d55-3f2f6c0e9a01"},
            {"sub": "0192f3f4-6f0e-7c1a-9d55-3f2f6c0e9a01"},
            {"sub": None},
            {"jti": None},
            {"token_type": "refresh"},
            {"token_type": None},
        ],
    )
    def test_given_a_wrong_claim_when_calling_then_401(self, changes):
        token = jwt.encode(forged(**changes), settings.JWT_SIGNING_KEY, algorithm="HS256")
        assert refusal(get("users/me/", bearer(token))) == (401, "token_not_valid")

    def test_given_the_right_claims_when_calling_then_200(self):
        token = jwt.encode(forged(), settings.JWT_SIGNING_KEY, algorithm="HS256")
        assert get("users/me/", bearer(token)).status_code == 200

    @pytest.mark.parametrize(
        ("key", "algorithm"), [("k" * 40, "HS256"), ("SIGNING", "HS512"), (None, "none")]
    )
    def test_given_another_key_or_algorithm_when_calling_then_401(self, key, algorithm):
        key = settings.JWT_SIGNING_KEY if key == "SIGNING" else key
        token = jwt.encode(forged(), key, algorithm=algorithm)
        assert refusal(get("users/me/", bearer(token))) == (401, "token_not_valid")

    def test_given_a_token_when_calling_then_one_query_finds_the_caller(
        self, django_assert_num_queries
    ):
        client = client_for(UserFactory())
        with django_assert_num_queries(1):
            get("users/me/", client)

    def test_given_a_caller_when_answering_then_the_request_log_can_name_them(self):
        alice = UserFactory()
        response = get("users/me/", client_for(alice))
        assert response.wsgi_request.caller_id == str(alice.pk)
