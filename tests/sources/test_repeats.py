"""Answers that are the same as the last time are not read again, and all others are read as ever."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from ews_sync.errors import ConnectionFailedError, EwsSyncError, ProtocolError
from ews_sync.sources.ews.decoding import AnswerReader
from ews_sync.sources.ews.repeats import RepeatReader
from tests.sources.support import envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ews_sync.sources.ews.operations import Answer


class Readers:
    """Makes readers of answers, and counts them."""

    def __init__(self) -> None:
        self.made: list[AnswerReader] = []

    def __call__(self) -> AnswerReader:
        self.made.append(AnswerReader("asking"))
        return self.made[-1]


def folders(*names: str) -> bytes:
    found = "".join(
        f'<t:Folder><t:FolderId Id="id-{name}"/><t:DisplayName>{name}</t:DisplayName></t:Folder>' for name in names
    )
    return envelope(
        "<m:FindFolderResponse><m:ResponseMessages>"
        '<m:FindFolderResponseMessage ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode>'
        f'<m:RootFolder IncludesLastItemInRange="true"><t:Folders>{found}</t:Folders></m:RootFolder>'
        "</m:FindFolderResponseMessage></m:ResponseMessages></m:FindFolderResponse>"
    )


END = b"</m:RootFolder>" + folders("Inbox").partition(b"</m:RootFolder>")[2]
LONG_BEGINNING = folders("Inbox").removesuffix(END) + b"<!--" + b"x" * 140_000 + b"-->"
"""Longer than what is kept until the end of an answer is there."""


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut into pieces."""
    marks = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


def outcome(reader: AnswerReader | RepeatReader[Answer], pieces: Iterable[bytes]) -> object:
    """Give what comes of the pieces: the answer, or the error in words."""
    try:
        for piece in pieces:
            reader.feed(piece)
        return reader.close().value if isinstance(reader, RepeatReader) else reader.close()
    except EwsSyncError as error:
        return type(error), str(error)


ANSWERS = st.one_of(
    st.lists(st.text("abc", min_size=1, max_size=5), max_size=5).map(lambda names: folders(*names)),
    st.just(LONG_BEGINNING + END),
    st.just(folders("Inbox")[:-30]),
    st.just(b"<html>busy</html>"),
    st.just(b""),
)


@given(ANSWERS, st.lists(st.integers(0, 200_000), max_size=5), st.binary(min_size=16, max_size=16))
def test_an_answer_that_is_not_known_is_read_as_without_it(data: bytes, places: list[int], known: bytes) -> None:
    pieces = cut(data, places)
    assert outcome(RepeatReader(Readers(), known), pieces) == outcome(AnswerReader("asking"), pieces)


@given(st.lists(st.integers(0, 2000), max_size=5), st.lists(st.integers(0, 2000), max_size=5))
def test_the_same_bytes_are_known_again_however_they_come(first: list[int], second: list[int]) -> None:
    readers = Readers()
    reader = RepeatReader(readers, None)
    for piece in cut(folders("Inbox", "Sent"), first):
        reader.feed(piece)
    answered = reader.close()
    assert answered.value is not None
    assert [folder.name for folder in answered.value.messages[0].folders] == ["Inbox", "Sent"]
    again = RepeatReader(readers, answered.digest)
    for piece in cut(folders("Inbox", "Sent"), second):
        again.feed(piece)
    repeated = again.close()
    assert (repeated.value, repeated.digest) == (None, answered.digest)
    assert len(readers.made) == 1


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_byte_makes_another_answer(place: int, change: int) -> None:
    data = folders("Inbox")
    known = RepeatReader(Readers(), None)
    known.feed(data)
    readers = Readers()
    reader = RepeatReader(readers, known.close().digest)
    place %= len(data)
    outcome(reader, [data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]])
    assert len(readers.made) == 1


def test_a_long_answer_is_read_as_it_comes_and_never_known() -> None:
    readers = Readers()
    reader = RepeatReader(readers, b"")
    reader.feed(LONG_BEGINNING)
    assert len(readers.made) == 1, "not kept until its end"
    reader.feed(END)
    answered = reader.close()
    assert answered.value is not None
    assert answered.digest is None


def test_an_answer_that_was_cut_is_told_at_its_end() -> None:
    reader = RepeatReader(Readers(), None)
    reader.feed(folders("Inbox")[:-30])
    with pytest.raises(ConnectionFailedError, match="cut short"):
        reader.close()


def test_nonsense_that_is_long_is_told_before_its_end() -> None:
    reader = RepeatReader(Readers(), None)
    with pytest.raises(ProtocolError):
        reader.feed(b"<a><b></a>" + b"x" * 140_000)


def test_what_was_read_can_be_given_back_at_any_time() -> None:
    for pieces in ([], [folders("Inbox")[:100]], [LONG_BEGINNING]):
        reader = RepeatReader(Readers(), None)
        for piece in pieces:
            reader.feed(piece)
        reader.discard()
