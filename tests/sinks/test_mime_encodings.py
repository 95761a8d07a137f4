"""Bodies encoded in pieces: the same wherever they are cut, and the same as the standard library makes of the whole."""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, strategies as st

from ews_sync.sinks.mime_encodings import (
    base64_pieces,
    escaped_line,
    is_mostly_ascii,
    quoted_printable_pieces,
    without_junk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CUTS = st.lists(st.integers(1, 3) | st.integers(1, 90), min_size=1, max_size=8)
BYTES = st.binary(max_size=300) | st.lists(
    st.sampled_from(
        [
            b"a" * 74,
            b"b" * 37,
            b".",
            b".\r",
            b"..",
            b"-",
            b"=",
            b"==",
            b" ",
            b"\t",
            b"\r",
            b"\n",
            b"\r\n",
            b"\xe9",
            b"\0",
            b"c",
        ]
    ),
    max_size=30,
).map(b"".join)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        for size in sizes:
            yield data[start : start + size]
            start += size


@given(BYTES, CUTS, st.sampled_from([b"\n", b"\r\n"]))
def test_quoted_printable_of_pieces_is_that_of_the_whole(data: bytes, sizes: list[int], newline: bytes) -> None:
    whole = re.sub(rb"\r(?=\n)", b"", data)
    expected = b"\n".join(
        re.sub(rb"(?m)^-", b"=2D", binascii.b2a_qp(line, istext=False)) for line in whole.split(b"\n")
    )
    made = b"".join(quoted_printable_pieces(cut(data, sizes), newline))
    assert made.replace(b"\r\n", b"\n") == expected
    assert quopri.decodestring(made.replace(b"=" + newline, b"")) == data


@given(BYTES, CUTS)
def test_base64_of_pieces_is_that_of_the_whole(data: bytes, sizes: list[int]) -> None:
    assert b"".join(base64_pieces(cut(data, sizes), b"\n")) == base64.encodebytes(data)


@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable", b"x-uuencode"])
@given(BYTES, CUTS)
@example(b"a=\xe9", [2])
@example(b"a==\xe9===\xe9", [2, 3, 1])
def test_junk_is_the_same_wherever_the_cuts_are(encoding: bytes, data: bytes, sizes: list[int]) -> None:
    made = b"".join(without_junk(cut(data, sizes), encoding))
    assert made == b"".join(without_junk([data], encoding))
    assert made.isascii()
    decode: Callable[[bytes], bytes] = quopri.decodestring
    if encoding == b"quoted-printable":
        assert decode(made) == decode(data)


@given(BYTES.map(lambda data: re.sub(rb"[\r\n]", b"", data)), CUTS)
def test_a_line_is_escaped_the_same_wherever_the_cuts_are(data: bytes, sizes: list[int]) -> None:
    made = b"".join(escaped_line(cut(data, sizes)))
    assert made == b"".join(escaped_line([data]))
    assert not made.startswith(b"-")
    assert binascii.a2b_qp(made.replace(b"=\n", b"") + b"x") == data + b"x"


def test_what_a_person_can_read_is_mostly_ascii() -> None:
    assert is_mostly_ascii([b"a" * 4, b"a\xe9"])
    assert not is_mostly_ascii([b"a\xe9", b"a" * 3])
    assert not is_mostly_ascii([b"a" * 100, b"\0"])


@pytest.mark.parametrize("text", [b"a", b".\r", b"-", b" ", b"\n"])
def test_no_piece_grows_with_the_length_of_a_line(text: bytes) -> None:
    blocks: Iterable[bytes] = (text * 1000 for _ in range(200))
    assert max(len(piece) for piece in quoted_printable_pieces(blocks, b"\r\n")) < 20_000
