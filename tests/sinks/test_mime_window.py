"""Reading a message by offset: whatever the size of a block, the answers are those of the whole in memory."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, strategies as st

from ews_sync.model import MimeBytes
from ews_sync.sinks.mime_window import Window

DATA = st.lists(st.sampled_from([b"a", b"ab", b"\r", b"\n", b"\r\n", b"\xc3\xa9", b"\xf0\x9f\x94\xa5", b"\xff"])).map(
    b"".join
)
BLOCK = st.integers(1, 9)


@dataclass(slots=True)
class Counting(MimeBytes):
    """A message that notes what is read of it."""

    sizes: list[int]

    def read(self, start: int, size: int) -> bytes:
        self.sizes.append(size)
        return self.data[start : start + size]


@given(DATA, BLOCK, st.data())
def test_parts_and_pieces(data: bytes, block: int, draw: st.DataObject) -> None:
    window = Window(MimeBytes(data), block)
    for _ in range(4):
        start, end = (draw.draw(st.integers(0, len(data))) for _ in "12")
        assert window.slice(start, end) == data[start:end]
        assert b"".join(window.blocks(start, end)) == data[start:end]


@given(DATA, st.sampled_from([b"a", b"aba", b"\r\n", b"\n\n\n", b"abababababab"]), BLOCK, st.data())
def test_what_is_looked_for_is_found_where_it_first_is(
    data: bytes, wanted: bytes, block: int, draw: st.DataObject
) -> None:
    window = Window(MimeBytes(data), block)
    start, end = sorted(draw.draw(st.integers(0, len(data))) for _ in "12")
    assert window.find(wanted, start, end) == data.find(wanted, start, end)


@given(DATA, BLOCK)
def test_lines(data: bytes, block: int) -> None:
    window = Window(MimeBytes(data), block)
    start = 0
    for line in data.splitlines(keepends=True):
        stop, following = start + len(line.rstrip(b"\r\n")), start + len(line)
        for position in range(start, stop + 1):
            assert window.line(position, len(data)) == (stop, following)
            assert window.line_start(0, position) == start
        assert window.newline_length(stop, len(data)) == following - stop
        assert window.newline_before(stop, following) == following - stop
        start = following


@given(DATA, BLOCK, st.lists(st.integers(0, 30)))
def test_the_first_bytes_that_are_no_text(data: bytes, block: int, positions: list[int]) -> None:
    window = Window(MimeBytes(data), block)
    for position in positions:
        start = min(position, len(data))
        while start < len(data) and data[start] & 0xC0 == 0x80:
            start += 1
        try:
            data[start:].decode()
        except UnicodeDecodeError as error:
            expected = start + error.start
        else:
            expected = len(data)
        assert window.first_invalid(start) == expected
        assert window.is_text(start, expected)
        assert not window.is_text(start, expected + 1) or expected == len(data)


def test_nothing_is_read_more_often_than_the_seams_ask_for() -> None:
    mime = Counting(b"--a\n" * 10_000, [])
    window = Window(mime, 1000)
    position = count = 0
    while (found := window.find(b"--a", position, mime.size)) >= 0:
        _, position = window.line(found, mime.size)
        count += 1
    assert count == 10_000
    assert max(mime.sizes) == 1000
    assert sum(mime.sizes) < 2 * mime.size
