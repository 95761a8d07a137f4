"""Answers that are, byte for byte, the same as the last time: what was made of them then still holds.

A quiet mailbox gives the same list of folders round after round. To parse it takes most of what such a round costs
(0.8 ms for 21 folders), and to find out that it is the same 20 µs.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.sources.ews.client import Reader

T = TypeVar("T")

_DIGEST_SIZE = 16
_LONGEST = 128 * 1024
"""Bytes of an answer that are kept until its end is there. A longer one, of 150 folders or so, is read as it comes."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """An answer. `value` is None when its `digest` is the one that was known.

    The digest is None where an answer is too long to be compared.
    """

    value: T | None
    digest: bytes | None


class RepeatReader(Generic[T]):
    """Reads an answer, unless it is the one whose digest is `known`. `new_reader` makes what it is read with."""

    def __init__(self, new_reader: Callable[[], Reader[T]], known: bytes | None) -> None:
        self._new_reader = new_reader
        self._known = known
        self._reader: Reader[T] | None = None
        self._kept: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises what the reader raises, which may be at the end only."""
        if self._reader is not None:
            self._reader.feed(data)
            return
        self._kept.append(data)
        self._size += len(data)
        if self._size > _LONGEST:
            self._read_kept()

    def close(self) -> Answered[T]:
        """End: give the answer, or raise what the reader raises."""
        if self._reader is not None:
            return Answered(self._reader.close(), None)
        hashed = blake2b(digest_size=_DIGEST_SIZE)
        for piece in self._kept:
            hashed.update(piece)
        digest = hashed.digest()
        if digest == self._known:
            return Answered(None, digest)
        return Answered(self._read_kept().close(), digest)

    def discard(self) -> None:
        """Give back what was read."""
        self._kept.clear()
        if self._reader is not None:
            self._reader.discard()

    def _read_kept(self) -> Reader[T]:
        reader = self._reader = self._new_reader()
        for piece in self._kept:
            reader.feed(piece)
        self._kept.clear()
        return reader
