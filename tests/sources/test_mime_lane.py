"""A message's base64 goes past the XML parser. Whatever stands in and around it, that must make no difference.

A message whose tag is so long that it is not kept until it is whole goes through the parser when it is fed in small
pieces: that is what is compared with.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings, strategies as st

from ews_sync.errors import ProtocolError, SourceError
from ews_sync.sources.ews.spool import Room, SpoolWriter
from tests.sources.support import cut, got, item_xml, message, read, response

if TYPE_CHECKING:
    from ews_sync.sources.ews.mime import MimeWriter

TEXT = base64.b64encode(b"Subject: hello\r\n\r\nand so on, " * 12).decode()
HALF = len(TEXT) // 8 * 4

NESTED = (
    "<m:ResponseMessages><m:X><m:Items><t:Message><t:MimeContent>QUJD</t:MimeContent></t:Message></m:Items></m:X>"
    "</m:ResponseMessages>"
)
INSIDE = [
    TEXT,
    f"{TEXT[:HALF]}\n{TEXT[HALF:]}\n",
    f"\r\n {TEXT}",
    f"{TEXT[:HALF]}&#13;&#10;{TEXT[HALF:]}",
    f"{TEXT[:HALF]}&amp;{TEXT[HALF:]}",
    f"{TEXT[:HALF]}&#65;{TEXT[HALF:]}",
    f"{TEXT[:HALF]}<![CDATA[{TEXT[HALF:]}]]>",
    f"<![CDATA[{TEXT}]]>",
    f"{TEXT[:HALF]}<!-- <t:MimeContent>QUJD -->{TEXT[HALF:]}",
    f"<!-- MimeContent > QUJD -->{TEXT}",
    f"<!-- <t:MimeContent> -->{TEXT}",
    f"{TEXT[:HALF]}<!-- <MimeContent>QUJD</a> -->{TEXT[HALF:]}",
    f"{TEXT}{NESTED}{TEXT}",
    f"{TEXT[:HALF]}<?pi <t:MimeContent> ?>{TEXT[HALF:]}",
    f"{TEXT[:HALF]}<t:Other/>{TEXT[HALF:]}",
    f"{TEXT[:HALF]}<t:MimeContent>{TEXT[HALF:]}</t:MimeContent>",
    f"{TEXT[:HALF]}MimeContent>{TEXT[HALF:]}",
    f"MimeContent{TEXT}",
    "QUJD====",
    "QQ==QUJD",
    "QUI",
    "",
    "\x01" + TEXT,
    TEXT + "ü",
    TEXT + "&#xFFFF;",
]
AROUND = [
    "{}",
    "<!-- <t:MimeContent>QUJD</t:MimeContent> -->{}",
    "{}<t:Subject>&lt;t:MimeContent&gt;</t:Subject>",
    "<t:Subject>a > MimeContent ></t:Subject>{}",
    "<t:Attachments><t:Attached><t:Message><t:MimeContent>QUJD</t:MimeContent></t:Message></t:Attached></t:Attachments>{}",
    "<x:MimeContent xmlns:x='urn:x'>QUJD</x:MimeContent>{}",
    "<MimeContent xmlns=''>QUJD</MimeContent>{}",
    "<t:MimeContentUTF8>QUJD</t:MimeContentUTF8>{}",
    "<t:X></t:X>MimeContent{}",
    "{}{}",
]
TAGS = [
    ("<t:MimeContent>", "</t:MimeContent>"),
    ("<t:MimeContent CharacterSet='UTF-8'>", "</t:MimeContent >"),
    ("<t:MimeContent CharacterSet='a>b'\n>", "</t:MimeContent>"),
    (f"<t:MimeContent{' ' * 1100}>", "</t:MimeContent>"),
    ("<y:MimeContent xmlns:y='http://schemas.microsoft.com/exchange/services/2006/types'>", "</y:MimeContent>"),
]


def answer(inside: str, around: str, tags: tuple[str, str]) -> bytes:
    content = around.replace("{}", f"{tags[0]}{inside}{tags[1]}")
    return response(
        "GetItem",
        got(f"<t:Message>{content}<t:ItemId Id='i1'/></t:Message>"),
        got(item_xml("i2", b"Subject: the next\r\n\r\n")),
        message("GetItem", code="ErrorItemNotFound"),
    )


def seen(data: bytes, size: int) -> object:
    """Say all that is read of an answer in pieces of `size` bytes, and that all room was given back in the end."""
    room = Room()
    free = room.free

    def new_writer() -> MimeWriter:
        return SpoolWriter(room=room)

    try:
        messages = read(cut(data, size), new_writer).messages
    except SourceError as error:
        # Where in the answer the parser stopped is told without the base64 that went past it.
        result: object = type(error), error.code
    else:
        items = [item for one in messages for item in one.items]
        result = (
            [(one.code, len(one.items)) for one in messages],
            [(item.ref, item.mime_damaged, item.mime and b"".join(item.mime.chunks())) for item in items],
        )
        for item in items:
            if item.mime is not None:
                item.mime.close()
    assert room.free == free
    return result


def through_the_parser(data: bytes) -> object:
    return seen(re.sub(rb"<(\w+:)?MimeContent(?=[\s>])", lambda tag: tag[0] + b" " * 1100, data), 7)


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("inside", INSIDE)
def test_past_the_parser_and_through_it(inside: str, around: str, tags: tuple[str, str]) -> None:
    data = answer(inside, around, tags)
    assert seen(data, len(data)) == seen(data, 1) == through_the_parser(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(INSIDE), st.sampled_from(AROUND), st.sampled_from(TAGS), st.integers(2, 2500))
def test_cut_anywhere(inside: str, around: str, tags: tuple[str, str], size: int) -> None:
    data = answer(inside, around, tags)
    assert seen(data, size) == through_the_parser(data)


def test_the_parser_sees_nothing_of_a_message() -> None:
    """What XML forbids in a text shows who reads it: the parser refuses the answer, and else one message is damaged."""
    data = answer(f"{TEXT}]]>", "{}", TAGS[0])
    assert through_the_parser(data) == (ProtocolError, "")
    for size in (1, len(data)):
        _, items = cast("tuple[object, list[tuple[object, bool, bytes | None]]]", seen(data, size))
        assert [(damaged, mime) for _, damaged, mime in items] == [(True, None), (False, b"Subject: the next\r\n\r\n")]


def test_what_is_in_no_namespace_is_foreign() -> None:
    data = response("GetItem", got("<Message xmlns=''><ItemId Id='i1'/></Message>"), got(item_xml("i2")))
    first, second = read(data).messages
    assert not first.items
    assert [item.ref.id for item in second.items] == ["i2"]
    data = response("GetItem", got("<t:Message><ItemId xmlns='' Id='i1'/></t:Message>"))
    assert [item.ref.id for item in read(data).messages[0].items] == [""]
