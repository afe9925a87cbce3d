from dataclasses import replace
from datetime import date
from uuid import uuid4

import pytest
from django.db import connection
from rest_framework.exceptions import ValidationError
from rest_framework.test import APIClient

from fintech_core.exceptions import InvalidState
from users import services
from users.models import KYCStep, KYCSubmission, User
from users.tests.factories import (
    IDENTITY,
    TODAY,
    ReviewerFactory,
    StaffFactory,
    UserFactory,
    client_for,
    submit_kyc,
)
from users.tests.helpers import at_once, get, post, refusal, refused_by, wrong_fields

SUBMISSION = {
    "document_type": "passport",
    "document_number": "C01X00T47",
    "date_of_birth": "1990-05-17",
    "address_line1": "1 High Street",
    "address_line2": "Flat 2",
    "city": "London",
    "postal_code": "SW1A 1AA",
    "country": "GB",
}


def submit(client, **changes):
    body = {name: value for name, value in {**SUBMISSION, **changes}.items() if value is not ...}
    return post("users/me/kyc/", body, client)


def approve(client, user):
    return post(f"users/{user.pk}/kyc/approve/", {}, client)


def reject(client, user, reason="Unreadable."):
    return post(f"users/{user.pk}/kyc/reject/", {"reason": reason}, client)


@pytest.mark.django_db
class TestSubmit:
    def test_given_a_new_user_when_submitting_then_202_and_pending(self):
        alice = UserFactory()
        response = submit(client_for(alice))
        assert response.status_code == 202
        body = response.json()
        assert body["kyc_status"] == "pending"
        assert body["submission"]["document_number"] == "•••0T47"
        assert [step["to_status"] for step in body["steps"]] == ["pending", "not_submitted"]
        alice.refresh_from_db()
        assert (alice.kyc_status, alice.city, alice.date_of_birth) == (
            "pending",
            "London",
            date(1990, 5, 17),
        )

    def test_given_a_submission_when_reading_ones_kyc_then_the_same(self):
        client = client_for(UserFactory())
        assert get("users/me/kyc/", client).json()["submission"] is None
        assert get("users/me/kyc/", client).json()["kyc_status"] == "not_submitted"
        assert submit(client).json() == get("users/me/kyc/", client).json()

    @pytest.mark.parametrize("status", ["pending", "approved"])
    def test_given_pending_or_approved_when_submitting_then_409(self, status):
        alice = UserFactory(kyc=status)
        assert refusal(submit(client_for(alice))) == (409, "invalid_state")
        assert KYCSubmission.objects.count() == 1

    def test_given_a_rejection_when_submitting_again_then_pending_and_both_are_kept(self):
        alice = UserFactory(kyc="rejected")
        response = submit(client_for(alice), city="Paris")
        assert response.status_code == 202
        assert response.json()["kyc_rejection_reason"] == ""
        assert KYCSubmission.objects.filter(user=alice).count() == 2
        alice.refresh_from_db()
        assert alice.city == "Paris"

    @pytest.mark.parametrize("field", sorted(set(SUBMISSION) - {"address_line2"}))
    def test_given_a_missing_field_when_submitting_then_400(self, field):
        assert wrong_fields(submit(client_for(UserFactory()), **{field: ...})) == [field]

    def test_given_a_birth_before_the_books_could_begin_when_submitting_then_202(self):
        assert submit(client_for(UserFactory()), date_of_birth="1931-02-28").status_code == 202

    def test_given_no_second_address_line_when_submitting_then_202(self):
        assert submit(client_for(UserFactory()), address_line2=...).status_code == 202

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("document_type", "library_card"),
            ("document_number", ""),
            ("document_number", "x" * 65),
            ("document_number", "12\n34"),
            ("date_of_birth", "17.05.1990"),
            ("date_of_birth", "1990-02-30"),
            ("date_of_birth", "1850-01-01"),
            ("date_of_birth", "3000-01-01"),
            ("date_of_birth", 19900517),
            ("date_of_birth", "1990-5-17"),
            ("date_of_birth", "19900517"),
            ("date_of_birth", "1990-W20-4"),
            ("date_of_birth", " 1990-05-17"),
            ("date_of_birth", "1990-05-17T00:00:00Z"),
            ("date_of_birth", "\uff11990-05-17"),
            ("date_of_birth", ""),
            ("date_of_birth", None),
            ("address_line1", "x" * 201),
            ("address_line1", 5),
            ("city", ["London"]),
            ("postal_code", ""),
            ("country", "gb"),
            ("country", "GBR"),
            ("country", "XX"),
            ("country", None),
            ("document_file", "a.pdf"),
            ("kyc_status", "approved"),
            ("user", "0192f3f4-6f0e-7c1a-9d55-3f2f6c0e9a01"),
            ("is_staff", True),
        ],
    )
    def test_given_a_bad_value_when_submitting_then_400(self, field, value):
        assert wrong_fields(submit(client_for(UserFactory()), **{field: value})) == [field]

    @pytest.mark.parametrize(
        ("born", "today", "old_enough"),
        [
            (date(2008, 11, 22), TODAY, True),
            (date(2008, 11, 23), TODAY, False),
            (date(2008, 2, 29), date(2026, 2, 28), False),
            (date(2008, 2, 29), date(2026, 3, 1), True),
            (TODAY, TODAY, False),
            (date(2027, 1, 1), TODAY, False),
        ],
    )
    def test_given_a_birthday_when_submitting_then_18_counts_from_that_day(
        self, born, today, old_enough
    ):
        alice = UserFactory()
        identity = replace(IDENTITY, date_of_birth=born)
        if old_enough:
            assert submit_kyc(alice, identity=identity, today=today).kyc_status == "pending"
            return
        with pytest.raises(ValidationError) as refused:
            submit_kyc(alice, identity=identity, today=today)
        assert refused.value.get_codes() == {"date_of_birth": ["under_age"]}

    def test_given_nobody_when_submitting_then_401(self):
        assert refusal(submit(APIClient())) == (401, "not_authenticated")

    def test_given_a_document_number_when_stored_then_it_is_encrypted(self, settings):
        UserFactory(kyc="pending")
        with connection.cursor() as cursor:
            cursor.execute("SELECT document_number FROM users_kycsubmission")
            (stored,) = cursor.fetchone()
        assert "C01X00T47" not in stored
        assert KYCSubmission.objects.get().document_number == "C01X00T47"
        # A new key in front: what the old one wrote is still read.
        new = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
        settings.FIELD_ENCRYPTION_KEYS = [new, *settings.FIELD_ENCRYPTION_KEYS]
        assert KYCSubmission.objects.get().document_number == "C01X00T47"


@pytest.mark.django_db
class TestReview:
    def test_given_a_pending_submission_when_approving_then_200_and_it_is_recorded(self):
        alice, judge = UserFactory(kyc="pending"), ReviewerFactory()
        response = approve(client_for(judge), alice)
        assert response.status_code == 200
        assert response.json()["kyc_status"] == "approved"
        step = alice.kyc_steps.latest("id")
        assert (step.from_status, step.to_status, step.actor) == ("pending", "approved", judge)
        assert step.submission == alice.kyc_submissions.get()

    def test_given_a_pending_submission_when_rejecting_then_the_user_reads_why(self):
        alice = UserFactory(kyc="pending")
        response = reject(client_for(ReviewerFactory()), alice, "The photo\nis unreadable.")
        assert response.status_code == 200
        body = get("users/me/", client_for(alice)).json()
        assert body["kyc_status"] == "rejected"
        assert body["kyc_rejection_reason"] == "The photo\nis unreadable."
        assert alice.kyc_steps.latest("id").reason == "The photo\nis unreadable."

    @pytest.mark.parametrize("status", ["not_submitted", "approved", "rejected"])
    @pytest.mark.parametrize("verdict", [approve, reject])
    def test_given_another_state_when_reviewing_then_409(self, status, verdict):
        alice = UserFactory(kyc=status)
        response = verdict(client_for(ReviewerFactory()), alice)
        assert refusal(response) == (409, "invalid_state")

    @pytest.mark.parametrize("verdict", [approve, reject])
    def test_given_a_reviewers_own_submission_when_reviewing_then_403(self, verdict):
        judge = ReviewerFactory(kyc="pending")
        assert refusal(verdict(client_for(judge), judge)) == (403, "permission_denied")
        judge.refresh_from_db()
        assert judge.kyc_status == "pending"

    @pytest.mark.parametrize("verdict", [approve, reject])
    def test_given_a_superuser_when_reviewing_themselves_then_403(self, verdict):
        root = UserFactory(kyc="pending", is_staff=True, is_superuser=True)
        assert refusal(verdict(client_for(root), root)) == (403, "permission_denied")

    @pytest.mark.parametrize("verdict", [approve, reject])
    def test_given_no_reviewer_when_reviewing_then_403_whether_the_user_exists_or_not(
        self, verdict
    ):
        waiting, nobody = UserFactory(kyc="pending"), User(pk=uuid4())
        for caller in (UserFactory(), StaffFactory()):
            for subject in (waiting, nobody, caller):
                response = verdict(client_for(caller), subject)
                assert refusal(response) == (403, "permission_denied")
        assert refusal(verdict(APIClient(), waiting)) == (401, "not_authenticated")

    @pytest.mark.parametrize("verdict", [approve, reject])
    def test_given_an_unknown_user_when_reviewing_then_404(self, verdict):
        client = client_for(ReviewerFactory())
        assert refusal(verdict(client, User(pk=uuid4()))) == (404, "not_found")
        assert refusal(post("users/nonsense/kyc/approve/", {}, client)) == (404, "not_found")

    @pytest.mark.parametrize(
        "body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 501}, {"reason": 5}]
    )
    def test_given_no_proper_reason_when_rejecting_then_400(self, body):
        alice = UserFactory(kyc="pending")
        response = post(f"users/{alice.pk}/kyc/reject/", body, client_for(ReviewerFactory()))
        assert wrong_fields(response) == ["reason"]

    def test_given_a_body_when_approving_then_400(self):
        alice = UserFactory(kyc="pending")
        client = client_for(ReviewerFactory())
        response = post(f"users/{alice.pk}/kyc/approve/", {"reason": "x"}, client)
        assert wrong_fields(response) == ["reason"]

    def test_given_a_revoked_permission_when_approving_then_the_service_refuses(self):
        alice, judge = UserFactory(kyc="pending"), ReviewerFactory()
        assert judge.has_perm("users.review_kyc")  # now cached on the object
        judge.user_permissions.clear()
        with pytest.raises(services.NotPermitted):
            services.approve_kyc(user_id=alice.pk, reviewer=judge)

    def test_given_a_deactivated_reviewer_when_approving_then_the_service_refuses(self):
        alice, judge = UserFactory(kyc="pending"), ReviewerFactory()
        User.objects.filter(pk=judge.pk).update(is_active=False)
        with pytest.raises(services.NotPermitted):
            services.approve_kyc(user_id=alice.pk, reviewer=judge)


@pytest.mark.django_db
class TestSetActive:
    def test_given_no_right_or_oneself_when_deactivating_then_refused(self):
        alice, boss = UserFactory(), StaffFactory(permissions=["users.change_user"])
        with pytest.raises(services.NotPermitted):
            services.set_active(user_id=alice.pk, is_active=False, actor=StaffFactory())
        with pytest.raises(services.NotOnOneself):
            services.set_active(user_id=boss.pk, is_active=False, actor=boss)


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def test_given_two_verdicts_at_once_when_reviewing_then_one_counts(self):
        alice, judge = UserFactory(kyc="pending"), ReviewerFactory()
        results = at_once(
            lambda: services.approve_kyc(user_id=alice.pk, reviewer=judge),
            lambda: services.reject_kyc(user_id=alice.pk, reviewer=judge, reason="No."),
            lambda: services.approve_kyc(user_id=alice.pk, reviewer=judge),
        )
        assert [isinstance(result, InvalidState) for result in results].count(True) == 2
        assert alice.kyc_steps.count() == 3

    def test_given_two_submissions_at_once_when_submitting_then_one_counts(self):
        alice = UserFactory()
        results = at_once(*[lambda: submit_kyc(alice)] * 3)
        assert [isinstance(result, InvalidState) for result in results].count(True) == 2
        assert KYCSubmission.objects.count() == 1


def sql(statement, *values):
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


@pytest.mark.django_db(transaction=True)
class TestDatabaseRules:
    """What PostgreSQL refuses, whoever asks."""

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("not_submitted", "approved"),
            ("not_submitted", "rejected"),
            ("pending", "not_submitted"),
            ("approved", "pending"),
            ("approved", "rejected"),
            ("rejected", "approved"),
            ("rejected", "not_submitted"),
        ],
    )
    def test_given_an_unknown_step_when_updating_then_refused(self, before, after):
        alice = UserFactory(kyc=before)
        with refused_by("users_user_kyc_status_step"):
            sql("UPDATE users_user SET kyc_status = %s WHERE id = %s", after, alice.pk)

    def test_given_a_known_step_without_a_record_when_committing_then_refused(self):
        alice = UserFactory(kyc="pending")
        with refused_by("users_user_kyc_status_is_recorded"):
            sql("UPDATE users_user SET kyc_status = 'approved' WHERE id = %s", alice.pk)

    def test_given_a_record_without_its_step_when_committing_then_refused(self):
        alice, judge = UserFactory(kyc="pending"), ReviewerFactory()
        with refused_by("users_user_kyc_status_is_recorded"):
            KYCStep.objects.create(
                user=alice,
                submission=alice.kyc_submissions.get(),
                from_status="pending",
                to_status="approved",
                actor=judge,
            )

    def test_given_a_nonexistent_status_when_updating_then_refused(self):
        alice = UserFactory()
        with refused_by("users_user_kyc_status_step"):
            sql("UPDATE users_user SET kyc_status = 'vip' WHERE id = %s", alice.pk)

    def test_given_an_approved_newcomer_when_inserting_then_refused(self):
        with refused_by("users_user_kyc_status_step"):
            User.objects.create(email="a@example.com", kyc_status="approved")

    def test_given_a_newcomer_without_a_record_when_committing_then_refused(self):
        with refused_by("users_user_kyc_status_is_recorded"):
            User.objects.bulk_create([User(email="a@example.com")])

    def test_given_self_approval_when_recording_then_refused(self):
        alice = UserFactory(kyc="pending")
        with refused_by("users_kycstep_nobody_reviews_themselves"):
            KYCStep.objects.create(
                user=alice,
                submission=alice.kyc_submissions.get(),
                from_status="pending",
                to_status="approved",
                actor=alice,
            )

    def test_given_a_step_that_does_not_follow_when_recording_then_refused(self):
        alice, judge = UserFactory(kyc="rejected"), ReviewerFactory()
        with refused_by("users_kycstep_is_a_chain"):
            KYCStep.objects.create(
                user=alice,
                submission=alice.kyc_submissions.get(),
                from_status="pending",
                to_status="approved",
                actor=judge,
            )

    def test_given_somebody_elses_submission_when_recording_then_refused(self):
        alice, bob, judge = (
            UserFactory(kyc="pending"),
            UserFactory(kyc="pending"),
            ReviewerFactory(),
        )
        with refused_by("users_kycstep_submission_is_the_users"):
            sql("UPDATE users_user SET kyc_status = 'approved' WHERE id = %s", alice.pk)
            KYCStep.objects.create(
                user=alice,
                submission=bob.kyc_submissions.get(),
                from_status="pending",
                to_status="approved",
                actor=judge,
            )

    @pytest.mark.parametrize("column", ["first_name", "last_name"])
    @pytest.mark.parametrize("status", ["pending", "approved"])
    def test_given_frozen_names_when_updating_then_refused(self, column, status):
        alice = UserFactory(kyc=status)
        with refused_by("users_user_names_are_frozen"):
            User.objects.filter(pk=alice.pk).update(**{column: "Other"})

    @pytest.mark.parametrize("status", ["not_submitted", "pending", "approved", "rejected"])
    def test_given_identity_facts_when_updating_without_a_submission_then_refused(self, status):
        alice = UserFactory(kyc=status)
        with refused_by("users_user_identity_is_frozen"):
            User.objects.filter(pk=alice.pk).update(city="Elsewhere")

    def test_given_an_email_in_capitals_when_updating_then_refused(self):
        alice = UserFactory()
        with refused_by("users_user_email_is_lower_case"):
            sql("UPDATE users_user SET email = 'Alice@x.com' WHERE id = %s", alice.pk)

    def test_given_a_number_that_is_not_e164_when_updating_then_refused(self):
        alice = UserFactory()
        with refused_by("users_user_phone_number_is_e164"):
            sql("UPDATE users_user SET phone_number = '0151' WHERE id = %s", alice.pk)

    @pytest.mark.parametrize(
        ("table", "change"),
        [
            ("users_kycstep", "reason = 'x'"),
            ("users_kycsubmission", "city = 'x'"),
            ("users_kycdocumentaccess", "created_at = now()"),
        ],
    )
    def test_given_a_permanent_record_when_changed_by_the_owner_then_refused(
        self, table, change, owner
    ):
        from psycopg2.errors import CheckViolation

        alice = UserFactory(kyc="approved")
        owner.execute(
            "INSERT INTO users_kycdocumentaccess (submission_id, reader_id) "
            "SELECT id, user_id FROM users_kycsubmission WHERE user_id = %s",
            [alice.pk.hex],
        )
        for statement in (
            f"UPDATE {table} SET {change}",
            f"DELETE FROM {table}",
            f"TRUNCATE {table} CASCADE",
        ):
            with pytest.raises(CheckViolation, match="permanent record"):
                owner.execute(statement)

    @pytest.mark.parametrize(
        "table", ["users_kycstep", "users_kycsubmission", "users_kycdocumentaccess", "users_user"]
    )
    def test_given_the_serving_role_when_deleting_then_it_has_no_right(self, table):
        with connection.cursor() as cursor:
            cursor.execute("SELECT has_table_privilege(%s, 'DELETE, TRUNCATE')", [table])
            assert cursor.fetchone() == (False,)
