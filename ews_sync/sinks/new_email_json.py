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
from ews_sync.sinks.pieces import cut, gathered

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    described = in_unicode(email)
    name = None if email_id is None else unicode_id(email_id)
    if email.mime.size <= block:
        yield from cut(_line(described, name), longest)
    else:
        yield from _large(described, name, block, longest)


def _line(email: Email, email_id: str | None) -> bytes:
    """Give the line of an email whose message can be in memory."""
    data = email.mime.read(0, email.mime.size)
    # The way of nearly all mail, ASCII or UTF-8: from the server's bytes to those of the line in one pass.
    try:
        return json_bytes(new_email(email, email_id=email_id, mime_content=data))
    except UnicodeDecodeError:
        return json_bytes(new_email(email, email_id=email_id, mime_content=mime_text(data)))


def _large(email: Email, email_id: str | None, block: int, longest: int) -> Iterator[bytes]:
    before, after = _around(email, email_id)
    yield from cut(before + b'"', longest)
    decoder = codecs.getincrementaldecoder("utf-8")()
    # A message of many parts comes in many small pieces.
    for piece in gathered(mime_pieces(email.mime, block=block), block):
        yield from cut(json_bytes(decoder.decode(piece))[1:-1], longest)
    yield from cut(b'"' + after, longest)


def _around(email: Email, email_id: str | None) -> tuple[bytes, bytes]:
    """Give what stands before and behind the message's JSON string."""
    described = new_email(email, email_id=email_id, mime_content="")
    names = list(described)
    place = names.index(_CONTENT)
    before = {name: described[name] for name in names[:place]}
    after = {name: described[name] for name in names[place + 1 :]}
    return json_bytes(before)[:-1] + f',"{_CONTENT}":'.encode(), b"," + json_bytes(after)[1:]
