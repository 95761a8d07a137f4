"""The reader of EWS answers: any bytes in, in any pieces; an answer or one of our errors out."""

from __future__ import annotations

import base64
import binascii
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings, strategies as st

from tests.fuzz.answers import REAL, TOKENS, element, in_pieces, mutated, outcome, whole_answer
from tests.sources.support import cut, got, item_xml, read, response

if TYPE_CHECKING:
    from ews_sync.sources.ews.operations import ItemRecord

SOUP = st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3)), max_size=12).map(b"".join)
HEAD, _, TAIL = response("GetItem", got("?")).partition(b"?>")[2].partition(b"?")


@given(st.one_of(st.binary(max_size=200), SOUP, SOUP.map(lambda soup: HEAD + soup + TAIL)), st.integers(1, 50))
@settings(max_examples=400, deadline=None)
def test_any_bytes_in_any_pieces(data: bytes, size: int) -> None:
    assert outcome(cut(data, size)) == outcome([data])


@pytest.mark.parametrize("seed", range(8))
def test_answers_that_are_nearly_right(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        data = whole_answer(rng)
        assert outcome(in_pieces(data, rng)) == outcome([data]), data


@pytest.mark.parametrize("seed", range(8))
def test_real_answers_with_damage(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        data = mutated(rng.choice(REAL), rng)
        assert outcome(in_pieces(data, rng)) == outcome([data]), data


# --- What is not damaged survives ------------------------------------------------------------------------------------

GOOD = item_xml("good", b"the message", ConversationTopic="topic", Categories="<t:String>Red</t:String>")


def items_of(data: bytes) -> list[ItemRecord]:
    return [item for message in read(data).messages for item in message.items]


def described(item: ItemRecord) -> tuple[ItemRecord, bytes]:
    assert item.mime is not None
    return replace(item, mime=None), b"".join(item.mime.chunks())


@pytest.mark.parametrize("seed", range(8))
def test_a_bad_item_costs_neither_its_neighbours_nor_the_page(seed: int) -> None:
    rng = random.Random(seed)
    (control,) = items_of(response("GetItem", got(GOOD)))
    for _ in range(40):
        bad = element(rng, "t:Message").replace("&undeclared;", "")
        for data in (response("GetItem", got(GOOD), got(bad), got(GOOD)), response("FindItem", got(GOOD + bad + GOOD))):
            items = items_of(data.replace(b"<s:Envelope", b'<s:Envelope xmlns:x="urn:x" xmlns:e="urn:e"', 1))
            assert len(items) == 3
            assert described(items[0]) == described(items[2]) == described(control)


# --- A message is what was sent, or damaged --------------------------------------------------------------------------

NEUTRAL = ("<!-- c -->", "<?p i?>", "\n", "\t", " ", "&#10;", "&#32;", "<!--=-->")
FOREIGN = ("!", "=", "====", "&#0;", "\0", "\x0b", "\xa0", "\u00e9", "&amp;", "-", "_", "<t:x/>", "<x>QUJD</x>", "\x7f")
MIMES = st.binary(min_size=1, max_size=60)


def with_mime(content: str) -> bytes:
    return response("GetItem", got(f'<t:Message>{content}<t:ItemId Id="i"/></t:Message>'))


@st.composite
def base64_texts(draw: st.DrawFn, inserted: tuple[str, ...]) -> tuple[bytes, str]:
    """A message, and its base64 with something put into it at some places."""
    data = draw(MIMES)
    text = base64.b64encode(data).decode()
    for place in sorted(draw(st.lists(st.integers(0, len(text)), min_size=1, max_size=3)), reverse=True):
        text = text[:place] + draw(st.sampled_from(inserted)) + text[place:]
    return data, text


@given(base64_texts(NEUTRAL))
@settings(deadline=None)
def test_what_means_nothing_inside_a_message_changes_nothing(case: tuple[bytes, str]) -> None:
    data, text = case
    for content in (text, text.replace("A", "<![CDATA[A]]>"), text.replace("B", "&#66;"), text.replace("C", "&#x43;")):
        (item,) = items_of(with_mime(f"<t:MimeContent>{content}</t:MimeContent>"))
        assert described(item)[1] == data


@given(base64_texts(FOREIGN))
@example((b"ABCDEF", "QUJD\0REVG"))
@settings(deadline=None)
def test_what_does_not_belong_into_a_message_is_damage(case: tuple[bytes, str]) -> None:
    data, text = case
    (item,) = items_of(with_mime(f"<t:MimeContent>{text}</t:MimeContent>"))
    if item.mime is None:
        assert item.mime_damaged
    else:
        # Nothing but padding that was put where padding was: then it is still what the text says.
        assert strictly_decoded(text) == described(item)[1]
        assert set(text) <= set(base64.b64encode(data).decode()) | {"="}


def strictly_decoded(text: str) -> bytes | None:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


@given(MIMES, st.data())
@settings(deadline=None)
def test_base64_that_is_cut_short_is_damage_or_what_the_server_said(data: bytes, draw: st.DataObject) -> None:
    text = base64.b64encode(data).decode()
    text = text[: draw.draw(st.integers(0, len(text)))]
    (item,) = items_of(with_mime(f"<t:MimeContent>{text}</t:MimeContent>"))
    assert item.mime_damaged == (len(text) % 4 != 0)


@pytest.mark.parametrize(
    "content",
    [
        "<t:MimeContent>QUJD</t:MimeContent><t:MimeContent>REVG</t:MimeContent>",
        "<t:MimeContent>QUJD</t:MimeContent><t:MimeContent/>",
        "<t:MimeContent/><t:MimeContent>QUJD</t:MimeContent>",
        "<t:MimeContent>QUJD<t:MimeContent>REVG</t:MimeContent></t:MimeContent>",
    ],
)
def test_of_two_messages_in_one_item_neither_is_taken_for_the_whole(content: str) -> None:
    (item,) = items_of(with_mime(content))
    assert item.mime is None
    assert item.mime_damaged
    assert item.ref.id == "i"
