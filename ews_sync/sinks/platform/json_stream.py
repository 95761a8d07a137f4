"""The elements of one long array in a JSON answer, one at a time, however long the answer is.

The answer is an object; one of its values is the array. Only an element at a time is in memory, and what stands around
the array.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STRUCTURE = re.compile(rb'["{}\[\],]')
# Up to a string's end, or to a backslash that the next piece goes on with. Nothing of it is ever given back, and
# saying so keeps the matcher from remembering each escape.
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_ARRAY = 2
"""How deep the array's own content is: inside the object, inside the array."""


class TooLargeError(ValueError):
    """An element, or what stands around the array, is larger than is allowed."""


class ElementReader:
    """Takes an answer in pieces. Does not check it: what comes out is for a JSON parser to refuse.

    `longest_string` is how many bytes of a string are kept, None for all; a string that is longer is left empty.
    `largest` is how many bytes an element can have, and everything around the array.
    """

    def __init__(self, *, largest: int, longest_string: int | None = None) -> None:
        self._largest = largest
        self._longest_string = longest_string
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._after_element = False
        self._string: list[bytes] = []
        self._string_size = 0
        self._element: list[bytes] = []
        self._around: list[bytes] = []
        self._sizes = {False: 0, True: 0}

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece; yields the elements that end in it."""
        position = 0
        while position < len(data):
            if self._in_string:
                position = self._string_from(data, position)
                continue
            match = _STRUCTURE.search(data, position)
            end = len(data) if match is None else match.start()
            if end > position:
                self._keep(data[position:end])
            if match is None:
                return
            element = self._structure(match[0])
            if element is not None:
                yield element
            position = match.end()

    def rest(self) -> bytes:
        """Give what stands around the array's elements: the answer with an empty array."""
        return b"".join(self._around)

    def _structure(self, sign: bytes) -> bytes | None:
        if sign == b'"':
            self._in_string = True
            self._string = [sign]
            self._string_size = 0
            return None
        if sign in b"{[":
            self._depth += 1
            inside = self._depth > _ARRAY
            self._keep(sign, inside=inside)
            return None
        if sign in b"}]":
            inside = self._depth > _ARRAY
            self._depth -= 1
            self._keep(sign, inside=inside)
            if inside and self._depth == _ARRAY:
                element = b"".join(self._element)
                self._element.clear()
                self._sizes[True] = 0
                self._after_element = True
                return element
            return None
        # The comma goes with the element before it.
        if not (self._depth == _ARRAY and self._after_element):
            self._keep(sign)
        self._after_element = False
        return None

    def _string_from(self, data: bytes, position: int) -> int:
        """Take a string's bytes from `position`, and give the position behind them."""
        if self._escaped:
            self._escaped = False
            self._add(data[position : position + 1])
            return position + 1
        match = _IN_STRING.match(data, position)
        end = position if match is None else match.end()
        self._add(data[position:end])
        if end == len(data):
            return end
        if data[end : end + 1] == b'"':
            self._in_string = False
            self._end_string()
        else:
            # A backslash whose other half comes with the next piece.
            self._add(b"\\")
            self._escaped = True
        return end + 1

    def _add(self, data: bytes) -> None:
        self._string_size += len(data)
        if self._longest_string is not None and self._string_size > self._longest_string:
            del self._string[1:]
            return
        if self._string_size > self._largest:
            raise TooLargeError("a string is too long")
        self._string.append(data)

    def _end_string(self) -> None:
        self._keep(b"".join(self._string) + b'"')
        self._string = []

    def _keep(self, data: bytes, *, inside: bool | None = None) -> None:
        inside = self._depth > _ARRAY if inside is None else inside
        self._sizes[inside] += len(data)
        if self._sizes[inside] > self._largest:
            raise TooLargeError("an element is too large")
        (self._element if inside else self._around).append(data)
