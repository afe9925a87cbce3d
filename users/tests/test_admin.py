"""What staff do about users: review KYC, deactivate, let other staff in."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from users.models import KYCDocumentAccess, KYCStatus, KYCStep, User
from users.tests.factories import (
    PASSWORD,
    ReviewerFactory,
    StaffFactory,
    UserFactory,
    sign_in,
    submit_kyc,
)

pytestmark = pytest.mark.django_db

USERS = "/admin/users/user/"
VIEW = ["users.view_user", "users.view_kycsubmission", "users.view_kycstep"]
# What a browser sends of the KYC tables below the form, which have no fields.
NO_INLINES = {
    f"{table}-{count}_FORMS": "0"
    for table in ("kyc_submissions", "kyc_steps")
    for count in ("TOTAL", "INITIAL")
}
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + b"\x00" * 64


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page_of(user: User, word: str = "change") -> str:
    return f"{USERS}{user.pk}/{word}/"


def text_of(response: Any) -> str:
    return response.content.decode()


@pytest.fixture
def reviewer() -> User:
    user = ReviewerFactory(email="reviewer@example.com")
    return grant(user, *VIEW)


def grant(user: User, *names: str) -> User:
    from django.contrib.auth.models import Permission

    for name in names:
        app, _, codename = name.partition(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    return user


@pytest.fixture
def root() -> User:
    return UserFactory(email="root@example.com", is_staff=True, is_superuser=True)


@pytest.fixture
def waiting() -> User:
    """Somebody whose KYC waits, with a document."""
    user = UserFactory(email="waiting@example.com")
    submit_kyc(user, document_file=SimpleUploadedFile("passport.png", PNG))
    user.refresh_from_db()
    return user


class TestReview:
    def test_given_the_filter_when_listing_then_those_who_wait_first_come_first(
        self, reviewer, waiting
    ):
        second = UserFactory(kyc="pending")
        UserFactory(kyc="approved")
        response = client_of(reviewer).get(f"{USERS}?kyc_status__exact=pending")
        assert list(response.context["cl"].result_list) == [waiting, second]

    def test_given_a_submission_when_a_reviewer_looks_then_everything_is_there(
        self, reviewer, waiting
    ):
        page = text_of(client_of(reviewer).get(page_of(waiting)))
        submission = waiting.kyc_submissions.get()
        assert "C01X00T47" in page
        assert "1 High Street, SW1A 1AA London, GB" in page
        assert f"/admin/users/user/documents/{submission.pk}/" in page
        assert page_of(waiting, "approve-kyc") in page

    def test_given_a_submission_when_other_staff_look_then_number_and_document_are_withheld(
        self, waiting
    ):
        page = text_of(client_of(StaffFactory(permissions=VIEW)).get(page_of(waiting)))
        assert "C01X00T47" not in page
        assert "•••0T47" in page
        assert "/admin/users/user/documents/" not in page
        assert "Declared identity" not in page
        assert "1 High Street" not in page
        assert "1990-05-17" not in page
        assert "approve-kyc" not in page

    def test_given_a_document_when_a_reviewer_reads_it_then_served_and_recorded(
        self, reviewer, waiting
    ):
        submission = waiting.kyc_submissions.get()
        response = client_of(reviewer).get(f"/admin/users/user/documents/{submission.pk}/")
        assert response.status_code == 200
        assert b"".join(response.streaming_content) == PNG
        assert response["Content-Disposition"].startswith("attachment")
        assert "sandbox" in response["Content-Security-Policy"]
        assert KYCDocumentAccess.objects.get().reader == reviewer

    def test_given_a_document_when_others_ask_for_it_then_refused(self, waiting):
        path = f"/admin/users/user/documents/{waiting.kyc_submissions.get().pk}/"
        assert Client().get(path).status_code == 302
        assert client_of(waiting).get(path).status_code == 302
        assert client_of(StaffFactory(permissions=VIEW)).get(path).status_code == 403
        assert not KYCDocumentAccess.objects.exists()

    def test_given_a_get_when_approving_then_only_asked(self, reviewer, waiting):
        response = client_of(reviewer).get(page_of(waiting, "approve-kyc"))
        assert response.status_code == 200
        assert "Approve" in text_of(response)
        waiting.refresh_from_db()
        assert waiting.kyc_status == KYCStatus.PENDING

    def test_given_a_reviewer_when_approving_then_approved_and_recorded(self, reviewer, waiting):
        response = client_of(reviewer).post(page_of(waiting, "approve-kyc"), follow=True)
        assert "KYC approved." in text_of(response)
        waiting.refresh_from_db()
        assert waiting.kyc_status == KYCStatus.APPROVED
        step = KYCStep.objects.filter(user=waiting).latest("pk")
        assert (step.actor, step.to_status) == (reviewer, KYCStatus.APPROVED)
        logged = LogEntry.objects.get()
        assert (logged.user, logged.object_id) == (reviewer, str(waiting.pk))
        assert logged.get_change_message() == "KYC approved."

    def test_given_a_reason_when_rejecting_then_the_user_reads_it(self, reviewer, waiting):
        client = client_of(reviewer)
        client.post(page_of(waiting, "reject-kyc"), {"reason": "The photo is <b>unreadable</b>."})
        waiting.refresh_from_db()
        assert waiting.kyc_status == KYCStatus.REJECTED
        assert waiting.kyc_rejection_reason == "The photo is <b>unreadable</b>."
        assert "<b>unreadable" not in text_of(client.get(page_of(waiting)))

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\x1b[31mb", "a\u202eb"])
    def test_given_no_proper_reason_when_rejecting_then_asked_again(
        self, reviewer, waiting, reason
    ):
        response = client_of(reviewer).post(page_of(waiting, "reject-kyc"), {"reason": reason})
        assert response.status_code == 200
        waiting.refresh_from_db()
        assert waiting.kyc_status == KYCStatus.PENDING

    def test_given_oneself_when_approving_then_kindly_refused(self, reviewer):
        submit_kyc(reviewer)
        response = client_of(reviewer).post(page_of(reviewer, "approve-kyc"), follow=True)
        assert response.status_code == 200
        assert "Nobody decides about themselves." in text_of(response)
        reviewer.refresh_from_db()
        assert reviewer.kyc_status == KYCStatus.PENDING
        assert not LogEntry.objects.exists()

    def test_given_it_is_decided_when_approving_then_kindly_refused(self, reviewer):
        approved = UserFactory(kyc="approved")
        response = client_of(reviewer).post(page_of(approved, "approve-kyc"), follow=True)
        assert "KYC is approved, not pending." in text_of(response)

    def test_given_no_permission_when_deciding_then_403(self, waiting):
        client = client_of(StaffFactory(permissions=VIEW))
        assert client.post(page_of(waiting, "approve-kyc")).status_code == 403
        assert client.post(page_of(waiting, "reject-kyc"), {"reason": "No."}).status_code == 403
        waiting.refresh_from_db()
        assert waiting.kyc_status == KYCStatus.PENDING

    def test_given_no_csrf_token_when_deciding_then_403(self, reviewer, waiting):
        client = Client(enforce_csrf_checks=True)
        client.force_login(reviewer)
        assert client.post(page_of(waiting, "approve-kyc")).status_code == 403

    def test_given_an_unknown_user_when_deciding_then_no_error(self, reviewer):
        path = f"{USERS}0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11/approve-kyc/"
        assert client_of(reviewer).post(path).status_code == 302
        assert client_of(reviewer).post(f"{USERS}nobody/approve-kyc/").status_code == 302


class TestActivity:
    def test_given_the_permission_when_deactivating_then_every_session_ends(self):
        staff = StaffFactory(permissions=["users.view_user", "users.change_user"])
        customer = UserFactory()
        sign_in(customer)
        client_of(staff).post(page_of(customer, "deactivate"))
        customer.refresh_from_db()
        assert not customer.is_active
        assert customer.sessions.get().revoked_at is not None
        client_of(staff).post(page_of(customer, "activate"))
        customer.refresh_from_db()
        assert customer.is_active
        assert LogEntry.objects.filter(user=staff).count() == 2

    def test_given_no_permission_when_deactivating_then_403(self, reviewer):
        customer = UserFactory()
        assert client_of(reviewer).post(page_of(customer, "deactivate")).status_code == 403

    def test_given_oneself_when_deactivating_then_kindly_refused(self, root):
        response = client_of(root).post(page_of(root, "deactivate"), follow=True)
        assert "Nobody decides about themselves." in text_of(response)
        root.refresh_from_db()
        assert root.is_active

    def test_given_a_superuser_when_others_deactivate_them_then_kindly_refused(self, root):
        staff = StaffFactory(permissions=["users.view_user", "users.change_user"])
        response = client_of(staff).post(page_of(root, "deactivate"), follow=True)
        assert "Only a superuser may do this to a superuser." in text_of(response)
        root.refresh_from_db()
        assert root.is_active


class TestStaff:
    FORM = {
        "email": "New.Staff@Example.com",
        "first_name": "New",
        "last_name": "Staff",
        "password1": "a good long password",
        "password2": "a good long password",
    }

    def test_given_a_superuser_when_making_staff_then_they_can_sign_in(self, root):
        client = client_of(root)
        assert client.get(f"{USERS}add/").status_code == 200
        assert client.post(f"{USERS}add/", self.FORM).status_code == 302
        made = User.objects.get(email="new.staff@example.com")
        assert made.is_staff
        assert not made.is_superuser
        assert made.kyc_status == KYCStatus.NOT_SUBMITTED
        assert made.wallet.balance == 0
        credentials = {"username": made.email, "password": self.FORM["password1"]}
        assert Client().post("/admin/login/?next=/admin/", credentials).status_code == 302
        assert LogEntry.objects.get().user == root

    @pytest.mark.parametrize(
        "wrong",
        [
            {"password1": "short", "password2": "short"},
            {"password2": "something else"},
            {"email": "ROOT@example.com"},
            {"email": "nonsense"},
            {"first_name": "New\nLine"},
        ],
    )
    def test_given_a_wrong_field_when_making_staff_then_asked_again(self, root, wrong):
        response = client_of(root).post(f"{USERS}add/", self.FORM | wrong)
        assert response.status_code == 200
        assert not User.objects.filter(email="new.staff@example.com").exists()

    def test_given_no_superuser_when_making_staff_then_403(self):
        everything = ["users.add_user", "users.change_user", "users.view_user"]
        client = client_of(StaffFactory(permissions=everything))
        assert client.post(f"{USERS}add/", self.FORM).status_code == 403

    def test_given_a_superuser_when_setting_a_password_then_it_is_set_and_sessions_end(self, root):
        staff = StaffFactory()
        sign_in(staff)
        client = client_of(root)
        path = f"{USERS}{staff.pk}/password/"
        assert client.get(page_of(staff, "set-password"))["Location"] == path
        assert client.get(path).status_code == 200
        form = {"password1": "a good long password", "password2": "a good long password"}
        assert client.post(path, form).status_code == 302
        staff.refresh_from_db()
        assert staff.check_password("a good long password")
        assert staff.sessions.get().revoked_at is not None

    def test_given_no_superuser_when_setting_a_password_then_403(self, root):
        staff = StaffFactory(permissions=["users.view_user", "users.change_user"])
        form = {"password1": "a good long password", "password2": "a good long password"}
        assert client_of(staff).post(f"{USERS}{root.pk}/password/", form).status_code == 403
        root.refresh_from_db()
        assert root.check_password(PASSWORD)

    def test_given_a_superuser_when_saving_a_user_then_only_access_changes(self, root):
        customer = UserFactory(kyc="approved")
        before = User.objects.values().get(pk=customer.pk)
        form = {
            "email": "thief@example.com",
            "first_name": "Thief",
            "phone_number": "+4915100000099",
            "kyc_status": "not_submitted",
            "is_active": "",
            "is_staff": "on",
            **NO_INLINES,
        }
        assert client_of(root).post(page_of(customer), form).status_code == 302
        assert User.objects.values().get(pk=customer.pk) == before | {"is_staff": True}

    def test_given_oneself_when_saving_then_ones_own_access_stays(self, root):
        form = {"is_superuser": "", "is_staff": "", **NO_INLINES}
        assert client_of(root).post(page_of(root), form).status_code == 302
        root.refresh_from_db()
        assert root.is_superuser
        assert root.is_staff

    def test_given_change_permission_alone_when_posting_powers_then_403(self):
        staff = StaffFactory(permissions=["users.view_user", "users.change_user"])
        response = client_of(staff).post(page_of(staff), {"is_superuser": "on", "is_staff": "on"})
        assert response.status_code == 403
        staff.refresh_from_db()
        assert not staff.is_superuser

    def test_given_a_superuser_when_deleting_a_user_then_403(self, root):
        customer = UserFactory()
        assert client_of(root).post(page_of(customer, "delete"), {"post": "yes"}).status_code == 403
        assert User.objects.filter(pk=customer.pk).exists()

    def test_given_no_superuser_when_changing_groups_then_403(self):
        staff = StaffFactory(permissions=["auth.add_group", "auth.change_group", "auth.view_group"])
        client = client_of(staff)
        assert client.post("/admin/auth/group/add/", {"name": "Mine"}).status_code == 403
