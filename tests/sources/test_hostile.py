"""Input that means harm, or comes from something very broken: only our errors, in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import ProtocolError, SourceError
from ews_sync.sources.ews.decoding import AnswerReader
from tests.sources.support import cut, envelope, got, item_xml, read, response
from tests.sources.test_decoding import ITEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BOMB = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


def with_prolog(prolog: str, topic: str) -> bytes:
    return response("GetItem", got(item_xml(ConversationTopic=topic))).replace(b"?>", b"?>" + prolog.encode(), 1)


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_entities_and_document_types_end_the_reading(size: int) -> None:
    with pytest.raises(ProtocolError, match=r"document type|not well-formed"):
        read(cut(with_prolog(BOMB, "&b;"), size))


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("before", ["", "\r\n ", "<!-- - -->", "<?a <b> ?>", "<!-- <a> --> <?b?>"])
def test_a_document_type_is_found_behind_whatever_may_be_before_it(before: str, size: int) -> None:
    with pytest.raises(ProtocolError, match="document type"):
        read(cut(with_prolog(f"{before}<!DOCTYPE x>", "y"), size))


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("prolog", ["<!-- <!DOCTYPE x> -->", "<?a <!DOCTYPE x> ?>"])
def test_what_only_looks_like_a_document_type(prolog: str, size: int) -> None:
    topic = read(cut(with_prolog(prolog, "<![CDATA[<!DOCTYPE x>]]>"), size)).messages[0].items[0].conversation_topic
    assert topic == "<!DOCTYPE x>"


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


def feed_all(reader: AnswerReader, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)


ENDLESS_BYTES = 100 * 1024 * 1024


def endless(start: bytes, *pieces: bytes) -> Iterator[bytes]:
    """What begins like an answer and goes on, far beyond what anybody would take."""
    yield start
    sent = 0
    while sent < ENDLESS_BYTES:
        for piece in pieces:
            yield from cut(piece, 65536)
            sent += len(piece)


def numbered(start: bytes, template: str) -> Iterator[bytes]:
    """The same with something new in each element."""
    yield start
    for number in range(0, ENDLESS_BYTES // len(template), 1000):
        yield "".join(template.replace("#", str(number + more)) for more in range(1000)).encode()


OPEN = response("GetItem", got("")).partition(b"</m:Items>")[0]
SUBJECT = OPEN + b"<t:Message><t:Subject>"
FAULT = envelope("").partition(b"</s:Body>")[0] + b"<s:Fault><faultstring>"
NAMESPACES = "".join(f' xmlns:a{number}="u"' for number in range(1000))
ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "attribute": lambda: endless(OPEN + b'<t:Message a="', b"x" * 65536),
    "tag": lambda: endless(OPEN + b"<t:Mess", b"a" * 65536),
    "comment": lambda: endless(OPEN + b"<!--", b"x" * 65536),
    "instruction": lambda: endless(OPEN + b"<?x ", b"x" * 65536),
    "instructions": lambda: endless(SUBJECT, b"<?x ?>" * 10_000),
    "text": lambda: endless(SUBJECT, b"x" * 65536),
    "wide text": lambda: endless(SUBJECT, "\U0001f525".encode() * 16_000),
    "cdata": lambda: endless(SUBJECT + b"<![CDATA[", b"x" * 65536),
    "references": lambda: endless(SUBJECT, b"&#x4e00;" * 8000),
    "ampersands": lambda: endless(FAULT, b"&amp;" * 10_000),
    "instructions before the envelope": lambda: endless(b"", b"<?x ?>" * 10_000),
    "a page": lambda: endless(b"<html>", b"<p>Sign in</p>" * 1000),
    "text between comments": lambda: endless(SUBJECT, "\u4e2d<!---->".encode() * 6000),
    "leading zeros": lambda: endless(SUBJECT + b"&#", b"0" * 65536),
    "elements": lambda: endless(OPEN + b"<t:Message>", b"<t:a/>" * 10_000),
    "items": lambda: endless(OPEN, item_xml(mime=None, ConversationTopic="x" * 10_000).encode() * 10),
    "empty items": lambda: endless(OPEN, b"<t:Message/>" * 5000),
    "empty folders": lambda: endless(OPEN.replace(b"m:Items", b"m:Folders"), b"<t:Folder/>" * 5000),
    "changes": lambda: endless(
        OPEN.replace(b"m:Items", b"m:Changes"), b"<t:Create><t:ItemId Id='x'/></t:Create>" * 1500
    ),
    "messages": lambda: endless(OPEN + b"</m:Items></m:GetItemResponseMessage>", b"<m:GetItemResponseMessage/>" * 2000),
    "attributes": lambda: endless(OPEN, f'<t:Message x="{"y" * 60_000}"/>'.encode()),
    "a million attributes": lambda: numbered(OPEN + b"<t:Message", ' a#=""'),
    "namespaces": lambda: numbered(OPEN + b"<t:Message", ' xmlns:a#="u"'),
    "namespaces again and again": lambda: endless(OPEN + b"<t:Message>", f"<t:a{NAMESPACES}/>".encode()),
    "new elements": lambda: numbered(OPEN + b"</m:Items>", "<n#/>"),
    "new elements in the header": lambda: numbered(OPEN.partition(b"</s:Header>")[0], "<n#/>"),
    "new attributes": lambda: numbered(OPEN, "<n a#=''/>"),
    "new attributes of records": lambda: numbered(OPEN, "<t:Message a#=''/>"),
    "new elements in records": lambda: numbered(OPEN, "<t:Message><n#/></t:Message>"),
    "new namespaces": lambda: numbered(OPEN, "<n xmlns='u#'/>"),
    "long names": lambda: endless(OPEN, b"<" + b"a" * 40_000 + b"/>"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_does_not_end_is_refused(kind: str) -> None:
    """What it costs until then is in tests/fuzz/test_costs.py."""
    reader = AnswerReader("reading")
    with pytest.raises(ProtocolError):
        feed_all(reader, ENDLESS[kind]())
    reader.discard()


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


def test_reading_is_fast_enough() -> None:
    data = response("GetItem", *(got(item_xml(f"i{number}", b"x" * 5000)) for number in range(200)))
    begun = time.process_time()
    assert len(read(cut(data, 65536)).messages) == 200
    # About 10 ms on a slow machine; what takes a second has become quadratic.
    assert time.process_time() - begun < 1.0
