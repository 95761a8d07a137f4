"""An email as the platform's NewEmail: the JSON that is uploaded, and that lies beside every `.eml`.

Keys are in the order of the platform's own documentation. What is not known is left out, never null.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from ews_sync.model import Attachment, Email, Metadata

# Legal inside a JSON string, but a reader of lines may take U+2028 and U+2029 for line ends (and JavaScript once did).
# The controls from U+0080 on, which begin terminals' escape sequences in one character, are for nobody's screen. In
# JSON text characters like these stand only inside strings, where an escape means the same.
_UNSAFE = re.compile(b"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
_UNSAFE_C1 = re.compile(b"\xc2[\x80-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Three times as quick as the standard library's encoder, with the same bytes, and it takes a message as UTF-8, without
# a string made of it.
_to_json = TypeAdapter(Any).serializer.to_json


def new_email(
    email: Email, *, email_id: str | None = None, mime_content: str | bytes | None = None
) -> dict[str, object]:
    """Give the NewEmail of `email`, with `mime_content` where it is given, and under `email_id` instead of its own.

    The content may be text or, for `json_bytes`, its UTF-8.
    """
    result: dict[str, object] = {
        "id": email.id if email_id is None else email_id,
        "mailbox": email.mailbox.address,
        "timestamp": utc_text(email.timestamp),
    }
    if mime_content is not None:
        result["mime_content"] = mime_content
    result["metadata"] = _metadata(email.metadata)
    if email.attachments:
        result["attachments"] = [_attachment(attachment) for attachment in email.attachments]
    return result


def json_bytes(value: object, *, indent: int | None = None) -> bytes:
    """Give `value` as JSON in valid UTF-8; without `indent` it is one line, even by Unicode's idea of line ends.

    `bytes` in it stand for the text whose UTF-8 they are; `UnicodeDecodeError` when they are not valid.
    """
    try:
        data = _to_json(value, indent=indent)
    except ValueError:
        data = _standard(value, indent)
    return _UNSAFE.sub(_escaped, data) if _has_unsafe(data) else data


def _has_unsafe(data: bytes) -> bool:
    # Mail is large and mostly has none of these: to look for each of them in turn is quicker than one search for any of
    # them, by far.
    if b"\x7f" in data:
        return True
    if data.isascii():
        return False
    return b"\xe2\x80\xa8" in data or b"\xe2\x80\xa9" in data or (b"\xc2" in data and bool(_UNSAFE_C1.search(data)))


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


def _standard(value: object, indent: int | None) -> bytes:
    """Give what the quick encoder does not take: lone surrogates, which have no UTF-8 at all, as escapes."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, default=bytes.decode)
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def utc_text(time: datetime) -> str:
    """Give `time` as `2020-01-01T00:00:00Z`, with microseconds only where there are any."""
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def utc_time(text: str) -> datetime:
    """Read what `utc_text` wrote; a time without a zone is taken as UTC. `ValueError` when it is no time."""
    time = datetime.fromisoformat(text)
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("outside the calendar") from error


def _metadata(metadata: Metadata) -> dict[str, object]:
    known: dict[str, object | None] = {
        "sensitivity": metadata.sensitivity,
        "size": metadata.size,
        "categories": list(metadata.categories) or None,
        "importance": metadata.importance,
        "has_attachments": metadata.has_attachments,
        "conversation_id": metadata.conversation_id,
        "conversation_topic": metadata.conversation_topic,
        "is_read": metadata.is_read,
        "folder": list(metadata.folder),
        "received_at": None if metadata.received_at is None else utc_text(metadata.received_at),
    }
    return {key: value for key, value in known.items() if value is not None}


def _attachment(attachment: Attachment) -> dict[str, object]:
    # The platform's published client cannot read an attachment without a type; this one says that it is not known
    # (RFC 2046, 4.5.1).
    kind = attachment.content_type or "application/octet-stream"
    return {"name": attachment.name, "size": attachment.size, "content_type": kind}
