"""MIME as a JSON string can carry it: valid Unicode, and not a byte of any part lost.

A message that is valid UTF-8 goes as it is, byte for byte. In any other, each part whose body is not valid UTF-8 is
encoded anew (base64, or quoted-printable where that stays readable) under a Content-Transfer-Encoding of its own, and
each such header as RFC 2047 and RFC 2231 have it. Everything else keeps its bytes. Parts, and where they begin and
end, are found as Python's `email` finds them, which is how forgiving readers do: CR, LF and CRLF all end lines,
headers end at the first line that is none, outer boundaries end inner parts, and a missing last boundary is the end
of the message.

It is made in pieces, in a bounded amount of memory: nothing is held of a message but a block of it and one header field
at a time. A field of more than 32 KiB is not taken apart: when it needs encoding, all of its value is encoded.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ews_sync.model import MimeBytes
from ews_sync.sinks.mime_encodings import (
    base64_pieces,
    escaped_line,
    is_mostly_ascii,
    quoted_printable_pieces,
    without_junk,
)
from ews_sync.sinks.mime_headers import (
    Field,
    encode_field,
    long_field_pieces,
    parameter,
    replace_boundary,
    usable_charset,
    value_of,
)
from ews_sync.sinks.mime_window import BLOCK, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ews_sync.model import Mime

_DEEPEST = 50
"""Parts nested deeper are kept as one opaque body."""
LONGEST_FIELD = 32 * 1024
"""Bytes up to which a header field is taken apart."""
_LONGEST_NAME = 1024

# As in RFC 5322 and in Python's email: a printable name and a colon, or a folded line, or mbox's envelope line.
_FIELD_START = re.compile(rb"(?:From |[!-9;-~]*:|[\t ])")
_TOKEN = re.compile(rb"[!-~]+")
_NESTED = frozenset({b"message/rfc822", b"message/global", b"message/news"})
_UU = frozenset({b"uuencode", b"x-uuencode", b"uue", b"x-uue"})
_LAYERS = frozenset({b"base64", b"quoted-printable"}) | _UU


def mime_text(data: bytes) -> str:
    """Give the message `data` as text whose UTF-8 is the same message. Never raises, whatever `data` is."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return b"".join(mime_pieces(MimeBytes(data))).decode()


def mime_pieces(mime: Mime, *, block: int = BLOCK, longest_field: int = LONGEST_FIELD) -> Iterator[bytes]:
    """Yield the UTF-8 of the message's text in pieces, which may be small and may end inside a character.

    `block` is how many bytes are read at a time; it makes no difference to what comes out. Raises `OSError` when the
    message cannot be read, and nothing else, whatever its bytes are.
    """
    window = Window(mime, block)
    return _Rewriter(window, longest_field).entity(0, window.size, b"text/plain", 0)


@dataclass(frozen=True, slots=True)
class _Head:
    """An entity's header: its fields are between `start` and `end`, its body begins at `body`.

    `separator` is the empty line between, or b"". `newline` is how lines end here.
    """

    start: int
    end: int
    separator: bytes
    body: int
    newline: bytes
    content_type: Field | None
    transfer_encoding: Field | None


@dataclass(frozen=True, slots=True)
class _Delimiter:
    """A line that separates parts: the boundary in it ends at `named`, the line without its end at `end`."""

    start: int
    named: int
    end: int
    last: bool


@dataclass(frozen=True, slots=True)
class _Rename:
    """A boundary that cannot stay, and the one in its place."""

    old: bytes
    new: bytes


class _Rewriter:
    """Walks a message by offsets into its bytes and gives it out again, part by part.

    No offset is ever inside a character: what is before or behind it is a line end, a hyphen or an end of the message.
    """

    def __init__(self, window: Window, longest_field: int) -> None:
        self._window = window
        self._longest_field = max(longest_field, _LONGEST_NAME)

    def entity(self, start: int, end: int, default: bytes, depth: int) -> Iterator[bytes]:
        """Yield the message or part between `start` and `end`. `default` is its type when it does not say."""
        window = self._window
        if window.is_text(start, end):
            yield from window.blocks(start, end)
            return
        head = self._head(start, end)
        kind, declared = _kind(head, default)
        encoding = _encoding(head)
        if window.is_text(head.body, end):
            yield from self._put_head(head, declared)
            yield from window.blocks(head.body, end)
        elif kind.startswith(b"multipart/") and self._has_parts(head, end, depth):
            yield from self._put_multipart(head, end, kind, depth)
        elif kind in _NESTED and depth < _DEEPEST and encoding not in _LAYERS:
            yield from self._put_head(head, declared)
            yield from self.entity(head.body, end, b"text/plain", depth + 1)
        elif encoding in _LAYERS:
            yield from self._put_head(head, declared)
            yield from without_junk(window.blocks(head.body, end), encoding)
        else:
            yield from self._put_leaf(head, end, kind, declared)

    def _has_parts(self, head: _Head, end: int, depth: int) -> bool:
        boundary = _boundary(head)
        if not boundary or depth >= _DEEPEST:
            return False
        first = next(self._delimiters(boundary, head.body, end), None)
        return first is not None and not first.last

    def _delimiters(self, boundary: bytes, start: int, end: int) -> Iterator[_Delimiter]:
        """Yield the lines between `start` and `end` that separate parts, up to the one that says it is the last."""
        window = self._window
        delimiter = b"--" + boundary
        position = start
        while (found := window.find(delimiter, position, end)) >= 0:
            # Only at the start of a line: what is no delimiter here, cannot be one before the next.
            _, position = window.line(found, end)
            if found and window.slice(found - 1, found) not in (b"\r", b"\n"):
                continue
            named = found + len(delimiter)
            last = window.slice(named, min(named + 2, end)) == b"--"
            behind = self._behind_blanks(named + 2 if last else named, end)
            if behind < end and window.slice(behind, behind + 1) not in (b"\r", b"\n"):
                continue
            position = behind
            yield _Delimiter(found, named, behind, last)
            if last:
                return

    def _behind_blanks(self, start: int, end: int) -> int:
        for block in self._window.blocks(start, end):
            rest = block.lstrip(b" \t")
            start += len(block) - len(rest)
            if rest:
                break
        return start

    def _put_multipart(self, head: _Head, end: int, kind: bytes, depth: int) -> Iterator[bytes]:
        window = self._window
        boundary = _boundary(head)
        rename = _Rename(boundary, boundary)
        if not _is_utf8(boundary):
            rename = _Rename(boundary, self._new_boundary(boundary, head.start, end))
        yield from self._put_head(head, None, rename=rename)
        default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"
        delimiters = self._delimiters(boundary, head.body, end)
        found = next(delimiters, None)
        yield from self._put_lines(head.body, end if found is None else found.start)
        while found is not None:
            yield b"--" + rename.new
            yield from window.blocks(found.named, found.end)
            if found.last:
                yield from self._put_lines(found.end, end)
                return
            first = found.end + window.newline_length(found.end, end)
            yield window.slice(found.end, first)
            found = next(delimiters, None)
            following = end if found is None else found.start
            # The newline before a delimiter is the delimiter's (RFC 2046, 5.1.1).
            last = following if found is None else max(first, following - window.newline_before(first, following))
            yield from self.entity(first, last, default, depth + 1)
            yield window.slice(last, following)

    def _put_head(
        self, head: _Head, declared: bytes | None, *, rename: _Rename | None = None, encoding: bytes = b""
    ) -> Iterator[bytes]:
        """Yield a header and its separator, with another boundary and another transfer encoding where given."""
        window = self._window
        charset = usable_charset(declared)
        line = b"Content-Transfer-Encoding: " + encoding + head.newline if encoding else b""
        for start, end in self._fields(head.start, head.end):
            if encoding and self._name(start, end) == b"content-transfer-encoding":
                yield line
                line = b""
            elif end - start <= self._longest_field:
                field = Field(window.slice(start, end))
                if rename is not None and rename.old != rename.new:
                    field = replace_boundary(field, rename.old, rename.new)
                yield encode_field(field, charset, head.newline)
            elif window.is_text(start, end):
                yield from window.blocks(start, end)
            else:
                named = start + _LONGEST_NAME
                blocks = itertools.chain((window.slice(start, named),), window.blocks(named, end))
                yield from long_field_pieces(blocks, head.newline)
        yield line
        yield head.separator or (head.newline if encoding else b"")

    def _put_leaf(self, head: _Head, end: int, kind: bytes, declared: bytes | None) -> Iterator[bytes]:
        blocks = self._window.blocks
        # Quoted-printable where a person, or a reader that ignores encodings, would still make sense of it.
        if kind.startswith((b"text/", b"message/", b"multipart/")) and is_mostly_ascii(blocks(head.body, end)):
            yield from self._put_head(head, declared, encoding=b"quoted-printable")
            yield from quoted_printable_pieces(blocks(head.body, end), head.newline)
        else:
            yield from self._put_head(head, declared, encoding=b"base64")
            yield from base64_pieces(blocks(head.body, end), head.newline)

    def _put_lines(self, start: int, end: int) -> Iterator[bytes]:
        """Yield text that belongs to no part: a preamble or an epilogue. No encoding can be declared for it."""
        window = self._window
        while start < end:
            invalid = window.first_invalid(start)
            if invalid >= end:
                yield from window.blocks(start, end)
                return
            line = window.line_start(start, invalid)
            yield from window.blocks(start, line)
            _, start = window.line(invalid, end)
            yield from escaped_line(window.blocks(line, start))

    def _head(self, start: int, end: int) -> _Head:
        window = self._window
        newline = separator = b""
        position = body = start
        while position < end:
            stop, body = window.line(position, end)
            newline = newline or window.slice(stop, body)
            if stop == position:
                separator = window.slice(stop, body)
                break
            if not _FIELD_START.match(window.slice(position, min(stop, position + self._longest_field))):
                body = position
                break
            position = body
        first: dict[bytes, Field] = {}
        for field_start, field_end in self._fields(start, position):
            name = self._name(field_start, field_end)
            if name in (b"content-type", b"content-transfer-encoding") and name not in first:
                first[name] = self._whole(field_start, field_end)
        return _Head(
            start,
            position,
            separator,
            body,
            newline or b"\r\n",
            first.get(b"content-type"),
            first.get(b"content-transfer-encoding"),
        )

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield where each field of a header begins and ends, its folded lines and its line end included."""
        window = self._window
        position = start
        while position < end:
            _, following = window.line(position, end)
            while following < end and window.slice(following, following + 1) in (b" ", b"\t"):
                _, following = window.line(following, end)
            yield position, following
            position = following

    def _name(self, start: int, end: int) -> bytes:
        return Field(self._window.slice(start, min(end, start + _LONGEST_NAME))).name

    def _whole(self, start: int, end: int) -> Field:
        """Give a field that says something of the body; one that is too long says nothing."""
        return Field(self._window.slice(start, end) if end - start <= self._longest_field else b"")

    def _new_boundary(self, boundary: bytes, start: int, end: int) -> bytes:
        """Give a boundary in ASCII for one that has no Unicode, and that nothing in the multipart looks like."""
        digest = hashlib.sha256(boundary + b"\0")
        if self._window.find(_boundary_of(digest), start, end) >= 0:
            # Somebody put it there. Nobody can put in a digest of all that is there.
            for block in self._window.blocks(start, end):
                digest.update(block)
        return _boundary_of(digest)


def _boundary_of(digest: hashlib._Hash) -> bytes:
    return b"=_" + digest.hexdigest()[:32].encode()


def _boundary(head: _Head) -> bytes:
    return parameter(head.content_type, b"boundary") or b""


def _kind(head: _Head, default: bytes) -> tuple[bytes, bytes | None]:
    """Give the media type, in small letters, and the charset that is declared, if any."""
    if head.content_type is None:
        return default, None
    kind = value_of(head.content_type).partition(b";")[0].strip().lower()
    # RFC 2045, 5.2: what cannot be read is plain text.
    return kind if kind.count(b"/") == 1 else b"text/plain", parameter(head.content_type, b"charset")


def _encoding(head: _Head) -> bytes:
    match = None if head.transfer_encoding is None else _TOKEN.search(value_of(head.transfer_encoding))
    return match[0].lower() if match else b""


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
