"""Writing XML as Exchange does: in pieces, so that a message of 150 MB is never held twice, and with its flaws."""

from __future__ import annotations

import re
from binascii import b2a_base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SOAP_NS: Final = "http://schemas.xmlsoap.org/soap/envelope/"
MESSAGES_NS: Final = "http://schemas.microsoft.com/exchange/services/2006/messages"
TYPES_NS: Final = "http://schemas.microsoft.com/exchange/services/2006/types"
ERRORS_NS: Final = "http://schemas.microsoft.com/exchange/services/2006/errors"

# A multiple of three, so that the pieces' base64 can be put one after the other.
_PIECE: Final = 3 * 64 * 1024
# Every write is a call of the system and wakes the client, so what is written is not much smaller than this.
_WORTH_A_WRITE: Final = 128 * 1024
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
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _NAMED.get(found[0]) or f"&#x{ord(found[0]):X};", text)


def wire_time(moment: datetime) -> str:
    """Return a time as Exchange writes it: UTC, in whole seconds, cut off and not rounded."""
    return f"{moment.astimezone(UTC).isoformat()[:19]}Z"  # strftime takes twice as long


def boolean(value: bool) -> str:  # noqa: FBT001 - a conversion
    """Return `true` or `false`."""
    return "true" if value else "false"


class XmlWriter:
    """Collects a document. Names are written `t:Message`: t types, m messages, s SOAP."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._tags = _Tags(dialect)
        self._pieces: list[str | Callable[[], bytes]] = []
        self._open: list[str] = []

    def start(self, name: str, **attributes: str) -> None:
        """Open an element."""
        tag = self._tags[name]
        self._open.append(tag)
        self._pieces.append(f"<{tag}{markup_of(attributes)}>" if attributes else f"<{tag}>")

    def end(self) -> None:
        """Close the element that was opened last."""
        self._pieces.append(f"</{self._open.pop()}>")

    def leaf(self, name: str, text: str | None = None, **attributes: str) -> None:
        """Write an element with text, or an empty one."""
        tag = self._tags[name]
        described = markup_of(attributes) if attributes else ""
        if text is None:
            self._pieces.append(f"<{tag}{described}/>")
        else:
            self._pieces.append(f"<{tag}{described}>{escape(text)}</{tag}>")

    def identity(self, name: str, identity: str, change_key: str) -> None:
        """Write the id of an item or a folder: base64, so that nothing in it needs to be escaped."""
        self._pieces.append(f'<{self._tags[name]} Id="{identity}" ChangeKey="{change_key}"/>')

    def described(self, name: str, markup: str) -> None:
        """Write an empty element with attributes that `markup_of` has put into words before."""
        self._pieces.append(f"<{self._tags[name]}{markup}/>")

    def subject(self, name: str, text: str) -> None:
        """Write an element whose text people have typed: where a dialect shows its illegal characters."""
        tag = self._tags[name]
        self._pieces.append(f"<{tag}>{escape(text)}{self.dialect.illegal}</{tag}>")

    def base64(self, name: str, source: Callable[[], bytes], markup: str = "") -> None:
        """Write an element with base64, its attributes as `markup_of` gives them.

        The bytes are asked for when the document is sent.
        """
        tag = self._tags[name]
        self._pieces += (f"<{tag}{markup}>", source, f"</{tag}>")

    def raw(self, markup: str) -> None:
        """Write markup as it is."""
        self._pieces.append(markup)

    def chunks(self) -> Iterator[bytes]:
        """Yield the document, UTF-8, in pieces of 128 to 384 KiB; the last can be smaller, and a long text larger."""
        ready: list[bytes] = []
        length = 0
        for part in self._parts():
            ready.append(part)
            length += len(part)
            if length >= _WORTH_A_WRITE:
                yield b"".join(ready)
                ready.clear()
                length = 0
        if ready:
            yield b"".join(ready)

    def _parts(self) -> Iterator[bytes]:
        """Yield the document: texts that follow each other as one, as far as that makes a decent part."""
        text: list[str] = []
        length = 0
        for piece in self._pieces:
            if isinstance(piece, str):
                text.append(piece)
                length += len(piece)
                if length < _WORTH_A_WRITE:
                    continue
            yield "".join(text).encode()
            text.clear()
            length = 0
            if not isinstance(piece, str):
                # Asked for only now, when all that comes before it is on its way.
                content = memoryview(piece())
                for start in range(0, len(content), _PIECE):
                    yield b2a_base64(content[start : start + _PIECE], newline=False)
        yield "".join(text).encode()


class _Tags(dict[str, str]):
    """What elements are called in a dialect, by their names here: each is put together once."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self._prefixes = {"s": dialect.soap, "m": dialect.messages, "t": dialect.types}

    def __missing__(self, name: str) -> str:
        kind, _, local = name.partition(":")
        prefix = self._prefixes[kind]
        tag = self[name] = f"{prefix}:{local}" if prefix else local
        return tag


def markup_of(attributes: Mapping[str, str]) -> str:
    """Return attributes as they stand in a tag, each with a space before it."""
    return "".join([f' {name}="{escape(value)}"' for name, value in attributes.items()])
