"""Where a message's bytes are kept while they are on their way.

In memory when small, in an unnamed temporary file when large.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from ews_sync.errors import Scope, SourceError
from ews_sync.model import Mime, MimeBytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IN_MEMORY = 2 * 1024 * 1024
"""Up to this many bytes a message stays in memory."""
_PIECE = 256 * 1024


class SpoolError(SourceError):
    """A large message cannot be kept in a temporary file: neither the server's trouble nor the item's."""

    scope = Scope.PROCESS


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
    """Takes a message off the wire, into a temporary file in `directory` once it grows past `in_memory` bytes.

    Raises `SpoolError` when it cannot be kept there.
    """

    def __init__(self, directory: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self._directory = directory
        self._in_memory = in_memory
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if self._file is None and self._size <= self._in_memory:
            self._pieces.append(data)
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - MimeFile closes it
                self._write_all(b"".join(self._pieces))
                self._pieces.clear()
            self._write_all(data)
        except OSError as error:
            raise SpoolError(
                f"cannot keep a large message in a temporary file: {error.strerror or error}", hint=self._hint()
            ) from error

    def finish(self) -> Mime:
        """Give the whole message."""
        if self._file is None:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            return MimeBytes(whole)
        return MimeFile(self._file, self._size)

    def discard(self) -> None:
        """Throw away what came so far."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()

    def _hint(self) -> str:
        if self._directory is not None:
            return f"make room in {self._directory}, and see that it is there and can be written"
        return "make room for temporary files, or set TMPDIR to a directory that can be written"

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            assert self._file is not None  # noqa: S101 - for the type checker: both callers have opened it
            view = view[self._file.write(view) :]
