"""A message's base64 as it comes off the wire, decoded piece by piece into what keeps the message. Pure."""

from __future__ import annotations

import binascii
from typing import Protocol

from ews_sync.model import Mime, MimeBytes

_PAD = ord("=")
_ENOUGH = 4096
"""Characters that are decoded at a time, at least."""


class MimeWriter(Protocol):
    """Takes a message's bytes as they come off the wire."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> Mime:
        """Give the whole message."""

    def discard(self) -> None:
        """Throw away what came so far."""


class MemoryWriter:
    """Keeps the message in memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pieces.append(data)

    def finish(self) -> Mime:
        """Give the whole message."""
        return MimeBytes(b"".join(self._pieces))

    def discard(self) -> None:
        """Throw away what came so far."""
        self._pieces.clear()


class Base64Reader:
    """Decodes base64 text that arrives in pieces cut anywhere.

    White space is passed by, anything else foreign is damage.
    """

    def __init__(self, writer: MimeWriter) -> None:
        self._writer = writer
        self._waiting: list[str] = []
        self._waits = 0
        self._rest = b""
        self._padded = False
        self.damaged = False

    def feed(self, text: str) -> None:
        """Take the next characters."""
        if self.damaged:
            return
        # They can come one at a time, and each piece of a message takes room of its own.
        self._waiting.append(text)
        self._waits += len(text)
        if self._waits >= _ENOUGH:
            self._decode()

    def finish(self) -> Mime | None:
        """Give the message, or None when its base64 was damaged or cut short."""
        self._decode()
        if self.damaged or self._rest:
            self.damaged = True
            self._writer.discard()
            return None
        return self._writer.finish()

    def _decode(self) -> None:
        text = "".join(self._waiting)
        self._waiting.clear()
        self._waits = 0
        try:
            data = text.encode("ascii")
        except UnicodeEncodeError:
            self.damaged = True
            return
        if b"\n" in data or b" " in data or b"\r" in data or b"\t" in data:
            data = data.translate(None, b" \t\r\n")
        if not data or self.damaged:
            return
        if self._padded:
            self.damaged = True
            return
        if self._rest:
            data = self._rest + data
        cut = len(data) - len(data) % 4
        self._rest = data[cut:]
        if cut:
            try:
                self._writer.write(binascii.a2b_base64(data[:cut], strict_mode=True))
            except binascii.Error:
                self.damaged = True
            # Padding ends the message, wherever the pieces are cut.
            self._padded = data[cut - 1] == _PAD
