import pytest
from django.core.management import call_command
from django.db import models

from users.models import KYCSubmission, User


@pytest.mark.django_db
def test_given_two_superusers_without_a_phone_number_when_made_then_both_exist(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "correct horse battery staple")
    for name in ("Root@Example.com", "other@example.com"):
        call_command("createsuperuser", "--noinput", email=name, verbosity=0)
    root = User.objects.get(email="root@example.com")
    assert root.is_staff
    assert root.is_superuser
    assert root.phone_number is None
    assert root.kyc_steps.get().to_status == "not_submitted"


@pytest.mark.django_db
def test_given_an_encrypted_column_when_searched_then_refused():
    from django.core.exceptions import FieldError

    with pytest.raises(FieldError):
        KYCSubmission.objects.filter(document_number="C01X00T47").exists()
    assert isinstance(KYCSubmission._meta.get_field("document_number"), models.TextField)
