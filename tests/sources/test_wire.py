from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st
from lxml import etree

from ews_sync.sources.ews.wire import XmlMender
from tests.sources.support import cut


def mend(pieces: list[bytes]) -> bytes:
    mender = XmlMender()
    return b"".join([mender.feed(piece) for piece in pieces]) + mender.close()


SPICE = [
    "&#x0;", "&#0;", "&#xB;", "&#11;", "&#xFFFF;", "&#xfffe;", "&#xD800;", "&#x110000;", "&#99999999999;", "&#x9;",
    "&#10;", "&#x1F600;", "&#0000000000000000000000000000000000000000000065;", "&amp;", "&lt;", "&#", "&", "&#x;",
    "&#x0", "\x00", "\x0b", "\ufffe", "\uffff", "é", "😀", "\x7f", "a", ";", "#", "x",
    "&#x" + "0" * 63 + "B;", "&#x" + "0" * 64 + "B;", "&#" + "0" * 80, "]]&gt;",
]  # fmt: skip
WIRE = st.lists(st.one_of(st.sampled_from([text.encode() for text in SPICE]), st.binary(max_size=4))).map(b"".join)


@pytest.mark.parametrize(
    ("given_", "mended"),
    [
        (b"a&#x0;b", b"a&#xFFFD;b"),
        (b"a&#xB;&#11;b", b"a&#xFFFD;&#xFFFD;b"),
        (b"&#xFFFF;&#xD800;&#x110000;", b"&#xFFFD;" * 3),
        (b"&#x9;&#10;&#x41;&#x1F600;", b"&#x9;&#10;&#x41;&#x1F600;"),
        (b"&amp;#x0;", b"&amp;#x0;"),
        (b"a\x00b\x0bc\td\r\n", b"a\x7fb\x7fc\td\r\n"),
        ("a\ufffeb\uffffc".encode(), "a\ufffdb\ufffdc".encode()),
        (b"caf\xe9!", "caf\ufffd!".encode()),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd".encode()),
        (b"end\xc3", "end\ufffd".encode()),
        ("naïve 😀".encode(), "naïve 😀".encode()),
        (b"A" * 100, b"A" * 100),
    ],
)
def test_what_xml_forbids_is_replaced_wherever_the_pieces_are_cut(given_: bytes, mended: bytes) -> None:
    for size in range(1, len(given_) + 1):
        assert mend(cut(given_, size)) == mended


@given(WIRE, st.integers(1, 9))
def test_the_cuts_make_no_difference(data: bytes, size: int) -> None:
    assert mend(cut(data, size)) == mend([data])


@given(WIRE)
def test_what_comes_out_is_utf_8_without_anything_that_xml_forbids(data: bytes) -> None:
    text = mend([data]).decode("utf-8", "strict")
    assert not re.search("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    for match in re.finditer(r"&#(?:x([0-9a-fA-F]{1,64})|([0-9]{1,64}));", text, re.IGNORECASE):
        etree.fromstring(f"<a>{match[0]}</a>")


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="&\ufffe\uffff")))
def test_what_is_fine_passes_untouched(text: str) -> None:
    assert mend([text.encode()]) == text.encode()


def test_what_is_held_back_at_the_end_of_a_piece_is_bounded() -> None:
    mender = XmlMender()
    given_ = b"&#x" + b"0" * 10_000
    assert len(given_) - len(mender.feed(given_)) <= 68
