"""A message's bytes by offset, with a block of them in memory at a time: a message of any size is read in little room.

Every search goes on over the seams between blocks, and none reads the same bytes again for each thing that it finds.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ews_sync.model import Mime

BLOCK = 64 * 1024
"""Bytes that are read at a time."""

# The longest character in UTF-8: a shorter block could hold none at all.
_CHARACTER = 4
_LINE_END = re.compile(rb"[\r\n]")


class Window:
    """Reads `mime`, `block` bytes at a time. Every method raises `OSError` when the bytes cannot be read."""

    def __init__(self, mime: Mime, block: int = BLOCK) -> None:
        self.size = mime.size
        self.block = max(block, _CHARACTER)
        self._mime = mime
        self._start = 0
        self._bytes = b""
        self._checked = 0
        self._invalid = -1

    def slice(self, start: int, end: int) -> bytes:
        """Give the bytes from `start` to `end`; it is for the caller to see that they are not too many."""
        if start >= end:
            return b""
        offset = self._offset(start, end - start)
        return self._bytes[offset : offset + end - start]

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`, of which none is left out, in pieces of at most a block."""
        while start < end:
            stop = min(start + self.block, end)
            yield self.slice(start, stop)
            start = stop

    def find(self, wanted: bytes, start: int, end: int) -> int:
        """Give where `wanted` first is between `start` and `end`, -1 when it is not."""
        while end - start >= len(wanted):
            offset = self._offset(start, len(wanted))
            stop = min(len(self._bytes), offset + end - start)
            found = self._bytes.find(wanted, offset, stop)
            if found >= 0:
                return self._start + found
            start = self._start + stop - len(wanted) + 1
        return -1

    def line(self, start: int, end: int) -> tuple[int, int]:
        """Give where the line that `start` is in ends, without and with its CR, LF or CRLF."""
        while start < end:
            offset = self._offset(start, 1)
            stop = min(len(self._bytes), offset + end - start)
            match = _LINE_END.search(self._bytes, offset, stop)
            if match:
                found = self._start + match.start()
                return found, found + self.newline_length(found, end)
            start = self._start + stop
        return end, end

    def line_start(self, start: int, position: int) -> int:
        """Give where the line that `position` is in begins, `start` at the earliest."""
        while position > start:
            earlier = max(start, position - self.block)
            block = self.slice(earlier, position)
            found = max(block.rfind(b"\r"), block.rfind(b"\n"))
            if found >= 0:
                return earlier + found + 1
            position = earlier
        return start

    def newline_length(self, start: int, end: int) -> int:
        """Give the length of the line end that begins at `start`, 0 where there is none."""
        following = self.slice(start, min(start + 2, end))
        return 2 if following == b"\r\n" else int(following[:1] in (b"\r", b"\n"))

    def newline_before(self, start: int, end: int) -> int:
        """Give the length of the line end that ends at `end` and does not begin before `start`."""
        before = self.slice(max(start, end - 2), end)
        return 2 if before == b"\r\n" else int(before[-1:] in (b"\r", b"\n"))

    def is_text(self, start: int, end: int) -> bool:
        """Tell whether the bytes from `start` to `end`, neither of which is inside a character, are valid UTF-8."""
        return start >= end or self.first_invalid(start) >= end

    def first_invalid(self, start: int) -> int:
        """Give where, from `start` on, the first bytes are that are not UTF-8; the message's size when there are none.

        `start` must not be inside a character.
        """
        # A walk from the message's start to its end asks for parts of parts; with the last answer kept, no byte is
        # looked at twice.
        if not self._checked <= start <= self._invalid:
            self._checked, self._invalid = start, self._search_invalid(start)
        return self._invalid

    def _search_invalid(self, position: int) -> int:
        while position < self.size:
            block = self.slice(position, min(position + self.block, self.size))
            # Most mail is ASCII, which need not be decoded.
            if block.isascii():
                position += len(block)
                continue
            try:
                _, valid = codecs.utf_8_decode(block, "strict", False)  # noqa: FBT003 - the codec takes no keywords
            except UnicodeDecodeError as error:
                return position + error.start
            if not valid:
                return position
            position += valid
        return self.size

    def _offset(self, start: int, need: int) -> int:
        """Have `need` bytes from `start` on in memory, or all there are, and give where in the block they begin."""
        end = min(start + need, self.size)
        if start < self._start or end > self._start + len(self._bytes):
            self._bytes = b""
            self._bytes = self._mime.read(start, min(max(need, self.block), self.size - start))
            self._start = start
        return start - self._start
