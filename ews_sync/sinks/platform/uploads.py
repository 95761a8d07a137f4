"""From emails to the bodies of uploads: `{"emails": [NewEmail, …]}`, cut by size, streamed. Does no HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ews_sync.errors import StorageError
from ews_sync.model import MimeBytes
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
_WRITE = 256 * 1024
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


def is_quick(batch: Iterable[Email]) -> bool:
    """Tell whether `encode` takes no longer than it takes to wake a thread up for it, or little more.

    So it is for messages in memory whose bytes are Unicode as they are: a millisecond or two for 80 of them. Threads
    that encode at the same time take the interpreter from each other, and from the event loop, again and again.
    """
    return all(isinstance(email.mime, MimeBytes) and _is_unicode(email.mime.data) for email in batch)


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
    # The interpreter's own hash is keyed, so nobody can send two messages that look like one to it, and it takes a
    # fifth of a cryptographic one's time. It holds for this process alone; so does what it is wanted for (`Repeats`).
    pieces: list[bytes] = []
    hashes: list[int] = []
    size = 0
    for piece in email_pieces(email):
        size += len(piece)
        hashes.append(hash(piece))
        if keep:
            pieces.append(piece)
    digest = hash(tuple(hashes)).to_bytes(8, "little", signed=True)
    return Encoded(email, size, digest, b"".join(pieces) if keep else None)


async def _pieces(group: Sequence[Encoded]) -> AsyncIterator[bytes]:
    yield _OPENING
    for number, encoded in enumerate(group):
        if number:
            yield _BETWEEN
        if encoded.kept is not None:
            yield encoded.kept
            continue
        async for piece in _made_again(encoded.email):
            yield piece
    yield _CLOSING


async def _made_again(email: Email) -> AsyncIterator[bytes]:
    pieces = email_pieces(email)
    if is_quick((email,)):
        for piece in pieces:
            yield piece
        return
    try:
        while made := await asyncio.to_thread(next, pieces, b""):
            yield made
    except OSError as error:
        raise _unreadable(error) from error


def _is_unicode(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


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
