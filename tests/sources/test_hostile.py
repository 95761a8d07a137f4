"""Input that means harm, or comes from something very broken: only our errors, in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from ews_sync.errors import EwsSyncError, ProtocolError, SourceError
from ews_sync.sources.ews.decoding import AnswerReader
from tests.sources.support import MESSAGES, SOAP, TYPES, cut, envelope, fault, got, item_xml, read, response
from tests.sources.test_decoding import CHANGES, FOLDERS, HIERARCHY, ITEMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOMB = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


def with_prolog(prolog: str, topic: str) -> bytes:
    return response("GetItem", got(item_xml(ConversationTopic=topic))).replace(b"?>", b"?>" + prolog.encode(), 1)


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_entities_and_document_types_end_the_reading(size: int) -> None:
    with pytest.raises(ProtocolError, match=r"document type|not well-formed"):
        read(cut(with_prolog(BOMB, "&b;"), size))


def test_an_external_entity_is_not_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("swordfish")
    for prolog in (
        f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{secret}">]>',
        f'<!DOCTYPE x SYSTEM "file://{secret}">',
        f'<!DOCTYPE x [<!ENTITY % a SYSTEM "file://{secret}"> %a;]>',
    ):
        with pytest.raises(ProtocolError) as caught:
            read(with_prolog(prolog, "&a;"))
        assert "swordfish" not in str(caught.value)


def test_an_entity_that_nobody_declared() -> None:
    with pytest.raises(ProtocolError, match="not well-formed"):
        read(response("GetItem", got(item_xml(ConversationTopic="a&nbsp;b"))))


@pytest.mark.parametrize("name", ["a", "t:Items", "m:Items", "t:MimeContent"])
def test_deep_nesting_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError, match="nested too deeply"):
        read(response("GetItem", got(item_xml() + f"<{name}>" * 100_000)))


def endless(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    for _ in range(100 * 1024 * 1024 // len(piece)):
        yield piece


def feed_all(reader: AnswerReader, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)


OPEN = response("GetItem", got("")).partition(b"</m:Items>")[0]
ENDLESS = {
    "attribute": (OPEN + b'<t:Message a="', b"x" * 65536),
    "tag": (OPEN + b"<t:Mess", b"a" * 65536),
    "comment": (OPEN + b"<!--", b"x" * 65536),
    "instruction": (OPEN + b"<?x ", b"x" * 65536),
    "text": (OPEN + b"<t:Message><t:Subject>", b"x" * 65536),
    "cdata": (OPEN + b"<t:Message><t:Subject><![CDATA[", b"x" * 65536),
    "elements": (OPEN + b"<t:Message>", b"<t:a/>" * 10_000),
    "items": (OPEN, item_xml(mime=None, ConversationTopic="x" * 10_000).encode() * 10),
    "attributes": (OPEN, f'<t:Message x="{"y" * 60_000}"/>'.encode()),
    "messages": (OPEN + b"</m:Items></m:GetItemResponseMessage>", b"<m:GetItemResponseMessage/>" * 2000),
    "leading zeros": (OPEN + b"<t:Message><t:Subject>&#", b"0" * 65536),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_does_not_end_is_refused_before_it_takes_much_memory(kind: str) -> None:
    reader = AnswerReader("reading")
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            feed_all(reader, endless(*ENDLESS[kind]))
        reader.discard()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 120 * 1024 * 1024


def test_a_large_attribute_within_reason_is_read() -> None:
    data = response("GetItem", got(f'<t:Message><t:ItemId Id="{"x" * 1_000_000}"/></t:Message>'))
    assert len(read(cut(data, 65536)).messages[0].items[0].ref.id) == 1_000_000


def test_what_is_between_records_costs_no_memory() -> None:
    reader = AnswerReader("reading")
    reader.feed(OPEN)
    tracemalloc.start()
    try:
        for _ in range(300):
            reader.feed(b" " * 65536)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-7", "x-unknown"])
def test_the_declared_encoding_does_not_count(encoding: str) -> None:
    data = ITEMS.replace(b'encoding="utf-8"', f'encoding="{encoding}"'.encode())
    assert read(data).messages[0].items[0].ref.id == "i1"


def test_utf_16_is_refused() -> None:
    with pytest.raises(SourceError):
        read(ITEMS.decode().encode("utf-16"))


# --- Any bytes in any pieces -----------------------------------------------------------------------------------------

TAGS = ("a", "t:Message", "t:MimeContent", "m:Items", "t:Items", "m:RootFolder", "t:ItemId", "s:Fault", "s:Body")
FRAGMENTS = [
    *(f"<{tag}>" for tag in TAGS),
    *(f"</{tag}>" for tag in TAGS),
    '<t:ItemId Id="x"/>', "<t:Create>", "</t:Create>", "<m:Changes>", "</m:Changes>", "<t:FolderId/>", "SGk=", "SG",
    "=", "\n", "&#0;", "&#x41;", "&lt;", "&x;", "&", "<", ">", "<!--", "-->", "<![CDATA[", "]]>", "<?x?>",
    "<!DOCTYPE a>",
    "<t:Size>12</t:Size>", "<t:DateTimeReceived>0001-01-01T00:00:00Z</t:DateTimeReceived>", "\x00", "\ufffe", "é",
    "<m:ResponseCode>ErrorServerBusy</m:ResponseCode>", "<m:SyncState/>", "<t:Categories/>", "<t:Attachments><t:x/>",
    '<t:ExtendedProperty><t:ExtendedFieldURI PropertyTag="0x300B"/><t:Value>=</t:Value></t:ExtendedProperty>',
]  # fmt: skip
HEAD = (
    f'<s:Envelope xmlns:s="{SOAP}" xmlns:m="{MESSAGES}" xmlns:t="{TYPES}"><s:Body><m:R><m:ResponseMessages>'
    "<m:GetItemResponseMessage>"
).encode()
TAIL = b"</m:GetItemResponseMessage></m:ResponseMessages></m:R></s:Body></s:Envelope>"
SOUP = st.lists(st.one_of(st.sampled_from([text.encode() for text in FRAGMENTS]), st.binary(max_size=3)), max_size=12)
WHOLE = [FOLDERS, ITEMS, CHANGES, HIERARCHY, fault("ErrorServerBusy", backoff="10"), envelope("")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer with a part taken out and something else put in."""
    data = draw(st.sampled_from(WHOLE))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    return data[:start] + b"".join(draw(SOUP)) + data[end:]


ANYTHING = st.one_of(
    st.binary(max_size=200), SOUP.map(b"".join), SOUP.map(lambda parts: HEAD + b"".join(parts) + TAIL), damaged()
)


def result(pieces: list[bytes]) -> str:
    """What comes of reading: the answer, or the kind of our error. Anything else is a bug."""
    try:
        return repr(read(pieces))
    except EwsSyncError as error:
        return error.code or "no answer"


@given(ANYTHING, st.integers(1, 50))
@settings(max_examples=600, deadline=None)
def test_any_bytes_in_any_pieces_give_an_answer_or_our_error(data: bytes, size: int) -> None:
    assert result(cut(data, size)) == result([data])


def test_reading_is_fast_enough() -> None:
    data = response("GetItem", *(got(item_xml(f"i{number}", b"x" * 5000)) for number in range(200)))
    begun = time.process_time()
    assert len(read(cut(data, 65536)).messages) == 200
    # About 10 ms on a slow machine; what takes a second has become quadratic.
    assert time.process_time() - begun < 1.0
