"""Long arrays, an element at a time."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from ews_sync.sinks.platform.json_stream import ElementReader, TooLargeError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


def read(
    data: bytes, cuts: list[int], *, largest: int = 10**6, longest_string: int | None = None
) -> tuple[object, list[object]]:
    reader = ElementReader(largest=largest, longest_string=longest_string)
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    elements = []
    for start, end in pairwise(edges):
        elements += [json.loads(element) for element in reader.feed(data[start:end])]
    return json.loads(reader.rest()), elements


@given(
    elements=st.lists(OBJECTS, max_size=5),
    before=OBJECTS,
    ascii_only=st.booleans(),
    spaced=st.booleans(),
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_elements_and_what_is_around_them_come_out_as_they_are(
    elements: list[object],
    before: dict[str, object],
    ascii_only: bool,  # noqa: FBT001
    spaced: bool,  # noqa: FBT001
    cuts: list[int],
) -> None:
    around = {key: value for key, value in before.items() if not isinstance(value, list | dict) and key != "items"}
    answer = {**around, "items": elements, "status": "ok"}
    data = json.dumps(answer, ensure_ascii=ascii_only, indent=1 if spaced else None).encode()
    found_around, found = read(data, cuts)
    assert found == elements
    assert found_around == {**answer, "items": []}


@given(cuts=st.lists(st.integers(0, 10**6), max_size=30))
def test_long_strings_are_left_empty(cuts: list[int]) -> None:
    long = 'x\\"\r\n\u2028"' * 50
    data = json.dumps(
        {"emails": [{"mailbox": "a@x", "mime_content": long, "metadata": {"folder": ["Inbox"]}}]}
    ).encode()
    _, [element] = read(data, cuts, longest_string=100)
    assert element == {"mailbox": "a@x", "mime_content": "", "metadata": {"folder": ["Inbox"]}}


@pytest.mark.parametrize("data", [b'{"a":[{"b":"' + b"x" * 5000, b'{"a":[{' + b" " * 5000, b'{"a":"' + b"y" * 5000])
def test_what_does_not_end_is_not_kept(data: bytes) -> None:
    reader = ElementReader(largest=1000)
    with pytest.raises(TooLargeError):
        list(reader.feed(data))


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=5))
def test_anything_else_does_no_harm(data: bytes, cuts: list[int]) -> None:
    reader = ElementReader(largest=1000)
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in pairwise(edges):
        list(reader.feed(data[start:end]))
    reader.rest()
