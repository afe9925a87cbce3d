import pytest

from users.models import User
from users.tests.factories import UserFactory
from users.tests.helpers import at_once, login, post, refusal, wrong_fields

PASSWORD = "correct horse battery staple"
ALICE = {
    "email": "Alice@Example.com",
    "password": PASSWORD,
    "first_name": "Alice",
    "last_name": "Archer",
    "phone_number": "+4915112345678",
}
# What somebody might try to give themselves.
PRIVILEGES = {
    "id": "0192f3f4-6f0e-7c1a-9d55-3f2f6c0e9a01",
    "is_staff": True,
    "is_superuser": True,
    "is_active": True,
    "kyc_status": "approved",
    "kyc_rejection_reason": "x",
    "date_joined": "2020-01-01T00:00:00Z",
    "balance": "1000000.00",
    "tier": "approved",
    "groups": [1],
    "user_permissions": [1],
    "wallet": {"balance": "1.00"},
    "date_of_birth": "1990-01-01",
}


def register(**changes):
    return post("users/register/", {**ALICE, **changes})


@pytest.mark.django_db
class TestRegister:
    def test_given_good_facts_when_registering_then_201_with_the_user_and_no_secret(self):
        response = register()
        assert response.status_code == 201
        body = response.json()
        assert set(body) == {
            "id",
            "email",
            "first_name",
            "last_name",
            "phone_number",
            "kyc_status",
            "kyc_rejection_reason",
            "date_joined",
        }
        assert body["email"] == "alice@example.com"
        assert body["kyc_status"] == "not_submitted"
        assert body["date_joined"].endswith("Z")

    def test_given_a_new_user_when_reading_their_row_then_bcrypt_and_a_first_kyc_step(self):
        user = User.objects.get(pk=register().json()["id"])
        assert user.password.startswith("bcrypt_sha256$")
        assert [(s.from_status, s.to_status) for s in user.kyc_steps.all()] == [
            ("", "not_submitted")
        ]

    @pytest.mark.parametrize("field", sorted(ALICE))
    def test_given_a_missing_field_when_registering_then_400_names_it(self, field):
        response = post("users/register/", {k: v for k, v in ALICE.items() if k != field})
        assert wrong_fields(response) == [field]

    @pytest.mark.parametrize("field", sorted(PRIVILEGES))
    def test_given_a_privileged_field_when_registering_then_400_and_nobody_is_made(self, field):
        assert wrong_fields(register(**{field: PRIVILEGES[field]})) == [field]
        assert not User.objects.exists()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("email", "not-an-email"),
            ("email", "ünïcode@example.com"),
            ("email", "a" * 250 + "@example.com"),
            ("email", 5),
            ("email", "a\x00b@example.com"),
            ("password", "short"),
            ("password", "1234567890123"),
            ("password", "password123"),
            ("password", "alice@example.com"),
            ("password", "x7" * 65),
            ("password", 1234567890),
            ("password", "correct\x00horse battery"),
            ("first_name", ""),
            ("first_name", "   "),
            ("first_name", "x" * 101),
            ("first_name", "Al\x07ice"),
            ("first_name", "Al\x00ice"),
            ("first_name", "Alice\u202eecila"),
            ("first_name", None),
            ("first_name", ["Alice"]),
            ("first_name", True),
            ("last_name", {"a": 1}),
            ("phone_number", "015112345678"),
            ("phone_number", "+0151123456"),
            ("phone_number", "+49 151 12345678"),
            ("phone_number", "+491511234567890123"),
            ("phone_number", "+49151abc5678"),
            ("phone_number", "+٤٩١٥١١٢٣٤٥٦٧٨"),
            ("phone_number", "+99912345678"),
            ("phone_number", None),
            ("phone_number", 4915112345678),
        ],
    )
    def test_given_a_bad_value_when_registering_then_400_names_the_field(self, field, value):
        assert set(wrong_fields(register(**{field: value}))) == {field}

    @pytest.mark.parametrize("email", ["\u212aelly@example.com", "bob@\u212aelly.example"])
    def test_given_a_letter_whose_lower_case_is_ascii_when_registering_then_400(self, email):
        """The Kelvin sign becomes an ordinary k."""
        response = post("users/register/", ALICE | {"email": email})
        assert wrong_fields(response) == ["email"]
        assert refusal(login(email)) == (400, "validation_error")

    @pytest.mark.parametrize("body", [[], "x", 5, None, [ALICE]])
    def test_given_a_body_that_is_no_object_when_registering_then_400(self, body):
        assert refusal(post("users/register/", body)) == (400, "validation_error")

    @pytest.mark.parametrize("body", ["{", '{"first_name": "\\ud83d"}', '{"\\ud800": 1}', "\xff"])
    def test_given_broken_json_when_registering_then_parse_error(self, body):
        response = post("users/register/", body, content_type="application/json")
        assert refusal(response) == (400, "parse_error")

    def test_given_a_form_when_registering_then_415(self):
        response = post("users/register/", "a=b", content_type="application/x-www-form-urlencoded")
        assert refusal(response) == (415, "unsupported_media_type")

    @pytest.mark.parametrize(
        "email", ["alice@example.com", "ALICE@EXAMPLE.COM", " Alice@example.com "]
    )
    def test_given_the_email_is_taken_in_any_case_when_registering_then_400(self, email):
        UserFactory(email="alice@example.com")
        assert wrong_fields(register(email=email)) == ["email"]

    def test_given_the_phone_number_is_taken_when_registering_then_400(self):
        UserFactory(phone_number=ALICE["phone_number"])
        assert wrong_fields(register()) == ["phone_number"]

    def test_given_names_with_many_spaces_when_registering_then_they_are_tidied(self):
        body = register(first_name="  Anna   Maria ", last_name="Mu\u0308ller").json()
        assert (body["first_name"], body["last_name"]) == ("Anna Maria", "Müller")

    def test_given_a_registered_user_when_signing_in_in_capitals_then_it_works(self):
        register()
        assert login("ALICE@example.COM", PASSWORD).status_code == 200


@pytest.mark.django_db(transaction=True)
class TestRegisterAtOnce:
    def test_given_identical_requests_at_once_when_registering_then_one_user_and_no_500(self):
        responses = at_once(*[register] * 4)
        assert sorted(r.status_code for r in responses) == [201, 400, 400, 400]
        for response in responses:
            if response.status_code == 400:
                assert wrong_fields(response) in (["email"], ["phone_number"])
        assert User.objects.count() == 1
