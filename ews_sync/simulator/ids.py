"""How ids look: base64 of a realistic length, case-sensitive, and carrying the mailbox that they belong to.

Real ids are opaque. These can be read back by the simulator, so that a million of them need not be stored, and two
neighbours differ only in the case of one letter, so that a client that folds case is found out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from typing import Final, Literal

ITEM_ID_LENGTH: Final = 152
FOLDER_ID_LENGTH: Final = 120

_PREFIX: Final = "AAMk"
_SPACE_LENGTH: Final = 64
_ITEM_MARK: Final = "BGAAAAAA"
_FOLDER_MARK: Final = "AuAAAAAA"
_DIGITS: Final = 8
_ATTACHMENT_MARK: Final = "BEgA"
_HEAD: Final = len(_PREFIX) + _SPACE_LENGTH
_LETTERS: Final = re.compile("[A-Za-z0-9+/]+")


@dataclass(frozen=True, slots=True)
class ParsedId:
    """What an id says: the mailbox's space, what kind of thing it names, and its number there."""

    space: str
    kind: Literal["item", "folder"]
    number: int


class MalformedIdError(ValueError):
    """An id that this server can never have given out."""


def mailbox_space(address: str, seed: int) -> str:
    """Return the part of an id that is the same for everything in one mailbox: 64 letters."""
    digest = hashlib.sha384(f"{seed}:{address.casefold()}".encode()).digest()
    return base64.b64encode(digest).decode("ascii")


def item_id(space: str, number: int) -> str:
    """Return the id of the item with this number."""
    return _compose(space, _ITEM_MARK, number, ITEM_ID_LENGTH)


def folder_id(space: str, number: int) -> str:
    """Return the id of the folder with this number."""
    return _compose(space, _FOLDER_MARK, number, FOLDER_ID_LENGTH)


def attachment_id(owner: str, position: int) -> str:
    """Return the id of the attachment at `position` (from 0) of the item with the id `owner`."""
    return owner + _ATTACHMENT_MARK + _number(position)


def change_key(space: str, change: int) -> str:
    """Return the change key for a change number: 40 letters."""
    raw = b"\x09\x00\x00\x00\x16\x00\x00\x00" + space[:14].encode("ascii") + change.to_bytes(8, "big")
    return b2a_base64(raw, newline=False).decode("ascii")


def parse(text: str) -> ParsedId:
    """Read an id back.

    Raises:
        MalformedIdError: it has not the shape of an id of this server.

    """
    mark = text[_HEAD : _HEAD + len(_ITEM_MARK)]
    kind: Literal["item", "folder"]
    if len(text) == ITEM_ID_LENGTH and mark == _ITEM_MARK:
        kind = "item"
    elif len(text) == FOLDER_ID_LENGTH and mark == _FOLDER_MARK:
        kind = "folder"
    else:
        raise MalformedIdError(text)
    # All but the mailbox and the number can be compared with what they must be.
    space, digits = text[len(_PREFIX) : _HEAD], text[-1 - _DIGITS : -1]
    if not _LETTERS.fullmatch(space) or not _LETTERS.fullmatch(digits):
        raise MalformedIdError(text)
    number = _value(digits) * 2 + (text[-1] == "a")
    if text != _compose(space, mark, number, len(text)):
        raise MalformedIdError(text)
    return ParsedId(space, kind, number)


def parse_attachment(text: str) -> tuple[ParsedId, int]:
    """Read an attachment's id: the item's id and the position in it.

    Raises:
        MalformedIdError: it has not the shape of an attachment id of this server.

    """
    owner, mark, position = text[:ITEM_ID_LENGTH], text[ITEM_ID_LENGTH:-_DIGITS], text[-_DIGITS:]
    if mark != _ATTACHMENT_MARK or not _LETTERS.fullmatch(position):
        raise MalformedIdError(text)
    return parse(owner), _value(position)


def _compose(space: str, mark: str, number: int, length: int) -> str:
    filler = (space[::-1] * 2)[: length - _HEAD - len(mark) - _DIGITS - 1]
    return f"{_PREFIX}{space}{mark}{filler}{_number(number // 2)}{'a' if number % 2 else 'A'}"


# Six bytes in base64 are eight letters, the digits of a number in base 64.
def _number(value: int) -> str:
    return b2a_base64(value.to_bytes(_DIGITS * 6 // 8, "big"), newline=False).decode("ascii")


def _value(digits: str) -> int:
    return int.from_bytes(a2b_base64(digits), "big")
