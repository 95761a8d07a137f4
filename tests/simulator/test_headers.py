"""The quick ways of reading a message agree with Python's own reader, which is thorough and slow."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import getaddresses, parsedate_to_datetime

from hypothesis import example, given, strategies as st

from ews_sync.simulator.headers import decode_text, parse_headers
from ews_sync.simulator.parts import attachments, opened
from ews_sync.simulator.properties import parse_properties

ENDS = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\n\r\n"])
NAMES = st.sampled_from(
    [b"Subject", b"FROM", b"Content-Type", b"content-disposition", b"Date", b"X-1", b"X Y", b"", b" ", b"\xff"]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            b"text/plain",
            b"TEXT/html; charset=utf-8",
            b"text/plain; name=a.txt",
            b"text/plain; name*=utf-8''%41",
            b"text",
            b"text/a/b",
            b"application/pdf",
            b"multipart/mixed; boundary=q",
            b"Multipart/Alternative; boundary=q",
            b"message/rfc822",
            b"attachment; filename=b",
            b"inline",
        ]
    ),
    st.binary(max_size=12),
    st.text("ab :;=\t\r\n-é", max_size=12).map(str.encode),
)
BODIES = st.sampled_from(
    [b"", b"Hello\r\n", b"--q\r\nContent-Type: image/png\r\n\r\nabc\r\n--q--\r\n", b"\r\n\r\n", b"Subject: x\r\n\r\ny"]
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    fields = draw(st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b":  "]), VALUES, ENDS), max_size=6))
    return b"".join(b"".join(field) for field in fields) + draw(ENDS) + draw(BODIES)


@given(messages())
@example(b"Subject: a\r\n folded\r\n\r\nbody")
@example(b"Subject: a\r\n \r\n\r\nbody")
@example(b"Subject: \r\nFrom: b\r\n\r\n")
@example(b"Subject: a\n\r\n\r\n")
@example(b"From x: y\r\n\r\n")
@example(b"Subject: a \x0b\r\n\r\n")
def test_headers_are_those_that_the_thorough_reader_finds(mime: bytes) -> None:
    block = mime.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    thorough = message_from_bytes(block, policy=policy.compat32)
    read = parse_headers(block)
    assert read.fields == list(thorough.raw_items())
    if block.isascii():
        assert read.content_type == thorough.get_content_type()


@given(messages())
@example(b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n\r\nx\r\n--q--\r\n")
@example(b"Content-Type: application/pdf\r\n\r\n%PDF")
@example(b"content-TYPE: text/plain; NAME=x\r\n\r\n")
@example(b"Content-Disposition: inline\r\n\r\n")
@example(b"Content-Type: text/plain\r\n\r\nname")
def test_attachments_are_never_overlooked(mime: bytes) -> None:
    assert attachments(mime) == tuple(attachment for attachment, _ in opened(mime))


def test_a_message_of_one_text_is_not_taken_apart() -> None:
    mime = b"Subject: x\r\nContent-Type: text/plain\r\n\r\n" + b"y" * 100
    assert parse_headers(mime).fields == [("Subject", "x"), ("Content-Type", "text/plain")]
    assert attachments(mime) == ()


WORDS = st.text("aZ09_+-. ()<>@,\"'é", max_size=10)


@given(
    st.one_of(WORDS, st.builds('"{}" <{}@{}>'.format, WORDS, WORDS, WORDS), st.builds("{} <{}@x>".format, WORDS, WORDS))
)
@example("ada@example.com")
@example("Ada Brandt <ada.brandt@example.com>")
@example('"Ada  Brandt" <a@b>')
@example("Ada  Brandt <a@b>")
@example("a..b@c")
@example("a@b, c@d")
def test_addresses_are_those_that_the_thorough_reader_finds(text: str) -> None:
    author = parse_properties(f"From: {text}\r\n\r\n".encode()).author
    found = [(who, where) for who, where in getaddresses([_raw(text)]) if who or where]
    expected = (decode_text(found[0][0]), found[0][1]) if found else None
    assert (None if author is None else (author.name, author.email)) == expected


DATES = st.builds(
    "{}{} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon, ", "", "mon, ", "Xyz, ", "Mon,"]),
    st.sampled_from(["5", "05", "31", "32", "0"]),
    st.sampled_from(["Jan", "Feb", "Sep", "Dec", "JAN", "Foo"]),
    st.sampled_from(["2026", "26", "1999", "0001", "9999"]),
    st.sampled_from(["08", "23", "24", "8"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["+0100", "-1130", "-0000", "+0000", "GMT", "EST", "+2400", "+0060", "", "+0100 (MEZ)"]),
)


@given(DATES)
@example("31 Dec 9999 23:59:59 -1130")
def test_dates_are_those_that_the_thorough_reader_finds(text: str) -> None:
    expected: datetime | None
    try:
        expected = parsedate_to_datetime(text)
        expected = (expected if expected.tzinfo else expected.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        expected = None
    assert parse_properties(f"Date: {text}\r\n\r\n".encode()).sent == expected


@given(st.text("aq =?_", max_size=20))
@example("=?utf-8?q?h=C3=A4?=")
def test_text_that_needs_no_decoding_is_left_alone(text: str) -> None:
    assert decode_text(text) == str(make_header(decode_header(text)))


def _raw(text: str) -> str:
    """What Python's reader makes of a header with 8-bit bytes."""
    message = message_from_bytes(f"From: {text}\r\n\r\n".encode(), policy=policy.compat32)
    return next((value for _, value in message.raw_items()), "")
