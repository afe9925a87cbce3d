"""Whether a PDF acts: scripts, attachments, launching, encryption. In doubt it does.

This is a scan, not a parser: the readers of PDFs forgive so much that a parser of ours would see
other things than they do. Its work is bounded by the limits below, whatever the file holds.
"""

import re
import zlib
from collections.abc import Iterator
from itertools import pairwise

STREAMS_MAX = 500
ESCAPES_MAX = 10_000
INFLATED_MAX_BYTES = 32 * 1024 * 1024
_PEEK_BYTES = 4096

# What follows a name is part of its pattern: megabytes of noise contain any few given letters.
_ENDS = rb"(?=[\s\x00/<>\[\](){}%]|\Z)"
_ACTIVE = re.compile(
    rb"/(JavaScript|Rendition|OnInstantiate|Launch|GoTo[ER]|EmbeddedFiles?|RichMedia|XFA|SubmitForm"
    rb"|ImportData|Encrypt)" + _ENDS
)
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_STREAM = re.compile(rb"(?<!end)stream[\s\x00]*")
_IRREGULAR_STREAM = re.compile(rb">>[\s\x00]*+stream(?!\r?\n)")

# Objects may lie in a compressed stream. Honest writers describe it by a flat dictionary, without
# strings and comments, and compress it once.
_TIDY_DICTIONARY = re.compile(rb"\bobj\s*<<([^()<>%#]*)>>\s*stream\r?\n")
_OBJECT_STREAM = re.compile(rb"/ObjStm" + _ENDS)
_FIRST_OBJECT = re.compile(rb"/First" + _ENDS)
_ENCODED_OTHERWISE = re.compile(
    rb"/(DecodeParms|DP|ASCIIHexDecode|AHx|ASCII85Decode|A85|LZWDecode|LZW|RunLengthDecode|RL|Crypt)"
    + _ENDS
    + rb"|/(Filter|F)(?=[\s\x00/\[])[\s\x00]*+(?!/|\[\s*/\w+\s*\])"
)
_BEGINS_LIKE_OBJECTS = re.compile(rb"[\s\x00]*+([0-9%]|\Z)")


class _InDoubt(Exception):
    """A limit is reached, or something cannot be looked into."""


class Scan:
    """One look through one PDF; the counters say how much work it was."""

    def __init__(self) -> None:
        self.streams = 0
        self.escapes = 0
        self.inflated = 0

    def finds_activity(self, content: bytes) -> bool:
        try:
            plain = self._unescaped(content)
            return (
                _ACTIVE.search(plain) is not None
                or _IRREGULAR_STREAM.search(plain) is not None
                or _hides_objects(content, plain)
                or any(_ACTIVE.search(text) for text in self._compressed_objects(content))
            )
        except _InDoubt:
            return True

    def _compressed_objects(self, content: bytes) -> Iterator[bytes]:
        """The text of each stream that may hold objects, whatever its dictionary calls it."""
        whole = memoryview(content)
        # Each as far as the next one, so that no byte is read twice.
        for start, end in pairwise([*self._stream_starts(content), len(content)]):
            yield self._unescaped(self._inflated(whole[start:end]))

    def _stream_starts(self, content: bytes) -> Iterator[int]:
        for found in _STREAM.finditer(content):
            self.streams += 1
            if self.streams > STREAMS_MAX:
                raise _InDoubt
            yield found.end()

    def _inflated(self, data: memoryview) -> bytes:
        """Empty for what is not compressed (it was seen already), and for images and fonts."""
        if not _is_zlib(data):
            return b""
        stream = zlib.decompressobj()
        try:
            begin = stream.decompress(data, _PEEK_BYTES)
            if not _BEGINS_LIKE_OBJECTS.match(begin):
                return b""
            left = INFLATED_MAX_BYTES - self.inflated
            objects = begin + stream.decompress(stream.unconsumed_tail, max(left, 1))
        except zlib.error as broken:  # readers make do with what came before
            raise _InDoubt from broken
        self.inflated += len(objects)
        if not stream.eof:
            raise _InDoubt
        return objects

    def _unescaped(self, text: bytes) -> bytes:
        """Names may spell any letter as `#xx`."""
        return _ESCAPE.sub(self._letter, text)

    def _letter(self, found: re.Match[bytes]) -> bytes:
        self.escapes += 1
        if self.escapes > ESCAPES_MAX:
            raise _InDoubt
        return bytes([int(found[1], 16)])


def _hides_objects(content: bytes, plain: bytes) -> bool:
    """Whether a stream of objects is described so that our look into it may miss what readers see.

    One that does not call itself `/ObjStm` (some readers do not mind) still needs `/First`, as does
    a table of contents; beside such a one, nothing may be encoded in a way that we do not undo.
    """
    tidy = [found for found in _TIDY_DICTIONARY.findall(content) if _OBJECT_STREAM.search(found)]
    if any(_ENCODED_OTHERWISE.search(dictionary) for dictionary in tidy):
        return True
    if len(_OBJECT_STREAM.findall(plain)) > len(tidy):
        return True
    described = sum(len(_FIRST_OBJECT.findall(dictionary)) for dictionary in tidy)
    hidden = len(_FIRST_OBJECT.findall(plain)) > described
    return hidden and _ENCODED_OTHERWISE.search(plain) is not None


def _is_zlib(data: memoryview) -> bool:
    return len(data) > 1 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
