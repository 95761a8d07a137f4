"""From emails to the bodies of uploads: `{"emails": [NewEmail, …]}`, cut by size, streamed. Does no HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ews_sync.errors import StorageError
from ews_sync.sinks.new_email_json import email_pieces
from ews_sync.sinks.platform.api import Upload
from ews_sync.web.failures import reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from ews_sync.model import Email

_WHOLE = 1024 * 1024
"""Up to this many bytes of MIME an email's JSON is kept in memory; that of a larger one is made while it is sent."""
_AROUND = 4096
"""About what the JSON of an email takes besides its message."""
_WRITE = 128 * 1024
"""Bytes to send at a time, at least: many small emails must not become many small packets."""
_OPENING, _BETWEEN, _CLOSING = b'{"emails":[', b",", b"]}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """An email as JSON: its size in bytes, its digest, and the JSON itself where there is room for it."""

    email: Email
    size: int
    digest: bytes
    kept: bytes | None


def room_for(batch: Iterable[Email]) -> int:
    """Give how many bytes of JSON there are to keep of a batch, about."""
    return sum(_to_keep(email) for email in batch if email.mime.size <= _WHOLE)


def encode(batch: Iterable[Email], room: int) -> list[Encoded]:
    """Encode emails, keeping at most about `room` bytes of JSON.

    Blocks: it may read files, and raises `StorageError` when one cannot be read.
    """
    encoded = []
    try:
        for email in batch:
            keep = email.mime.size <= _WHOLE and _to_keep(email) <= room
            encoded.append(_encode(email, keep=keep))
            room -= len(encoded[-1].kept or b"")
    except OSError as error:
        raise _unreadable(error) from error
    return encoded


def grouped(emails: Iterable[Encoded], largest: int) -> Iterator[tuple[Encoded, ...]]:
    """Cut emails, in order, into groups whose bodies are no larger than `largest`; a larger email is alone."""
    group: list[Encoded] = []
    size = len(_OPENING) + len(_CLOSING)
    for encoded in emails:
        if group and size + encoded.size > largest:
            yield tuple(group)
            group, size = [], len(_OPENING) + len(_CLOSING)
        group.append(encoded)
        size += encoded.size + len(_BETWEEN)
    if group:
        yield tuple(group)


def size_of(group: Sequence[Encoded]) -> int:
    """Give the length in bytes of the body that holds these emails."""
    between = len(_BETWEEN) * max(0, len(group) - 1)
    return len(_OPENING) + sum(encoded.size for encoded in group) + between + len(_CLOSING)


def body_of(group: Sequence[Encoded]) -> Upload:
    """Give the body of one upload."""
    return Upload(size_of(group), _coalesced(_pieces(group)))


def _to_keep(email: Email) -> int:
    # Line ends and quotes get longer, and what is no Unicode does as well.
    return email.mime.size * 5 // 4 + _AROUND


def _encode(email: Email, *, keep: bool) -> Encoded:
    digest = hashlib.blake2b(digest_size=16)
    if keep:
        whole = b"".join(email_pieces(email))
        digest.update(whole)
        return Encoded(email, len(whole), digest.digest(), whole)
    size = 0
    for piece in email_pieces(email):
        digest.update(piece)
        size += len(piece)
    return Encoded(email, size, digest.digest(), None)


async def _pieces(group: Sequence[Encoded]) -> AsyncIterator[bytes]:
    yield _OPENING
    for number, encoded in enumerate(group):
        if number:
            yield _BETWEEN
        if encoded.kept is not None:
            yield encoded.kept
            continue
        pieces = email_pieces(encoded.email)
        while True:
            try:
                piece = await asyncio.to_thread(next, pieces, None)
            except OSError as error:
                raise _unreadable(error) from error
            if piece is None:
                break
            yield piece
    yield _CLOSING


def _unreadable(error: OSError) -> StorageError:
    return StorageError(
        f"a large message cannot be read back from its temporary file: {reason(error)}",
        hint="see that the directory of temporary files (TMPDIR) is there and healthy",
    )


async def _coalesced(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _WRITE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
