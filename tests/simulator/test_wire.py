from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, strategies as st
from lxml import etree

from ews_sync.simulator import ids
from ews_sync.simulator.wire import Dialect, XmlWriter, escape, wire_time

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
SPACE = ids.mailbox_space("a@example.com", 0)


def test_an_answer_comes_in_pieces_that_are_worth_a_write() -> None:
    out = XmlWriter(Dialect())
    out.start("t:Items")
    messages = [bytes([n]) * size for n, size in enumerate([24_000] * 40 + [3_000_000, 0, 1])]
    for message in messages:
        out.base64("t:MimeContent", lambda message=message: message)  # type: ignore[misc]
        out.leaf("t:Subject", "x" * 300)
    out.end()
    pieces = list(out.chunks())
    assert all(128 * KIB <= len(piece) <= 384 * KIB for piece in pieces[:-1])
    root = etree.fromstring(b"".join(pieces).replace(b"t:", b""), etree.XMLParser(huge_tree=True))
    assert [base64.b64decode(found.text or "") for found in root.iter("MimeContent")] == messages


def test_texts_come_in_pieces_too() -> None:
    out = XmlWriter(Dialect())
    for _ in range(3000):
        out.leaf("t:Subject", "é" * 300)
    pieces = list(out.chunks())
    assert len(pieces) > 5
    assert max(map(len, pieces)) < 384 * KIB
    assert b"".join(pieces).decode().count("<t:Subject>") == 3000


def test_messages_are_made_only_when_what_comes_before_them_is_on_its_way() -> None:
    made: list[int] = []

    def maker(number: int) -> Callable[[], bytes]:
        def make() -> bytes:
            made.append(number)
            return b"x" * 200_000

        return make

    out = XmlWriter(Dialect())
    for number in range(5):
        out.base64("t:MimeContent", maker(number))
    pieces = out.chunks()
    next(pieces)
    assert made == [0]
    next(pieces)
    assert made == [0, 1]


@given(st.text())
@example("\x00\x0b\ud800\ufffe\r\n\t")
@example('<&>"')
def test_escaped_text_reads_as_it_was(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set('<>"\r\x00\x0b\ufffe\uffff')
    root = etree.fromstring(f"<x>{escaped}</x>".encode(), etree.XMLParser(recover=True))
    legal = "".join(
        c for c in text if c in "\t\n\r" or (" " <= c < "\ud800") or ("\ue000" <= c < "\ufffe") or c > "\uffff"
    )
    assert legal != text or (root.text or "") == text


def test_times_are_utc_in_whole_seconds() -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert wire_time(moment) == "2026-03-01T10:00:00Z"
    assert wire_time(datetime(987, 1, 2, tzinfo=UTC)) == "0987-01-02T00:00:00Z"


@given(st.integers(0, 2**40))
def test_ids_are_read_back(number: int) -> None:
    assert ids.parse(ids.item_id(SPACE, number)) == ids.ParsedId(SPACE, "item", number)
    assert ids.parse(ids.folder_id(SPACE, number)) == ids.ParsedId(SPACE, "folder", number)
    attachment = ids.attachment_id(ids.item_id(SPACE, 1), number)
    assert ids.parse_attachment(attachment) == (ids.ParsedId(SPACE, "item", 1), number)


@given(st.integers(0, ids.ITEM_ID_LENGTH - 1), st.sampled_from("A z+=-é\n"))
def test_what_is_not_quite_an_id_is_none(place: int, letter: str) -> None:
    known = ids.item_id(SPACE, 123_456)
    spoiled = known[:place] + letter + known[place + 1 :]
    try:
        parsed = ids.parse(spoiled)
    except ids.MalformedIdError:
        assert spoiled != known
    else:
        assert ids.item_id(parsed.space, parsed.number) == spoiled


@pytest.mark.parametrize(
    "text", ["", "A", "é" * ids.ITEM_ID_LENGTH, "A" * ids.ITEM_ID_LENGTH, ids.item_id("é" * 64, 1)]
)
def test_what_is_no_id_at_all_is_malformed(text: str) -> None:
    with pytest.raises(ids.MalformedIdError):
        ids.parse(text)
    with pytest.raises(ids.MalformedIdError):
        ids.parse_attachment(text)
