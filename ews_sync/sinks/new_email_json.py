"""An email as one line of JSON with its message in it, in pieces: whatever its size, it takes little memory.

See `new_email` for what is in it, and `mime_text` and `new_email_unicode` for what becomes of what is not Unicode.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from ews_sync.sinks.mime_text import mime_pieces, mime_text
from ews_sync.sinks.mime_window import BLOCK
from ews_sync.sinks.new_email import json_bytes, new_email
from ews_sync.sinks.new_email_unicode import in_unicode, unicode_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ews_sync.model import Email

LONGEST_PIECE = 256 * 1024
"""Bytes that no piece is longer than."""

_CONTENT = "mime_content"


def email_pieces(
    email: Email, *, email_id: str | None = None, block: int = BLOCK, longest: int = LONGEST_PIECE
) -> Iterator[bytes]:
    """Yield the NewEmail of `email` as JSON: one line, without its end, in pieces of at most `longest` bytes.

    `email_id` stands in place of the email's own where it is given. No piece is empty; they are valid UTF-8 only once
    they are put together, and the same each time. A message of up to `block` bytes is made into its line in one go; of
    a larger one that much is in memory at a time. Making one piece can take as long as reading the whole message, and
    all of it blocks: it belongs in a thread. Raises `OSError` when the message cannot be read.
    """
    before, after = _around(in_unicode(email), email_id)
    if email.mime.size <= block:
        line = before + json_bytes(mime_text(email.mime.read(0, email.mime.size))) + after
        yield from _cut(line, longest)
        return
    yield from _cut(before + b'"', longest)
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in _gathered(mime_pieces(email.mime, block=block), block):
        yield from _cut(json_bytes(decoder.decode(piece))[1:-1], longest)
    yield from _cut(b'"' + after, longest)


def _around(email: Email, email_id: str | None) -> tuple[bytes, bytes]:
    """Give what stands before and behind the message's JSON string."""
    described = new_email(email, email_id=None if email_id is None else unicode_id(email_id), mime_content="")
    names = list(described)
    place = names.index(_CONTENT)
    before = {name: described[name] for name in names[:place]}
    after = {name: described[name] for name in names[place + 1 :]}
    return json_bytes(before)[:-1] + f',"{_CONTENT}":'.encode(), b"," + json_bytes(after)[1:]


def _gathered(pieces: Iterable[bytes], enough: int) -> Iterator[bytes]:
    """Put pieces together until there is `enough`: a message of many parts comes in many small ones."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= enough:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


def _cut(data: bytes, longest: int) -> Iterator[bytes]:
    for start in range(0, len(data), longest):
        yield data[start : start + longest]
