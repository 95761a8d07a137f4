"""MIME as a JSON string can carry it: valid Unicode, and not a byte of any part lost.

A message that is valid UTF-8 goes as it is, byte for byte. In any other, each part whose body is not valid UTF-8 is
encoded anew (base64, or quoted-printable where that stays readable) under a Content-Transfer-Encoding of its own, and
each such header as RFC 2047 and RFC 2231 have it. Everything else keeps its bytes. Parts, and where they begin and
end, are found as Python's `email` finds them, which is how forgiving readers do: CR, LF and CRLF all end lines,
headers end at the first line that is none, outer boundaries end inner parts, and a missing last boundary is the end
of the message.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ews_sync.sinks.mime_headers import (
    Field,
    encode_field,
    escape_line,
    parameter,
    replace_boundary,
    usable_charset,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_DEEPEST = 50
"""Parts nested deeper are kept as one opaque body."""

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)?")
# As in RFC 5322 and in Python's email: a printable name and a colon, or a folded line, or mbox's envelope line.
_FIELD_START = re.compile(rb"(?:From |[!-9;-~]*:|[\t ])")
_TOKEN = re.compile(rb"[!-~]+")
_HIGH = re.compile(rb"[\x80-\xff]")
_QP_JUNK = re.compile(rb"==|=?[\x80-\xff]")
_NESTED = frozenset({b"message/rfc822", b"message/global", b"message/news"})
_UU = frozenset({b"uuencode", b"x-uuencode", b"uue", b"x-uue"})
# What stands for the 16 half-bytes of an 8-bit byte inside base64: outside its alphabet, so that decoders pass it by.
_JUNK = b"!#$%&'()*,.:;<>?"

_Piece: TypeAlias = bytes | memoryview
"""What is given out: new bytes, or a view of those that stay as they are."""


def is_utf8(chunks: Iterable[bytes]) -> bool:
    """Tell whether a message that comes in pieces is valid UTF-8, and so is its own text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in chunks:
            # ASCII, which most mail is, need not be decoded; but it must not stand inside a character.
            if decoder.getstate()[0] or not chunk.isascii():
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def mime_text(data: bytes) -> str:
    """Give the message `data` as text whose UTF-8 is the same message. Never raises, whatever `data` is."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        out: list[_Piece] = []
        _Rewriter(data).entity(0, len(data), out, b"text/plain", 0)
        rewritten = b"".join(out)
        # A message can be large: its pieces go before its text comes.
        out.clear()
        return rewritten.decode()


@dataclass(frozen=True, slots=True)
class _Head:
    """An entity's header fields; its body begins at `body`. `separator` is the empty line between, or b""."""

    fields: tuple[Field, ...]
    separator: bytes
    body: int
    newline: bytes


class _Rewriter:
    """Walks a message by offsets into its bytes and gives it out again, part by part."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)

    def entity(self, start: int, end: int, out: list[_Piece], default: bytes, depth: int) -> None:
        """Append the message or part between `start` and `end`. `default` is its type when it does not say."""
        if self._is_text(start, end):
            out.append(self._view[start:end])
            return
        head = self._head(start, end)
        kind, declared = _kind(head, default)
        encoding = _encoding(head)
        layered = encoding in {b"base64", b"quoted-printable"} | _UU
        if self._is_text(head.body, end):
            self._put_head(head, out, declared)
            out.append(self._view[head.body : end])
        elif kind.startswith(b"multipart/") and depth < _DEEPEST and self._multipart(head, end, out, kind, depth):
            pass
        elif kind in _NESTED and depth < _DEEPEST and not layered:
            self._put_head(head, out, declared)
            self.entity(head.body, end, out, b"text/plain", depth + 1)
        elif layered:
            self._put_head(head, out, declared)
            out.append(_without_junk(self._data[head.body : end], encoding))
        else:
            self._put_leaf(head, end, out, kind, declared)

    def _multipart(self, head: _Head, end: int, out: list[_Piece], kind: bytes, depth: int) -> bool:
        """Append a multipart; False, and nothing appended, when it has no parts."""
        boundary = parameter(_first(head, b"content-type"), b"boundary")
        if not boundary:
            return False
        # What ends a line may be the part's; the newline before a delimiter is the delimiter's (RFC 2046, 5.1.1).
        pattern = re.compile(rb"(?:(?<=[\r\n])|\A)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=[\r\n]|\Z)")
        found = []
        for match in pattern.finditer(self._data, head.body, end):
            found.append(match)
            if match[1]:
                break
        if not found or found[0][1]:
            return False
        renamed = boundary
        fields = head.fields
        if not _valid(boundary):
            renamed = _new_boundary(self._data, boundary)
            fields = tuple(replace_boundary(field, boundary, renamed) for field in fields)
        self._put_head(_Head(fields, head.separator, head.body, head.newline), out, None)
        default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"
        before = found[0].start()
        self._put_lines(head.body, before, out)
        for index, match in enumerate(found):
            delimiter = b"--" + renamed + (b"--" if match[1] else b"")
            out.append(delimiter + self._data[match.start() + len(b"--" + boundary + (match[1] or b"")) : match.end()])
            if match[1]:
                self._put_lines(match.end(), end, out)
                return True
            first = match.end() + _newline_length(self._data, match.end(), end)
            out.append(self._data[match.end() : first])
            if index + 1 < len(found):
                following = found[index + 1].start()
                last = max(first, following - _newline_before(self._data, first, following))
                self.entity(first, last, out, default, depth + 1)
                out.append(self._data[last:following])
            else:
                self.entity(first, end, out, default, depth + 1)
        return True

    def _put_head(self, head: _Head, out: list[_Piece], declared: bytes | None) -> None:
        charset = usable_charset(declared)
        out.extend(encode_field(field, charset, head.newline) for field in head.fields)
        out.append(head.separator)

    def _put_leaf(self, head: _Head, end: int, out: list[_Piece], kind: bytes, declared: bytes | None) -> None:
        body = self._data[head.body : end]
        # Quoted-printable where a person, or a reader that ignores encodings, would still make sense of it.
        legible = kind.startswith((b"text/", b"message/", b"multipart/")) and _is_mostly_ascii(body)
        encoding = b"quoted-printable" if legible else b"base64"
        replaced = False
        charset = usable_charset(declared)
        line = b"Content-Transfer-Encoding: " + encoding + head.newline
        for field in head.fields:
            if field.name == b"content-transfer-encoding":
                out.append(b"" if replaced else line)
                replaced = True
            else:
                out.append(encode_field(field, charset, head.newline))
        if not replaced:
            out.append(line)
        out.append(head.separator or head.newline)
        out.append(_quoted_printable(body, head.newline) if legible else _base64(body, head.newline))

    def _put_lines(self, start: int, end: int, out: list[_Piece]) -> None:
        """Append text that belongs to no part: a preamble or an epilogue. No encoding can be declared for it."""
        if self._is_text(start, end):
            out.append(self._view[start:end])
            return
        lines = (match[0] for match in _LINE.finditer(self._data, start, end))
        out.extend(line if _valid(line) else escape_line(line) for line in lines)

    def _head(self, start: int, end: int) -> _Head:
        fields: list[Field] = []
        newline = b""
        position = start
        separator = b""
        while position < end:
            match = _LINE.match(self._data, position, end)
            line = match[0] if match else b""
            bare = line.rstrip(b"\r\n")
            newline = newline or line[len(bare) :]
            if not bare:
                separator = line
                position += len(line)
                break
            if not _FIELD_START.match(line):
                break
            if line[:1] in b" \t" and fields:
                fields[-1] = Field(fields[-1].raw + line)
            else:
                fields.append(Field(line))
            position += len(line)
        return _Head(tuple(fields), separator, position, newline or b"\r\n")

    def _is_text(self, start: int, end: int) -> bool:
        return _valid(self._view[start:end])


def _valid(data: bytes | memoryview) -> bool:
    try:
        codecs.utf_8_decode(data, "strict", True)  # noqa: FBT003 - the codec takes no keywords
    except UnicodeDecodeError:
        return False
    return True


def _kind(head: _Head, default: bytes) -> tuple[bytes, bytes | None]:
    """Give the media type, in small letters, and the charset that is declared, if any."""
    field = _first(head, b"content-type")
    if field is None:
        return default, None
    kind = value_of(field).partition(b";")[0].strip().lower()
    # RFC 2045, 5.2: what cannot be read is plain text.
    return kind if kind.count(b"/") == 1 else b"text/plain", parameter(field, b"charset")


def _encoding(head: _Head) -> bytes:
    field = _first(head, b"content-transfer-encoding")
    match = None if field is None else _TOKEN.search(value_of(field))
    return match[0].lower() if match else b""


def _first(head: _Head, name: bytes) -> Field | None:
    return next((field for field in head.fields if field.name == name), None)


def _is_mostly_ascii(body: bytes) -> bool:
    """Tell whether quoted-printable is the better encoding: few bytes need it, and none says that this is no text."""
    high = len(body) - len(body.translate(None, bytes(range(128, 256))))
    return high * 6 <= len(body) and b"\0" not in body


def _base64(body: bytes, newline: bytes) -> bytes:
    return base64.encodebytes(body).replace(b"\n", newline)


def _quoted_printable(body: bytes, newline: bytes) -> bytes:
    """Encode text with each of its line ends kept as it is: LF and CRLF can be mixed, and a lone CR is data."""
    out: list[bytes] = []
    position = 0
    while position < len(body):
        end = body.find(b"\n", position)
        end = len(body) if end < 0 else end
        ending = body[end : end + 1]
        content = body[position:end]
        if ending and content.endswith(b"\r"):
            content, ending = content[:-1], b"\r\n"
        position = end + 1
        for index, line in enumerate(binascii.b2a_qp(content, quotetabs=False, istext=False).split(b"\n")):
            # A line of ours must not look like a boundary that was not one before.
            safe = b"=2D" + line[1:] if line.startswith(b"-") else line
            out.append((newline if index else b"") + safe)
        out.append(ending)
    return b"".join(out)


def _without_junk(body: bytes, encoding: bytes) -> bytes:
    """Give an encoded body without 8-bit bytes, which do not belong there, so that it decodes to the same as before."""
    if encoding == b"base64":
        # Decoders pass by what is not in the alphabet (RFC 2045, 6.8); so the junk stays, in characters that are not.
        return _HIGH.sub(lambda match: bytes((_JUNK[match[0][0] >> 4], _JUNK[match[0][0] & 15])), body)
    # Decoders of quoted-printable take 8-bit bytes as they are, and this says the same. In uuencode they can only stand
    # in the file's name, which is for people, or in a line that is damaged anyway.
    # A sign that encodes nothing must not begin to: it is encoded along with the byte behind it.
    return _QP_JUNK.sub(lambda match: match[0] if match[0] == b"==" else b"".join(b"=%02X" % n for n in match[0]), body)


def _new_boundary(data: bytes, boundary: bytes) -> bytes:
    """Give a boundary in ASCII for one that has no Unicode, and that nothing in the message looks like."""
    salt = 0
    while True:
        renamed = b"=_" + hashlib.sha256(boundary + bytes((salt,))).hexdigest()[:32].encode()
        if renamed not in data:
            return renamed
        salt += 1


def _newline_length(data: bytes, start: int, end: int) -> int:
    """Give the length of the line end that begins at `start`, 0 where there is none."""
    following = data[start : min(start + 2, end)]
    return 2 if following == b"\r\n" else int(following[:1] in (b"\r", b"\n"))


def _newline_before(data: bytes, start: int, end: int) -> int:
    """Give the length of the line end that ends at `end` and does not begin before `start`."""
    before = data[max(start, end - 2) : end]
    return 2 if before == b"\r\n" else int(before[-1:] in (b"\r", b"\n"))
