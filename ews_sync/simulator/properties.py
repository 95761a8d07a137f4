"""An item's properties, and how Exchange fills them in from a message's headers when it arrives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import getaddresses, parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from ews_sync.simulator.headers import decode_text, parse_headers

if TYPE_CHECKING:
    from ews_sync.simulator.headers import Headers

_REPLY_PREFIX: Final = re.compile(r"^((re|fw|fwd|aw|wg|sv|vs|tr)(\[\d+\])?:\s*)+", re.IGNORECASE)
_ATOMS: Final = r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
_MAIL_ADDRESS: Final = rf"{_ATOMS}@{_ATOMS}"
_WORDS: Final = "[A-Za-z0-9]+(?: [A-Za-z0-9]+)*"
_PLAIN_ADDRESS: Final = re.compile(rf'{_MAIL_ADDRESS}|(?:"({_WORDS})"|({_WORDS})) <({_MAIL_ADDRESS})>')
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"
_PLAIN_DATE: Final = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?(\d\d?) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([12]\d{3})"
    r" (\d\d):(\d\d):(\d\d) ([+-])([01]\d|2[0-3])([0-5]\d)",
    re.ASCII,
)
_IMPORTANCES: Final = {"high": "High", "low": "Low"}
_SENSITIVITIES: Final = {"personal": "Personal", "private": "Private", "company-confidential": "Confidential"}
_MEETINGS: Final = (
    (b"request", "IPM.Schedule.Meeting.Request"),
    (b"cancel", "IPM.Schedule.Meeting.Canceled"),
    (b"reply", "IPM.Schedule.Meeting.Resp.Pos"),
)
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


def parse_properties(mime: bytes) -> Properties:
    """Return the properties that Exchange would take from a message's headers."""
    headers = parse_headers(mime)
    author = _addresses(headers, "from")
    sender = _addresses(headers, "sender") or author
    return Properties(
        subject=headers.text("subject"),
        item_class=_item_class(headers, mime),
        message_id=headers.text("message-id"),
        sent=_date(headers.raw("date")),
        sender=sender[0] if sender else None,
        author=author[0] if author else None,
        to=_addresses(headers, "to"),
        cc=_addresses(headers, "cc"),
        bcc=_addresses(headers, "bcc"),
        reply_to=_addresses(headers, "reply-to"),
        in_reply_to=headers.text("in-reply-to"),
        references=headers.text("references"),
        importance=_IMPORTANCES.get(headers.word("importance"), "Normal"),
        sensitivity=_SENSITIVITIES.get(headers.word("sensitivity"), "Normal"),
        has_attachments=_has_attachments(headers, mime),
        read_receipt_requested="disposition-notification-to" in headers,
        delivery_receipt_requested="return-receipt-to" in headers,
        size=stored_size(len(mime)),
    )


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


def _addresses(headers: Headers, name: str) -> tuple[Address, ...]:
    raw = headers.raw(name)
    if raw is None:
        return ()
    plain = _PLAIN_ADDRESS.fullmatch(raw)
    if plain is not None:
        return (Address("", plain[0]) if plain[3] is None else Address(plain[1] or plain[2], plain[3]),)
    return tuple(Address(decode_text(who), where) for who, where in getaddresses([raw]) if who or where)


def _date(raw: str | None) -> datetime | None:
    if raw is None:
        return None
    plain = _PLAIN_DATE.fullmatch(raw)
    try:
        return _plain_date(plain) if plain is not None else _utc(parsedate_to_datetime(raw))
    except (ValueError, OverflowError):
        return None


def _plain_date(found: re.Match[str]) -> datetime:
    day, month, year, hour, minute, second = found.group(1, 2, 3, 4, 5, 6)
    zone = timedelta(hours=int(found[8]), minutes=int(found[9])) * (-1 if found[7] == "-" else 1)
    return (
        datetime(int(year), _MONTHS.index(month) // 3 + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        - zone
    )


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _item_class(headers: Headers, mime: bytes) -> str:
    kind = headers.content_type
    if kind == "multipart/signed":
        return "IPM.Note.SMIME.MultipartSigned"
    if kind == "application/pkcs7-mime":
        return "IPM.Note.SMIME"
    if kind == "multipart/report":
        report = headers.parameter("report-type").casefold()
        return "REPORT.IPM.Note.IPNRN" if report == "disposition-notification" else "REPORT.IPM.Note.NDR"
    if kind in {"multipart/alternative", "text/calendar"}:
        opening = mime[:_LOOK_INTO].lower()
        for method, item_class in _MEETINGS if b"text/calendar" in opening else ():
            if re.search(rb"method=\"?" + method, opening):
                return item_class
    return "IPM.Note"


def _has_attachments(headers: Headers, mime: bytes) -> bool:
    kind = headers.content_type
    if not kind.startswith("multipart/"):
        return not kind.startswith("text/")
    return kind == "multipart/signed" or b"content-disposition: attachment" in mime[: 16 * _LOOK_INTO].lower()
