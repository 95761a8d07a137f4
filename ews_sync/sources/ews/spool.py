"""Where a message's bytes are kept while they are on their way.

In memory when small and as long as there is room, in an unnamed temporary file otherwise.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ews_sync.errors import Scope, SourceError
from ews_sync.model import Mime, MimeBytes

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_MEMORY = 2 * 1024 * 1024
"""Up to this many bytes a message stays in memory."""
ROOM = 10 * 1024 * 1024
"""What all messages together take of memory at most. What servers tell of sizes is planned with, and not relied on."""
_PIECE = 256 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolError(SourceError):
    """A message cannot be kept in a temporary file: neither the server's trouble nor the item's."""

    scope = Scope.PROCESS


class Room:
    """Bytes of memory for messages, which all that are on their way share."""

    def __init__(self, capacity: int = ROOM) -> None:
        self._free = capacity

    @property
    def free(self) -> int:
        """How many bytes are left."""
        return self._free

    def take(self, size: int) -> bool:
        """Take so many bytes, if there are; tell whether there were."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        """Give so many bytes back."""
        self._free += size


class MimeInRoom(MimeBytes):
    """A message in memory that gives its room back when it is closed."""

    __slots__ = ("_room",)

    def __init__(self, data: bytes, room: Room) -> None:
        super().__init__(data)
        self._room = room

    def close(self) -> None:
        """Let go of the bytes."""
        self._room.give_back(self.size)
        super().close()


class MimeFile:
    """A message in a temporary file without a name: nothing of it stays behind whatever happens to the process."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in pieces; several readers do not disturb each other."""
        for start in range(0, self._size, _PIECE):
            yield self.read(start, _PIECE)

    def read(self, start: int, size: int) -> bytes:
        """Give the `size` bytes from `start` on, fewer only where the message ends."""
        end = min(start + size, self._size)
        piece = os.pread(self._file.fileno(), max(0, end - start), start)
        while start + len(piece) < end:
            # A file system may give less than was asked for.
            more = os.pread(self._file.fileno(), end - start - len(piece), start + len(piece))
            if not more:
                raise OSError(f"the temporary file ends after {start + len(piece)} of {self._size} bytes")
            piece += more
        return piece

    def close(self) -> None:
        """Give the file's room back."""
        self._file.close()


class SpoolWriter:
    """Takes a message off the wire.

    It goes into a temporary file in `directory` once it grows past `in_memory` bytes, or past what is left of the
    `room`. Raises `SpoolError` when it cannot be kept there.
    """

    def __init__(self, directory: Path | None = None, in_memory: int = IN_MEMORY, *, room: Room | None = None) -> None:
        self._directory = directory
        self._in_memory = in_memory
        self._room = room if room is not None else Room()
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if self._file is None and self._size <= self._in_memory and self._room.take(len(data)):
            self._pieces.append(data)
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - MimeFile closes it
                self._write_all(b"".join(self._pieces))
                self._forget_pieces()
            self._write_all(data)
        except OSError as error:
            raise SpoolError(
                f"cannot keep a message in a temporary file: {error.strerror or error}", hint=self._hint(error)
            ) from error

    def finish(self) -> Mime:
        """Give the whole message."""
        if self._file is None:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            return MimeInRoom(whole, self._room)
        return MimeFile(self._file, self._size)

    def discard(self) -> None:
        """Throw away what came so far."""
        self._forget_pieces()
        if self._file is not None:
            self._file.close()

    def _forget_pieces(self) -> None:
        self._room.give_back(sum(map(len, self._pieces)))
        self._pieces.clear()

    def _hint(self, error: OSError) -> str:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            return "raise the limit of open files (ulimit -n)"
        directory = self._directory or Path(tempfile.gettempdir())
        instead = "" if self._directory else ", or set TMPDIR to another directory"
        if error.errno in _FULL:
            total = _total(directory)
            size = f", which has {total} MiB in all" if total else ""
            return f"temporary files go to {directory}{size}: make it larger than the largest messages{instead}"
        return f"see that {directory} is there and can be written{instead}"

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            assert self._file is not None  # noqa: S101 - for the type checker: both callers have opened it
            view = view[self._file.write(view) :]


def _total(directory: Path) -> int:
    """Give how many MiB a directory's file system has; 0 where that cannot be told."""
    try:
        return shutil.disk_usage(directory).total // 1024**2
    except OSError:
        return 0
