"""What a KYC document may be: a PDF, JPEG or PNG by its content, and nothing that acts.

The client's file name and content type are ignored. Documents are shown to reviewers as downloads
that no browser opens by itself; that they hold nothing active is a second wall.
"""

import hashlib
import re
from dataclasses import dataclass

import filetype
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile

from users.pdf import Scan

DOCUMENT_MAX_BYTES = 5 * 1024 * 1024
EXTENSIONS = {"application/pdf": "pdf", "image/jpeg": "jpg", "image/png": "png"}

# What follows is part of the pattern: five megabytes of noise contain any few given letters.
_MARKUP = re.compile(rb"<(script|html|svg|iframe|object|embed|!doctype|\?php)[\s/>]", re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """A document that was checked."""

    content: bytes
    media_type: str

    @property
    def extension(self) -> str:
        return EXTENSIONS[self.media_type]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def check_document(upload: UploadedFile) -> Document:
    """Read an upload and recognise it by content. Raises ValidationError."""
    if (upload.size or 0) > DOCUMENT_MAX_BYTES:
        raise ValidationError("The document is larger than 5 MB.", code="too_large")
    content = upload.read(DOCUMENT_MAX_BYTES + 1)
    media_type = str(filetype.guess_mime(content))
    if media_type not in EXTENSIONS or not _begins_as(media_type, content):
        raise ValidationError("The document is neither PDF, JPEG nor PNG.", code="wrong_type")
    if _is_active(content, media_type):
        raise ValidationError(
            "The document holds active content or an attachment, is encrypted, or is too intricate"
            " to be sure. Print or scan it to a new, plain file.",
            code="active",
        )
    return Document(content=content, media_type=media_type)


def _begins_as(media_type: str, content: bytes) -> bool:
    """The library also takes a PDF behind a byte order mark, or four letters for one."""
    return media_type != "application/pdf" or content.startswith(b"%PDF-")


def _is_active(content: bytes, media_type: str) -> bool:
    if _MARKUP.search(content):
        return True
    if media_type == "application/pdf":
        return Scan().finds_activity(content)
    return b"%PDF-" in content  # two things at once
