"""Whether a PDF acts: scripts, attachments, launching, encryption. In doubt it does.

This is a scan and no parser: readers of PDFs forgive so much that a parser of ours would see other
things than theirs. Its work is bounded by the limits below, whatever the file holds.
"""

import re
import zlib

STREAMS_MAX = 500
ESCAPES_MAX = 10_000
INFLATED_MAX_BYTES = 32 * 1024 * 1024
_PEEK_BYTES = 4096

# What follows is part of the pattern: five megabytes of noise contain any few given letters.
_ENDS = rb"(?=[\s\x00/<>\[\](]|\Z)"
_ACTIVE = re.compile(
    rb"/(JavaScript|Launch|EmbeddedFiles?|RichMedia|XFA|SubmitForm|ImportData|Encrypt)" + _ENDS
)
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_STREAM = re.compile(rb"(?<!end)stream[\s\x00]*")
_IRREGULAR_STREAM = re.compile(rb">>[\s\x00]*stream(?!\r?\n)")
# Objects may lie in compressed streams. Writers describe such a stream plainly: a flat dictionary
# without strings and comments, compressed once. One that is described otherwise hides something.
_TIDY_DICTIONARY = re.compile(rb"\bobj\s*<<([^()<>%#]*)>>\s*stream\r?\n")
_OBJECT_STREAM = re.compile(rb"/ObjStm" + _ENDS)
_FIRST = re.compile(rb"/First" + _ENDS)
_ENCODED_OTHERWISE = re.compile(
    rb"/(DecodeParms|DP|ASCIIHexDecode|AHx|ASCII85Decode|A85|LZWDecode|LZW|RunLengthDecode|RL|Crypt"
    rb"|(Filter|F)[\s\x00]*[\[0-9])"
)
_COMPRESSED_ONCE = re.compile(rb"/Filter\s*(/FlateDecode|\[\s*/FlateDecode\s*\])" + _ENDS)
_BEGINS_LIKE_OBJECTS = re.compile(rb"[\s\x00]*([0-9%]|\Z)")


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
                bool(_ACTIVE.search(plain))
                or _hides_objects(content, plain)
                or any(_ACTIVE.search(objects) for objects in self._compressed_objects(content))
            )
        except _InDoubt:
            return True

    def _compressed_objects(self, content: bytes):
        """The text of each compressed stream that may hold objects, whatever it calls itself."""
        starts = [found.end() for found in self._counted_streams(content)]
        whole = memoryview(content)
        # Up to the next one, so that no byte is read twice.
        for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
            if objects := self._inflated(whole[start:end]):
                yield self._unescaped(objects)

    def _counted_streams(self, content: bytes):
        for found in _STREAM.finditer(content):
            self.streams += 1
            if self.streams > STREAMS_MAX:
                raise _InDoubt
            yield found

    def _inflated(self, data: memoryview) -> bytes:
        """Nothing for what is not compressed (and so was seen already) or no text: images, fonts."""
        stream = zlib.decompressobj()
        try:
            begin = stream.decompress(data, _PEEK_BYTES)
            if not _BEGINS_LIKE_OBJECTS.match(begin):
                return b""
            left = INFLATED_MAX_BYTES - self.inflated - len(begin)
            objects = begin + stream.decompress(stream.unconsumed_tail, max(left, 1))
        except zlib.error:
            return b""
        self.inflated += len(objects)
        if not stream.eof:
            raise _InDoubt
        return objects

    def _unescaped(self, content: bytes) -> bytes:
        """PDF names may spell any letter as `#xx`."""
        return _ESCAPE.sub(self._letter, content)

    def _letter(self, found: re.Match[bytes]) -> bytes:
        self.escapes += 1
        if self.escapes > ESCAPES_MAX:
            raise _InDoubt
        return bytes([int(found[1], 16)])
