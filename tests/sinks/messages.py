"""Messages for the tests of what becomes of them; Python's own email parser is the independent reader."""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message


@dataclass(frozen=True, slots=True)
class Part:
    kind: str
    content: bytes


def parts_of(data: bytes) -> list[Part]:
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    return [Part(part.get_content_type(), content_of(part)) for part in leaves(message)]


def leaves(message: Message) -> Iterator[Message]:
    return (part for part in message.walk() if not part.is_multipart())


def content_of(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


NEWLINES = st.sampled_from([b"\r\n", b"\n"])
CHARSETS = st.sampled_from([b"iso-8859-1", b"koi8-r", b"shift_jis", b"utf-16", b"us-ascii", b"unheard-of"])
BODIES = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [b"text ", b"caf\xe9", b"\r\n", b"\n", b"\r", b"--", b"--b0", b"=", b" ", b"\t", b".", b"\0", b"From "]
        ),
        max_size=40,
    ).map(b"".join),
)  # fmt: skip
WORDS = st.sampled_from(
    [b"a", b"caf\xe9", b"=?utf-8?q?=C3=A9?=", b"\xff\xfe", b'"q \xe9"', b"(c\xe9)", b"<a@b>,", b"\xc3\xa9"]
)


@st.composite
def entities(draw: st.DrawFn, depth: int = 0) -> bytes:
    """A part without a trailing newline: headers, an empty line, a body of any bytes, perhaps with parts of its own."""
    newline = draw(NEWLINES)
    fields = [b"Subject: " + b" ".join(draw(st.lists(WORDS, max_size=4)))]
    kind = draw(st.sampled_from([b"text", b"application", b"multipart", b"message"] if depth < 3 else [b"text"]))
    if kind == b"multipart":
        boundary = b"b%d" % depth
        fields.append(b"Content-Type: multipart/mixed; boundary=" + boundary)
        body = draw(st.sampled_from([b"", b"preamble" + newline, b"\xe9" + newline]))
        for part in draw(st.lists(entities(depth + 1), min_size=1, max_size=3)):
            body += b"--" + boundary + newline + part + newline
        body += b"--" + boundary + b"--" + draw(st.sampled_from([b"", newline, newline + b"\xff epilogue"]))
    elif kind == b"message":
        fields.append(b"Content-Type: message/rfc822")
        body = draw(entities(depth + 1))
    else:
        charset = draw(CHARSETS)
        fields.append(b"Content-Type: " + kind + b"/plain; charset=" + charset + b'; name="caf\xe9 a"')
        encoding = draw(st.sampled_from([b"", b"7bit", b"8bit", b"binary", b"quoted-printable"]))
        if encoding:
            fields.append(b"Content-Transfer-Encoding: " + encoding)
        # Anything like an outer boundary would be one.
        body = draw(BODIES).replace(b"--b", b"--a")
        if encoding == b"quoted-printable":
            body = body.replace(b"\r", b"")
    return newline.join(draw(st.permutations(fields))) + newline * 2 + body
