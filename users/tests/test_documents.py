import stat
import zlib
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import Http404
from django.test import RequestFactory
from django.test.client import encode_multipart

from users import pdf, services
from users.documents import DOCUMENT_MAX_BYTES
from users.models import KYCDocumentAccess, KYCSubmission
from users.tests.factories import (
    ReviewerFactory,
    StaffFactory,
    UserFactory,
    client_for,
    submit_kyc,
)
from users.tests.helpers import refusal, wrong_fields
from users.tests.test_kyc import SUBMISSION
from users.views import kyc_document

PDF = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer << /Root 1 0 R >>\n%%EOF\n"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + b"\x00" * 32 + b"IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"\x00" * 64 + b"\xff\xd9"


def pdf_with(body: bytes) -> bytes:
    return PDF.replace(b"/Type /Catalog", b"/Type /Catalog " + body)


SCRIPT = b"7 0 << /S /JavaScript /JS (app.alert(1)) >>"
PLAIN_STREAM = b"/Type /ObjStm /N 1 /First 4 /Filter /FlateDecode"


def pdf_hiding(
    objects: bytes, about: bytes = PLAIN_STREAM, opening: bytes = b">>\nstream\n"
) -> bytes:
    """The objects in a compressed stream, as PDF 1.5 allows."""
    packed = zlib.compress(objects)
    return (
        PDF
        + (b"2 0 obj\n<< " + about + b" /Length %d " % len(packed) + opening + packed)
        + b"\nendstream\nendobj\n"
    )


def hostile(*pieces: bytes) -> bytes:
    """Five megabytes of the same."""
    unit = b"".join(pieces)
    return (PDF + unit * (DOCUMENT_MAX_BYTES // len(unit)))[:DOCUMENT_MAX_BYTES]


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = str(tmp_path)
    return tmp_path


def upload(content, name="passport.pdf", media_type="application/pdf", client=None):
    document = SimpleUploadedFile(name, content, content_type=media_type)
    return (client or client_for(UserFactory())).post(
        "/api/v1/users/me/kyc/", {**SUBMISSION, "document_file": document}, format="multipart"
    )


def stored_files(media: Path) -> list[Path]:
    return [path for path in media.rglob("*") if path.is_file()]


@pytest.mark.django_db
class TestUpload:
    @pytest.mark.parametrize(
        ("content", "extension"),
        [
            (PDF, "pdf"),
            (PNG, "png"),
            (JPEG, "jpg"),
            (pdf_hiding(b"7 0 << /Type /Page >>"), "pdf"),
            (pdf_hiding(b"7 0 << /Type /Page >>", opening=b">>stream\r\n"), "pdf"),
            # A table of the objects; an image; a table of contents.
            (
                pdf_hiding(b"\x02\x01", b"/Type /XRef /DecodeParms << /Predictor 12 >>"),
                "pdf",
            ),
            (pdf_hiding(b"\xff" * 10_000, b"/Subtype /Image /Filter [/FlateDecode]"), "pdf"),
            (pdf_with(b"/Outlines << /First 4 0 R /Last 4 0 R >>"), "pdf"),
        ],
    )
    def test_given_a_document_when_uploaded_then_kept_privately_under_a_random_name(
        self, content, extension, media
    ):
        response = upload(content, name="../../alice passport.exe", media_type="text/html")
        assert response.status_code == 202
        assert response.json()["submission"]["has_document_file"] is True
        (path,) = stored_files(media)
        assert path.parent.parent == media / "kyc"
        assert path.suffix == f".{extension}"
        assert "alice" not in path.name
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_given_a_document_when_answering_then_no_address_of_it_is_given(self):
        assert "kyc/" not in upload(PDF).content.decode()

    @pytest.mark.parametrize(
        "content",
        [
            b"<html><script>alert(1)</script></html>",
            b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
            b'<svg onload="alert(1)"/>',
            b"GIF89a" + b"\x00" * 50,
            b"PK\x03\x04" + b"\x00" * 50,
            b"MZ" + b"\x00" * 50,
            b"%PD",
            b"\xef\xbb\xbf" + PDF,
            b"\n" + PDF,
            b"<html>" + PDF,
        ],
    )
    def test_given_another_type_under_the_name_of_a_pdf_when_uploaded_then_400(
        self, content, media
    ):
        response = upload(content)
        assert wrong_fields(response) == ["document_file"]
        assert response.json()["errors"][0]["code"] == "wrong_type"
        assert stored_files(media) == []

    @pytest.mark.parametrize(
        "content",
        [
            pdf_with(b"/OpenAction << /S /JavaScript /JS (app.alert(1)) >>"),
            pdf_with(b"/OpenAction << /S /J#61vaScript /JS (app.alert(1)) >>"),
            pdf_with(b"/OpenAction << /S /JavaScript% a comment\n/JS (app.alert(1)) >>"),
            pdf_with(b"/OpenAction << /S /Rendition /OP 0 /JS (app.alert(1)) >>"),
            pdf_with(b"/OpenAction << /S /GoToR /F (\\\\\\\\host\\\\share\\\\x.pdf) >>"),
            pdf_with(b"/OpenAction << /S /GoToE /T << /R /C /N (x) >> >>"),
            pdf_with(b"/AA << /O << /S /Launch /F (calc.exe) >> >>"),
            pdf_with(b"/AA << /O << /S /Launch%\n/F (calc.exe) >> >>"),
            pdf_with(b"/Names << /EmbeddedFiles%\n3 0 R >>"),
            pdf_with(b"/Names << /EmbeddedFiles 3 0 R >>"),
            pdf_with(b"/AcroForm << /XFA [3 0 R] >>"),
            pdf_with(b"/RichMedia << >>"),
            PDF.replace(b"trailer <<", b"trailer << /Encrypt 5 0 R"),
            pdf_hiding(SCRIPT),
            pdf_hiding(b"7 0 << /S /J#61vaScript >>"),
            # The same, where a reader finds it and a careless look does not.
            pdf_hiding(SCRIPT, PLAIN_STREAM + b" " * 5000),
            pdf_hiding(SCRIPT, opening=b">>\nstream\r"),
            pdf_hiding(SCRIPT, opening=b">>\nstream \n"),
            pdf_hiding(SCRIPT, opening=b">> % >>\nstream\n"),
            pdf_hiding(SCRIPT, PLAIN_STREAM.replace(b"ObjStm", b"Obj#53tm")),
            pdf_hiding(SCRIPT, PLAIN_STREAM + b" /X (stream)"),
            pdf_hiding(SCRIPT, b"/N 1 /First 4 /Filter /FlateDecode"),
            pdf_hiding(SCRIPT, b"/N 1 /First 4 /Filter /LZWDecode"),
            pdf_hiding(SCRIPT, b"/N 1 /First 4 /DecodeParms << /Predictor 12 >>"),
            pdf_hiding(SCRIPT, PLAIN_STREAM.replace(b"Flate", b"LZW")),
            pdf_hiding(SCRIPT, PLAIN_STREAM + b" /DecodeParms 9 0 R"),
            pdf_hiding(SCRIPT, PLAIN_STREAM.replace(b"/Flate", b"[/FlateDecode /Flate") + b"]"),
            pdf_hiding(b"7 0 << /Type /Page >>").replace(b"\nendstream", b"")[:-20],
            PDF + b"<script>alert(1)</script>",
            PNG + b"<script>alert(1)</script>",
            JPEG + b"<?php system($_GET['c']); ?>",
            PNG + PDF,
            JPEG + b"<!DOCTYPE html>",
        ],
    )
    def test_given_active_content_when_uploaded_then_400(self, content, media):
        response = upload(content)
        assert wrong_fields(response) == ["document_file"]
        assert response.json()["errors"][0]["code"] == "active"
        assert stored_files(media) == []

    @pytest.mark.parametrize(
        "content",
        [
            hostile(b"#23#23stream\n"),
            hostile(b"#20"),
            hostile(b">>\nstream\n"),
            hostile(b"1 0 obj<</ObjStm "),
            hostile(b">>\nstream\n", zlib.compress(b"1 0 " * 2_000_000), b"\nendstream\n"),
            hostile(b">>\nstream\n", zlib.compress(b"1 0 "), b"\nendstream\n"),
        ],
    )
    def test_given_a_file_made_to_be_slow_when_uploaded_then_400_after_bounded_work(
        self, content, monkeypatch
    ):
        scans = []

        class Watched(pdf.Scan):
            def __init__(self):
                super().__init__()
                scans.append(self)

        monkeypatch.setattr("users.documents.Scan", Watched)
        assert upload(content).json()["errors"][0]["code"] == "active"
        (scan,) = scans
        assert scan.escapes <= pdf.ESCAPES_MAX + 1
        assert scan.streams <= pdf.STREAMS_MAX + 1
        assert scan.inflated <= pdf.INFLATED_MAX_BYTES + 4096

    def test_given_kyc_under_review_when_uploading_then_409_before_the_file_is_looked_at(
        self, monkeypatch
    ):
        client = client_for(UserFactory(kyc="pending"))
        monkeypatch.setattr(services, "check_document", lambda _: pytest.fail("looked at"))
        assert refusal(upload(PDF, client=client)) == (409, "invalid_state")

    def test_given_a_harmless_open_action_when_uploaded_then_202(self):
        assert upload(pdf_with(b"/OpenAction [1 0 R /Fit]")).status_code == 202

    def test_given_5_mb_when_uploaded_then_202_and_one_byte_more_400(self):
        assert upload(PNG.ljust(5 * 1024 * 1024, b"\x00")).status_code == 202
        assert wrong_fields(upload(PNG.ljust(5 * 1024 * 1024 + 1, b"\x00"))) == ["document_file"]

    def test_given_far_more_when_uploaded_then_413(self):
        response = upload(PNG.ljust(7 * 1024 * 1024, b"\x00"))
        assert refusal(response) == (413, "payload_too_large")

    def test_given_an_empty_file_when_uploaded_then_400(self):
        assert wrong_fields(upload(b"")) == ["document_file"]

    def test_given_a_second_submission_when_refused_then_its_file_is_not_kept(self, media):
        client = client_for(UserFactory())
        upload(PDF, client=client)
        assert refusal(upload(PDF, client=client)) == (409, "invalid_state")
        assert len(stored_files(media)) == 1

    def test_given_a_failing_database_when_submitting_then_the_file_is_not_kept(
        self, media, monkeypatch
    ):
        alice = UserFactory()
        monkeypatch.setattr(services, "_step", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            submit_kyc(alice, document_file=SimpleUploadedFile("a.pdf", PDF))
        assert stored_files(media) == []

    def test_given_multipart_with_an_unknown_field_when_submitting_then_400(self):
        response = client_for(UserFactory()).post(
            "/api/v1/users/me/kyc/", {**SUBMISSION, "is_staff": "true"}, format="multipart"
        )
        assert wrong_fields(response) == ["is_staff"]

    def test_given_capitals_in_the_media_type_when_submitting_then_it_is_read(self):
        parts = {**SUBMISSION, "document_file": SimpleUploadedFile("a.pdf", PDF)}
        response = client_for(UserFactory()).generic(
            "POST",
            "/api/v1/users/me/kyc/",
            encode_multipart("BoUnDary", parts),
            "Multipart/Form-Data; boundary=BoUnDary",
        )
        assert response.status_code == 202

    @pytest.mark.parametrize(
        ("extra", "why"),
        [
            ([("city", b"Paris")], "twice"),
            ([("city", b"London")], "twice"),
            ([("address_line2", b"a"), ("address_line2", b"a")], "twice"),
            ([("is_staff", b"a"), ("is_staff", b"a")], "twice"),
            ([("document_file", b"a.pdf")], "twice"),
            ([("document_file", PDF, "b.pdf")], "twice"),
            ([("city", PDF, "b.pdf")], "twice"),
            ([("address_line2", b"Fl\xfct")], "UTF-8"),
            ([("address_line2", b"\xed\xa0\x80")], "UTF-8"),
        ],
    )
    def test_given_a_form_that_is_ambiguous_when_submitting_then_400_and_nothing_is_kept(
        self, media, extra, why
    ):
        response = submit_form([*FORM, *extra])
        assert refusal(response) == (400, "parse_error")
        assert why in response.json()["detail"]
        assert stored_files(media) == []
        assert not KYCSubmission.objects.exists()

    def test_given_a_form_beyond_ascii_when_submitting_then_it_is_kept_as_sent(self, media):
        street = "Straße 5, Łódź \ufffd 日本"
        response = submit_form([*FORM, ("address_line2", street.encode())])
        assert response.status_code == 202
        assert response.json()["submission"]["address_line2"] == street
        [stored] = stored_files(media)
        assert stored.read_bytes() == PDF

    def test_given_an_unknown_name_beyond_ascii_when_submitting_then_it_is_named(self):
        assert wrong_fields(submit_form([*FORM, ("straße", b"5")])) == ["straße"]


FORM = [
    *((name, text.encode()) for name, text in SUBMISSION.items() if name != "address_line2"),
    ("document_file", PDF, "Ausweis größer.pdf"),
]


def submit_form(parts):
    """Exactly these parts: names and values, and the file's name of a file."""
    body = b""
    for name, content, *file_name in parts:
        named = "".join(f'; filename="{each}"' for each in file_name)
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return client_for(UserFactory()).generic(
        "POST", "/api/v1/users/me/kyc/", body + b"--x--\r\n", "multipart/form-data; boundary=x"
    )


def read(submission_id, reader):
    request = RequestFactory().get("/document")
    request.user = reader
    return kyc_document(request, submission_id=submission_id)


@pytest.mark.django_db
class TestReading:
    @pytest.fixture
    def submission(self):
        user = UserFactory()
        submit_kyc(user, document_file=SimpleUploadedFile("mine.pdf", PDF))
        return KYCSubmission.objects.get()

    def test_given_a_reviewer_when_reading_then_a_download_that_no_browser_opens(self, submission):
        judge = ReviewerFactory()
        response = read(submission.pk, judge)
        assert b"".join(response.streaming_content) == PDF
        assert response["Content-Disposition"] == (
            f'attachment; filename="kyc-{submission.pk}.pdf"'
        )
        assert response["Content-Type"] == "application/pdf"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert "no-store" in response["Cache-Control"]
        access = KYCDocumentAccess.objects.get()
        assert (access.submission, access.reader) == (submission, judge)

    def test_given_no_reviewer_when_reading_then_refused_and_not_recorded(self, submission):
        for reader in (submission.user, UserFactory(), StaffFactory()):
            for submission_id in (submission.pk, uuid4()):
                with pytest.raises(PermissionDenied):
                    read(submission_id, reader)
        assert not KYCDocumentAccess.objects.exists()

    def test_given_nobody_when_reading_then_sent_to_the_admins_login(self, submission):
        response = read(submission.pk, AnonymousUser())
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")

    def test_given_no_such_document_when_reading_then_404(self):
        bob = UserFactory(kyc="pending")
        for submission_id in (uuid4(), bob.kyc_submissions.get().pk):
            with pytest.raises(Http404):
                read(submission_id, ReviewerFactory())
