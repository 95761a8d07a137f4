"""Writing XML as Exchange does: in pieces, so that a message of 150 MB is never held twice, and with its flaws."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOAP_NS: Final = "http://schemas.xmlsoap.org/soap/envelope/"
MESSAGES_NS: Final = "http://schemas.microsoft.com/exchange/services/2006/messages"
TYPES_NS: Final = "http://schemas.microsoft.com/exchange/services/2006/types"
ERRORS_NS: Final = "http://schemas.microsoft.com/exchange/services/2006/errors"

# A multiple of three, so that the pieces' base64 can be put one after the other.
_PIECE: Final = 3 * 256 * 1024
_SPECIAL: Final = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
_NAMED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server writes: its namespace prefixes, and what it puts (raw XML) at the end of each subject and name."""

    soap: str = "s"
    messages: str = "m"
    types: str = "t"
    illegal: str = ""


def escape(text: str) -> str:
    """Escape text for XML, with character references for what XML forbids.

    Exchange does the latter: its writer does not check characters, so a control character in a subject comes as
    `&#xB;`, which no strict parser takes.
    """
    return _SPECIAL.sub(lambda found: _NAMED.get(found[0]) or f"&#x{ord(found[0]):X};", text)


def wire_time(moment: datetime) -> str:
    """Return a time as Exchange writes it: UTC, in whole seconds, cut off and not rounded."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def boolean(value: bool) -> str:  # noqa: FBT001 - a conversion
    """Return `true` or `false`."""
    return "true" if value else "false"


class XmlWriter:
    """Collects a document. Names are written `t:Message`: t types, m messages, s SOAP."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._prefixes = {"s": dialect.soap, "m": dialect.messages, "t": dialect.types}
        self._pieces: list[str | Callable[[], bytes]] = []
        self._open: list[str] = []

    def start(self, name: str, **attributes: str) -> None:
        """Open an element."""
        tag = self._tag(name)
        self._open.append(tag)
        self._pieces.append(f"<{tag}{_attributes(attributes)}>")

    def end(self) -> None:
        """Close the element that was opened last."""
        self._pieces.append(f"</{self._open.pop()}>")

    def leaf(self, name: str, text: str | None = None, **attributes: str) -> None:
        """Write an element with text, or an empty one."""
        tag = self._tag(name)
        if text is None:
            self._pieces.append(f"<{tag}{_attributes(attributes)}/>")
        else:
            self._pieces.append(f"<{tag}{_attributes(attributes)}>{escape(text)}</{tag}>")

    def subject(self, name: str, text: str) -> None:
        """Write an element whose text people have typed: where a dialect shows its illegal characters."""
        tag = self._tag(name)
        self._pieces.append(f"<{tag}>{escape(text)}{self.dialect.illegal}</{tag}>")

    def base64(self, name: str, source: Callable[[], bytes], **attributes: str) -> None:
        """Write an element with base64. The bytes are asked for when the document is sent."""
        tag = self._tag(name)
        self._pieces += [f"<{tag}{_attributes(attributes)}>", source, f"</{tag}>"]

    def raw(self, markup: str) -> None:
        """Write markup as it is."""
        self._pieces.append(markup)

    def chunks(self) -> Iterator[bytes]:
        """Yield the document, UTF-8, in pieces of at most about a megabyte."""
        text: list[str] = []
        length = 0
        for piece in self._pieces:
            if isinstance(piece, str):
                text.append(piece)
                length += len(piece)
                if length > _PIECE:
                    yield "".join(text).encode()
                    text, length = [], 0
                continue
            yield "".join(text).encode()
            text, length = [], 0
            content = memoryview(piece())
            for start in range(0, len(content), _PIECE):
                yield base64.b64encode(content[start : start + _PIECE])
        yield "".join(text).encode()

    def _tag(self, name: str) -> str:
        kind, _, local = name.partition(":")
        prefix = self._prefixes[kind]
        return f"{prefix}:{local}" if prefix else local


def _attributes(attributes: dict[str, str]) -> str:
    return "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
