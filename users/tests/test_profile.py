from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from users.models import User
from users.tests.factories import StaffFactory, UserFactory, client_for
from users.tests.helpers import at_once, get, patch, refusal, wrong_fields


@pytest.mark.django_db
class TestMe:
    def test_given_a_caller_when_reading_oneself_then_the_contract_fields(self):
        alice = UserFactory(first_name="Alice")
        body = get("users/me/", client_for(alice)).json()
        assert body["first_name"] == "Alice"
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

    def test_given_new_facts_when_patching_then_only_they_change(self):
        alice = UserFactory(first_name="Alice", last_name="Archer")
        response = patch("users/me/", {"first_name": "Alicia"}, client_for(alice))
        assert response.status_code == 200
        alice.refresh_from_db()
        assert (alice.first_name, alice.last_name) == ("Alicia", "Archer")

    def test_given_nothing_when_patching_then_200_and_nothing_changes(self):
        alice = UserFactory()
        assert patch("users/me/", {}, client_for(alice)).json()["email"] == alice.email

    @pytest.mark.parametrize(
        "field",
        [
            "email",
            "is_staff",
            "is_superuser",
            "is_active",
            "kyc_status",
            "kyc_rejection_reason",
            "password",
            "balance",
            "tier",
            "date_joined",
            "id",
            "date_of_birth",
        ],
    )
    def test_given_a_field_that_is_not_the_users_when_patching_then_400(self, field):
        client = client_for(UserFactory())
        assert wrong_fields(patch("users/me/", {field: "approved"}, client)) == [field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [("first_name", ""), ("last_name", None), ("phone_number", None), ("phone_number", "12")],
    )
    def test_given_a_bad_value_when_patching_then_400(self, field, value):
        client = client_for(UserFactory())
        assert wrong_fields(patch("users/me/", {field: value}, client)) == [field]

    @pytest.mark.parametrize("kyc", ["pending", "approved"])
    @pytest.mark.parametrize("field", ["first_name", "last_name"])
    def test_given_kyc_is_under_way_or_done_when_renaming_then_409(self, kyc, field):
        alice = UserFactory(kyc=kyc)
        client = client_for(alice)
        assert refusal(patch("users/me/", {field: "Other"}, client)) == (409, "invalid_state")
        assert patch("users/me/", {"phone_number": "+4915199999999"}, client).status_code == 200
        assert patch("users/me/", {field: getattr(alice, field)}, client).status_code == 200

    def test_given_a_rejection_when_renaming_then_200(self):
        client = client_for(UserFactory(kyc="rejected"))
        assert patch("users/me/", {"first_name": "Other"}, client).status_code == 200

    def test_given_somebodys_phone_number_when_patching_then_400(self):
        alice, bob = UserFactory(), UserFactory()
        response = patch("users/me/", {"phone_number": bob.phone_number}, client_for(alice))
        assert wrong_fields(response) == ["phone_number"]

    def test_given_put_or_delete_when_calling_then_405(self):
        client = client_for(UserFactory())
        for method in (client.put, client.delete):
            assert refusal(method("/api/v1/users/me/")) == (405, "method_not_allowed")

    def test_given_names_when_shown_to_others_then_the_last_one_is_an_initial(self):
        assert User(first_name="Bob", last_name="Tailor").display_name == "Bob T."
        assert User(first_name="", last_name="").display_name == ""


@pytest.mark.django_db(transaction=True)
def test_given_one_number_at_once_when_two_patch_then_one_gets_it():
    clients = [client_for(UserFactory()) for _ in range(2)]
    body = {"phone_number": "+4915199999999"}
    responses = at_once(*[lambda c=c: patch("users/me/", body, c) for c in clients])
    assert sorted(response.status_code for response in responses) == [200, 400]


@pytest.mark.django_db
class TestStaffReads:
    PATHS = ["users/", "users/{}/"]

    @pytest.mark.parametrize("path", PATHS)
    def test_given_no_staff_when_reading_others_then_403_whether_they_exist_or_not(self, path):
        alice, bob = UserFactory(), UserFactory()
        for subject in (bob.pk, alice.pk, uuid4()):
            response = get(path.format(subject), client_for(alice))
            assert refusal(response) == (403, "permission_denied")

    @pytest.mark.parametrize("path", PATHS)
    def test_given_nobody_when_reading_others_then_401(self, path):
        assert refusal(get(path.format(uuid4()), APIClient())) == (401, "not_authenticated")

    def test_given_staff_when_reading_a_user_then_200_or_404(self):
        client, bob = client_for(StaffFactory()), UserFactory()
        assert get(f"users/{bob.pk}/", client).json()["email"] == bob.email
        assert refusal(get(f"users/{uuid4()}/", client)) == (404, "not_found")
        assert refusal(get("users/not-an-id/", client)) == (404, "not_found")

    def test_given_demoted_staff_when_using_an_old_token_then_403_at_once(self):
        boss = StaffFactory()
        client = client_for(boss)
        User.objects.filter(pk=boss.pk).update(is_staff=False)
        assert refusal(get("users/", client)) == (403, "permission_denied")

    def test_given_users_when_listing_then_newest_first_in_pages(self):
        people = [UserFactory() for _ in range(3)]
        client = client_for(StaffFactory())
        page = get("users/", client, page_size=2).json()
        assert set(page) == {"results", "next", "previous"}
        rest = client.get(page["next"]).json()
        listed = [row["id"] for row in page["results"] + rest["results"]]
        assert listed[1:] == [str(person.pk) for person in reversed(people)]

    def test_given_a_status_when_filtering_then_only_those(self):
        UserFactory()
        waiting = UserFactory(kyc="pending")
        client = client_for(StaffFactory())
        rows = get("users/", client, kyc_status="pending").json()["results"]
        assert [row["id"] for row in rows] == [str(waiting.pk)]
        assert wrong_fields(get("users/", client, kyc_status="x")) == ["kyc_status"]

    @pytest.mark.parametrize(
        "text",
        [
            "zoe@",
            "ZOE@example",
            "Zo",
            "zimm",
            "zoe zimmer",
            "Zimmermann Zoe",
            "+4917012",
            "4917012",
        ],
    )
    def test_given_beginnings_when_searching_then_found(self, text):
        zoe = UserFactory(
            email="zoe@example.com",
            first_name="Zoe",
            last_name="Zimmermann",
            phone_number="+491701234567",
        )
        UserFactory(first_name="Max", last_name="Zimt")
        rows = get("users/", client_for(StaffFactory()), search=text).json()["results"]
        assert [row["id"] for row in rows] == [str(zoe.pk)]

    def test_given_an_id_when_searching_then_found(self):
        bob = UserFactory()
        rows = get("users/", client_for(StaffFactory()), search=str(bob.pk)).json()["results"]
        assert [row["id"] for row in rows] == [str(bob.pk)]

    @pytest.mark.parametrize("text", ["%", "_", "\\", "' OR 1=1 --", "zzz zzz", "\U0001f600"])
    def test_given_strange_text_when_searching_then_nobody(self, text):
        UserFactory()
        rows = get("users/", client_for(StaffFactory()), search=text).json()["results"]
        assert rows == []

    @pytest.mark.parametrize("query", [{"search": "\x00"}, {"search": "x" * 300}, {"cursor": "?"}])
    def test_given_a_bad_query_when_listing_then_400(self, query):
        response = get("users/", client_for(StaffFactory()), **query)
        assert wrong_fields(response) == list(query)

    def test_given_a_search_when_planned_then_every_part_is_an_index_range(self, owner):
        from users import queries

        found = queries.search_users(User.objects.order_by(), "zoe")
        owner.execute("SET enable_seqscan = off")
        owner.execute(
            "EXPLAIN " + str(found.query).replace("zoe%", "'zoe%'").replace("ZOE%", "'ZOE%'")
        )
        plan = "\n".join(row[0] for row in owner.fetchall())
        for index in (
            "users_user_email_is_unique",
            "users_user_first_name_prefix",
            "users_user_last_name_prefix",
        ):
            assert index in plan
        assert "Index Cond" in plan
