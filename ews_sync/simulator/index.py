"""A folder's items in order of their received time, made for millions of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 1024
"""Entries after which a chunk is split: small enough to insert into, large enough that there are few of them."""


class Keyed(Protocol):
    """Something with a place in an order. The key is unique and stays as it is while the thing is in an index."""

    @property
    def sort_key(self) -> int:
        """The place."""


T = TypeVar("T", bound=Keyed)
_KEY: Final = attrgetter("sort_key")


class SortedIndex(Generic[T]):
    """A sorted sequence in chunks: adding and removing cost a short move, finding a position a bisection.

    The first position after a change costs a walk over the chunks: of a million entries there are a thousand.
    """

    __slots__ = ("_chunks", "_ends", "_length", "_lowest")

    def __init__(self) -> None:
        self._chunks: list[list[T]] = []
        self._lowest: list[int] = []
        self._ends: list[int] | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for chunk in self._chunks:
            yield from chunk

    def add(self, entry: T) -> None:
        """Put an entry in its place."""
        self._length += 1
        self._ends = None
        if not self._chunks:
            self._chunks.append([entry])
            self._lowest.append(entry.sort_key)
            return
        at = max(0, self._chunk_of(entry.sort_key))
        chunk = self._chunks[at]
        if entry.sort_key > chunk[-1].sort_key:
            chunk.append(entry)  # mail mostly arrives in order
        else:
            insort(chunk, entry, key=_KEY)
        self._lowest[at] = chunk[0].sort_key
        if len(chunk) > 2 * CHUNK:
            # The first part stays well filled: what comes in order goes to the end.
            self._chunks[at : at + 1] = [chunk[:CHUNK], chunk[CHUNK:]]
            self._lowest.insert(at + 1, chunk[CHUNK].sort_key)

    def remove(self, entry: T) -> None:
        """Take an entry out.

        Raises:
            KeyError: it is not here.

        """
        at = self._chunk_of(entry.sort_key)
        if at < 0:
            raise KeyError(entry.sort_key)
        chunk = self._chunks[at]
        within = bisect_left(chunk, entry.sort_key, key=_KEY)
        if within == len(chunk) or chunk[within] is not entry:
            raise KeyError(entry.sort_key)
        del chunk[within]
        self._length -= 1
        self._ends = None
        if chunk:
            self._lowest[at] = chunk[0].sort_key
        else:
            del self._chunks[at], self._lowest[at]

    def position(self, key: int) -> int:
        """Return how many entries have a smaller key."""
        at = self._chunk_of(key)
        if at < 0:
            return 0
        return self._start_of(at) + bisect_left(self._chunks[at], key, key=_KEY)

    def ascending(self, start: int = 0) -> Iterator[T]:
        """Yield the entries from position `start` upwards. The index must not change meanwhile."""
        at, within = self._locate(start)
        for chunk in self._chunks[at:]:
            yield from chunk[within:] if within else chunk
            within = 0

    def descending(self, below: int | None = None) -> Iterator[T]:
        """Yield the entries whose key is smaller than `below` (all without it), largest first."""
        if below is None:
            at, within = len(self._chunks), 0
        else:
            at = self._chunk_of(below)
            if at < 0:
                return
            within = bisect_left(self._chunks[at], below, key=_KEY)
        if within:
            yield from reversed(self._chunks[at][:within])
        for chunk in reversed(self._chunks[:at]):
            yield from reversed(chunk)

    def descending_from(self, stop: int) -> Iterator[T]:
        """Yield the entries before position `stop` downwards. The index must not change meanwhile."""
        at, within = self._locate(stop)
        if within:
            yield from reversed(self._chunks[at][:within])
        for chunk in reversed(self._chunks[:at]):
            yield from reversed(chunk)

    def _chunk_of(self, key: int) -> int:
        """Return the last chunk that begins at or before the key, or -1."""
        at = bisect_left(self._lowest, key)
        return at if at < len(self._lowest) and self._lowest[at] == key else at - 1

    def _locate(self, position: int) -> tuple[int, int]:
        at = bisect_right(self._counted(), position)
        return (at, position - self._start_of(at)) if at < len(self._chunks) else (at, 0)

    def _start_of(self, at: int) -> int:
        """Return how many entries there are before a chunk."""
        return self._counted()[at - 1] if at else 0

    def _counted(self) -> list[int]:
        """Return how many entries there are up to the end of each chunk."""
        if self._ends is None:
            self._ends = list(accumulate(map(len, self._chunks)))
        return self._ends
