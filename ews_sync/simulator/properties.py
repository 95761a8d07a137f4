"""An item's properties, and how Exchange fills them in from a message's headers when it arrives."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header
from email.utils import getaddresses, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from email.message import Message

_REPLY_PREFIX: Final = re.compile(r"^((re|fw|fwd|aw|wg|sv|vs|tr)(\[\d+\])?:\s*)+", re.IGNORECASE)
_HEADERS_END: Final = re.compile(rb"\r?\n\r?\n")
_LOOK_INTO: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Somebody: a display name and an SMTP address; either can be empty."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Properties:
    """What an item is. None means that the item has no such property; times are UTC; `size` is in bytes."""

    subject: str | None = None
    item_class: str = "IPM.Note"
    message_id: str | None = None
    sent: datetime | None = None
    sender: Address | None = None
    author: Address | None = None
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    in_reply_to: str | None = None
    references: str | None = None
    importance: str = "Normal"
    sensitivity: str = "Normal"
    has_attachments: bool = False
    read_receipt_requested: bool = False
    delivery_receipt_requested: bool = False
    size: int = 0

    @property
    def conversation_topic(self) -> str | None:
        """The subject without its reply prefixes."""
        return None if self.subject is None else _REPLY_PREFIX.sub("", self.subject)


class Content(Protocol):
    """Where an item's message comes from. It can be made anew each time it is asked for."""

    def mime(self) -> bytes:
        """Return the message: the same bytes each time."""

    def properties(self) -> Properties:
        """Return the properties that the message gives the item."""


MimeSource: TypeAlias = bytes | Callable[[], bytes] | Content


class StoredMime:
    """A message held in memory."""

    __slots__ = ("_mime",)

    def __init__(self, mime: bytes) -> None:
        self._mime = mime

    def mime(self) -> bytes:
        """Return the message."""
        return self._mime

    def properties(self) -> Properties:
        """Return what its headers say."""
        return parse_properties(self._mime)


class GeneratedMime:
    """A message made by a function whenever it is needed, and not kept."""

    __slots__ = ("_generate",)

    def __init__(self, generate: Callable[[], bytes]) -> None:
        self._generate = generate

    def mime(self) -> bytes:
        """Make the message."""
        return self._generate()

    def properties(self) -> Properties:
        """Return what its headers say."""
        return parse_properties(self._generate())


def content_of(source: MimeSource) -> Content:
    """Return the content for bytes, for a function that makes them, or for a content itself."""
    if isinstance(source, bytes):
        return StoredMime(source)
    if callable(source):
        return GeneratedMime(source)
    return source


class PropertyCache:
    """Remembers the properties of the items that were asked for last, so that a page does not parse a message twice."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._known: OrderedDict[tuple[int, int], Properties] = OrderedDict()

    def of(self, key: tuple[int, int], content: Content, overrides: tuple[tuple[str, Any], ...]) -> Properties:
        """Return a content's properties with the overrides laid over them; `key` names the item."""
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        known = content.properties()
        if overrides:
            known = replace(known, **dict(overrides))
        self._known[key] = known
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return known


def parse_properties(mime: bytes) -> Properties:
    """Return the properties that Exchange would take from a message's headers."""
    headers = parse_headers(mime)
    author = _addresses(headers, "From")
    sender = _addresses(headers, "Sender") or author
    return Properties(
        subject=_text(headers, "Subject"),
        item_class=_item_class(headers, mime),
        message_id=_text(headers, "Message-ID"),
        sent=_date(headers.get("Date")),
        sender=sender[0] if sender else None,
        author=author[0] if author else None,
        to=_addresses(headers, "To"),
        cc=_addresses(headers, "Cc"),
        bcc=_addresses(headers, "Bcc"),
        reply_to=_addresses(headers, "Reply-To"),
        in_reply_to=_text(headers, "In-Reply-To"),
        references=_text(headers, "References"),
        importance=_importance(headers),
        sensitivity=_sensitivity(headers),
        has_attachments=_has_attachments(headers, mime),
        read_receipt_requested="Disposition-Notification-To" in headers,
        delivery_receipt_requested="Return-Receipt-To" in headers,
        size=stored_size(len(mime)),
    )


def parse_headers(mime: bytes) -> Message:
    """Return a message's headers, without looking at its body."""
    end = _HEADERS_END.search(mime)
    return message_from_bytes(mime[: end.end()] if end else mime, policy=policy.compat32)


def stored_size(mime_length: int) -> int:
    """Return the size that the store reports for a message of this many bytes of MIME.

    item:Size counts what lies in the store, with attachments decoded and some properties of its own, so it is not the
    length of the MIME: smaller for large messages, larger for small ones.
    """
    return mime_length * 3 // 4 + 2500


def conversation_id(space: str, topic: str | None) -> str:
    """Return a conversation's id: the same for every message of a thread within one mailbox."""
    digest = hashlib.md5((topic or "").casefold().encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    return f"AAQk{space}EAD{digest.upper()}="


def decode_text(raw: str) -> str:
    """Decode a header's encoded words and raw 8-bit bytes, as well as they can be."""
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


def _text(headers: Message, name: str) -> str | None:
    raw = headers.get(name)
    if raw is None:
        return None
    # A header object stands in for a header with raw 8-bit bytes: its text has been replaced by then.
    unfolded = re.sub(r"\r?\n(?=[ \t])", "", _raw(headers, name))
    return decode_text(unfolded).strip(" \t\r\n") or None


def _raw(headers: Message, name: str) -> str:
    """Return the header with its 8-bit bytes as surrogates, which `get` would hide."""
    wanted = name.casefold()
    return next((str(value) for key, value in headers.raw_items() if key.casefold() == wanted), "")


def _addresses(headers: Message, name: str) -> tuple[Address, ...]:
    if name not in headers:
        return ()
    raw = re.sub(r"\r?\n(?=[ \t])", "", _raw(headers, name))
    return tuple(Address(decode_text(who), where) for who, where in getaddresses([raw]) if who or where)


def _date(raw: object) -> datetime | None:
    if raw is None:
        return None
    try:
        parsed = parsedate_to_datetime(str(raw))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)


def _importance(headers: Message) -> str:
    said = str(headers.get("Importance", "")).strip().casefold()
    return {"high": "High", "low": "Low"}.get(said, "Normal")


def _sensitivity(headers: Message) -> str:
    said = str(headers.get("Sensitivity", "")).strip().casefold()
    return {"personal": "Personal", "private": "Private", "company-confidential": "Confidential"}.get(said, "Normal")


def _item_class(headers: Message, mime: bytes) -> str:
    kind = headers.get_content_type()
    if kind == "multipart/signed":
        return "IPM.Note.SMIME.MultipartSigned"
    if kind == "application/pkcs7-mime":
        return "IPM.Note.SMIME"
    if kind == "multipart/report":
        report = str(headers.get_param("report-type", "")).casefold()
        return "REPORT.IPM.Note.IPNRN" if report == "disposition-notification" else "REPORT.IPM.Note.NDR"
    opening = mime[:_LOOK_INTO].lower()
    if kind in {"multipart/alternative", "text/calendar"} and b"text/calendar" in opening:
        for method, item_class in (
            (b"request", "IPM.Schedule.Meeting.Request"),
            (b"cancel", "IPM.Schedule.Meeting.Canceled"),
            (b"reply", "IPM.Schedule.Meeting.Resp.Pos"),
        ):
            if re.search(rb"method=\"?" + method, opening):
                return item_class
    return "IPM.Note"


def _has_attachments(headers: Message, mime: bytes) -> bool:
    kind = headers.get_content_type()
    if not kind.startswith("multipart/"):
        return not kind.startswith("text/")
    return kind == "multipart/signed" or b"content-disposition: attachment" in mime[: 16 * _LOOK_INTO].lower()
