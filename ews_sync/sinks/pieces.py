"""Bytes that come in pieces, put together or cut: no piece that is handled is tiny, none takes much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def gathered(pieces: Iterable[bytes], enough: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of `enough` or more, none cut, and the rest as the last one. None is empty."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= enough:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def cut(data: bytes, longest: int) -> Iterator[bytes]:
    """Yield `data` in pieces of at most `longest` bytes; it is not copied when it is no longer than that."""
    if len(data) <= longest:
        if data:
            yield data
        return
    for start in range(0, len(data), longest):
        yield data[start : start + longest]
