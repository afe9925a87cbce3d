"""What a KYC document may be: a PDF, JPEG or PNG by its content, and nothing that acts.

The client's file name and content type are ignored. Documents are shown to reviewers as downloads
that no browser opens by itself; that they hold nothing active is a second wall.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass

import filetype
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile

DOCUMENT_MAX_BYTES = 5 * 1024 * 1024
EXTENSIONS = {"application/pdf": "pdf", "image/jpeg": "jpg", "image/png": "png"}

# What follows is part of each pattern: five megabytes of noise contain any four given letters.
_MARKUP = re.compile(rb"<(script|html|svg|iframe|object|embed|!doctype|\?php)[\s/>]", re.IGNORECASE)
_ACTIVE_PDF = re.compile(
    rb"/(JavaScript|Launch|EmbeddedFiles?|RichMedia|XFA|SubmitForm|ImportData|Encrypt)"
    rb"(?=[\s/<>\[(])"
)
_PDF_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_PDF_STREAM = re.compile(rb"(?<!end)stream\r?\n")
_STREAM_HEADER_BYTES = 4096
_STREAMS_MAX = 5_000
_INFLATED_MAX_BYTES = 32 * 1024 * 1024


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
            "The document holds active content, an attachment, or is encrypted.", code="active"
        )
    return Document(content=content, media_type=media_type)


def _begins_as(media_type: str, content: bytes) -> bool:
    """The library also takes a PDF behind a byte order mark, or four letters for one."""
    return media_type != "application/pdf" or content.startswith(b"%PDF-")


def _is_active(content: bytes, media_type: str) -> bool:
    if _MARKUP.search(content):
        return True
    if media_type == "application/pdf":
        return _is_active_pdf(content)
    return b"%PDF-" in content  # two things at once


def _is_active_pdf(content: bytes) -> bool:
    plain = _unescaped(content)
    if _ACTIVE_PDF.search(plain):
        return True
    return b"/ObjStm" in plain and _hides_active_objects(content)


def _hides_active_objects(content: bytes) -> bool:
    """Objects may lie in compressed streams. What cannot be looked into counts as active."""
    budget, whole = _INFLATED_MAX_BYTES, memoryview(content)
    for count, stream in enumerate(_PDF_STREAM.finditer(content)):
        header = content[max(0, stream.start() - _STREAM_HEADER_BYTES) : stream.start()]
        if b"/ObjStm" not in _unescaped(header.rpartition(b" obj")[2]):
            continue
        objects = _inflated(whole[stream.end() :], budget)
        budget -= len(objects or b"")
        if objects is None or budget <= 0 or count > _STREAMS_MAX:
            return True
        if _ACTIVE_PDF.search(_unescaped(objects)):
            return True
    return False


def _inflated(data: memoryview, budget: int) -> bytes | None:
    """A compressed stream of objects; None when it cannot be looked into."""
    try:
        return zlib.decompressobj().decompress(data, budget)
    except zlib.error:
        return None


def _unescaped(content: bytes) -> bytes:
    """PDF names may spell any letter as `#xx`."""
    return _PDF_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), content)
