"""What has happened in a folder, and the opaque states by which a client says how much of it it knows.

A state is a position: either within the first pass over a folder (newest first, everything that was there when the
pass began) or in the folder's log afterwards. A pass leaves out what came after its beginning: the log brings that.
So nothing can be lost between pages, whatever changes in between.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class ChangeKind(IntEnum):
    """What happened to an item or a folder."""

    CREATE = 1
    UPDATE = 2
    READ_FLAG = 3
    DELETE = 4


class ChangeLog:
    """An append-only list of (number, kind), eight bytes an entry."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries = array("Q")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, position: int) -> tuple[int, ChangeKind]:
        entry = self._entries[position]
        return entry >> 3, ChangeKind(entry & 7)

    def append(self, number: int, kind: ChangeKind) -> int:
        """Write one change down and return its position."""
        self._entries.append(number << 3 | kind)
        return len(self._entries) - 1


class InvalidSyncStateError(ValueError):
    """A state that this server did not give out, or no longer accepts."""


_MAGIC: Final = b"\x02\xce\x51\x07"
_FORMAT: Final = struct.Struct(">QQQQ?QQ")
# A received time in microseconds beside an item's number needs more than 64 bits.
_HALF: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class SyncState:
    """A position in the changes of one folder, or of a mailbox's folders (folder 0).

    `log` is the position in the log from which to follow. While `below` is set, the first pass is still under way: it
    goes on with the items whose sort key is smaller than that.
    """

    space: int
    generation: int
    folder: int
    log: int
    below: int | None = None

    def encode(self, known: int = 0) -> str:
        """Return the state as the client gets it: base64, and larger the more items (`known`) the folder has."""
        high, low = divmod(self.below or 0, _HALF)
        body = _FORMAT.pack(self.space, self.generation, self.folder, self.log, self.below is not None, high, low)
        check = hashlib.sha256(body).digest()
        # Real states hold the ranges of changes that the client has seen; their length is what matters to a client.
        padding = (check * 256)[: min(96 + known // 20, 8000)]
        return base64.b64encode(_MAGIC + body + check[:8] + padding).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> SyncState:
        """Read a state.

        Raises:
            InvalidSyncStateError: it is not one of ours, or damaged.

        """
        try:
            raw = base64.b64decode(text, validate=True)
            body = raw[len(_MAGIC) : len(_MAGIC) + _FORMAT.size]
            space, generation, folder, log, passing, high, low = _FORMAT.unpack(body)
        except (ValueError, struct.error) as error:
            raise InvalidSyncStateError(text[:32]) from error
        check = raw[len(_MAGIC) + _FORMAT.size :][:8]
        if raw[: len(_MAGIC)] != _MAGIC or check != hashlib.sha256(body).digest()[:8]:
            raise InvalidSyncStateError(text[:32])
        return cls(space, generation, folder, log, high * _HALF + low if passing else None)
