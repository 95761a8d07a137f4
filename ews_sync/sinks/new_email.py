"""An email as the platform's NewEmail: the JSON that is uploaded, and that lies beside every `.eml`.

Keys are in the order of the platform's own documentation. What is not known is left out, never null.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ews_sync.model import Attachment, Email, Metadata

# Legal inside a JSON string, but a reader of lines may take them for line ends (and JavaScript once did); a lone
# surrogate has no UTF-8 at all. In JSON text characters like these stand only inside strings, where an escape means
# the same.
# The controls from U+0080 on, which begin terminals' escape sequences in one character, are for nobody's screen.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAFE_WIDE = ("\u2028", "\u2029")
_CONTROL = re.compile(b"\xc2[\x80-\x9f]")
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def new_email(email: Email, *, email_id: str | None = None, mime_content: str | None = None) -> dict[str, object]:
    """Give the NewEmail of `email`, with `mime_content` where it is given, and under `email_id` instead of its own."""
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
    """Give `value` as JSON in valid UTF-8; without `indent` it is one line, even by Unicode's idea of line ends."""
    if indent is None:
        text = _ENCODER.encode(value)
    else:
        text = json.dumps(value, ensure_ascii=False, indent=indent, separators=(",", ": "))
    # Mail is large and mostly has none of these: to look for them is quicker than to replace them, by far.
    if "\x7f" in text or (not text.isascii() and any(character in text for character in _UNSAFE_WIDE)):
        return _escaped(text)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return _escaped(text)
    return _escaped(text) if b"\xc2" in data and _CONTROL.search(data) else data


def _escaped(text: str) -> bytes:
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def utc_text(time: datetime) -> str:
    """Give `time` as `2020-01-01T00:00:00Z`, with microseconds only where there are any."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


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
