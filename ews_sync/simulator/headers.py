"""A message's headers. Most are plain, and those are taken apart without the standard library, which needs 50 µs."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.header import decode_header
from email.message import Message
from typing import Final

_END: Final = re.compile(rb"\r?\n\r?\n")
# Printable ASCII in lines that end with CRLF, with something in the first line of each header: nothing here can be
# understood in two ways.
_VALUE: Final = r"[\t ]*([!-~][\t -~]*(?:\r\n[\t ][\t -~]*)*)\r\n"
_PLAIN: Final = re.compile(rf"(?:[!-9;-~]+:{_VALUE})+\r\n".encode())
_HEADER: Final = re.compile(rf"([!-9;-~]+):{_VALUE}")
_FOLD: Final = re.compile(r"\r?\n(?=[ \t])")
_LONGEST_PLAIN: Final = 64 * 1024


class Headers:
    """The headers at the top of a message, in order, their 8-bit bytes as surrogates."""

    __slots__ = ("_first", "fields")

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields
        self._first: dict[str, str] = {}
        for name, value in fields:
            self._first.setdefault(name.lower(), value)

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def raw(self, name: str) -> str | None:
        """Return the first header with a name (in lower case) as it came but for its folds."""
        found = self._first.get(name)
        return found if found is None or "\n" not in found else _FOLD.sub("", found)

    def text(self, name: str) -> str | None:
        """Return the first header with a name (in lower case), decoded; None if there is nothing in it."""
        raw = self.raw(name)
        return None if raw is None else decode_text(raw).strip(" \t\r\n") or None

    def word(self, name: str) -> str:
        """Return the first header with a name (in lower case), in lower case; nothing if there is none."""
        return self._first.get(name, "").strip().casefold()

    @property
    def content_type(self) -> str:
        """The content's type as RFC 2045 has it: text/plain unless the message says something that makes sense."""
        kind = self._first.get("content-type", "").partition(";")[0].strip().lower()
        return kind if kind.count("/") == 1 else "text/plain"

    def parameter(self, name: str) -> str:
        """Return a parameter of the content's type; nothing if there is none."""
        message = Message(policy=policy.compat32)
        message["Content-Type"] = self.raw("content-type") or ""
        return str(message.get_param(name, ""))


def header_block(mime: bytes) -> bytes:
    """Return a message up to the empty line that ends its headers, and with it; all of it where there is none."""
    end = _END.search(mime)
    return mime[: end.end()] if end else mime


def parse_headers(mime: bytes) -> Headers:
    """Return a message's headers, without looking at its body."""
    block = header_block(mime)
    if len(block) <= _LONGEST_PLAIN and _PLAIN.fullmatch(block):
        return Headers(_HEADER.findall(block.decode("ascii")))
    # The package's own stubs leave out that this gives strings, 8-bit bytes as surrogates.
    return Headers(list(message_from_bytes(block, policy=policy.compat32).raw_items()))


def decode_text(raw: str) -> str:
    """Decode a header's encoded words and raw 8-bit bytes, as well as they can be."""
    if "=?" not in raw and raw.isascii():
        return raw
    try:
        pieces = decode_header(raw)
    except ValueError:  # damaged base64 in an encoded word
        return raw.encode("ascii", "surrogateescape").decode("utf-8", "replace")
    text = []
    for piece, charset in pieces:
        if isinstance(piece, str):
            text.append(piece.encode("ascii", "surrogateescape").decode("utf-8", "replace"))
            continue
        try:
            text.append(piece.decode(charset or "utf-8", "replace"))
        except LookupError:
            text.append(piece.decode("latin-1"))
    return "".join(text)
