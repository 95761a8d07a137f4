"""A message taken apart: its body, its attachments, its headers."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

from ews_sync.simulator.headers import decode_text, header_block, parse_headers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message


@dataclass(frozen=True, slots=True)
class Attachment:
    """What there is to say of an attachment: a file, or a message within the message. `size` is in bytes."""

    name: str
    content_type: str
    content_id: str
    is_inline: bool
    is_message: bool
    size: int


def attachments(mime: bytes) -> tuple[Attachment, ...]:
    """Return a message's attachments, in order."""
    if _is_text_alone(header_block(mime).lower()):
        return ()
    return tuple(attachment for attachment, _ in opened(mime))


def _is_text_alone(head: bytes) -> bool:
    """Whether these headers, in lower case, are certainly those of one text without a name: most messages are that."""
    return head.count(b"content-type:") == head.count(b"content-type: text/") and not any(
        word in head for word in (b"content-disposition", b"multipart", b"message/", b"name")
    )


def opened(mime: bytes) -> list[tuple[Attachment, bytes]]:
    """Return a message's attachments, in order, each with its content: decoded, or the message within."""
    found = []
    for part in _leaves(message_from_bytes(mime, policy=policy.compat32), top=True):
        disposition = part.get_content_disposition()
        kind = part.get_content_type()
        name = part.get_filename()
        if disposition is None and name is None and kind.startswith("text/"):
            continue
        is_message = kind == "message/rfc822"
        content = _message_bytes(part) if is_message else _decoded(part)
        described = Attachment(
            name=decode_text(name) if name else _default_name(part),
            content_type=kind,
            content_id=str(part.get("Content-ID", "")).strip("<> "),
            is_inline=disposition == "inline",
            is_message=is_message,
            size=len(content),
        )
        found.append((described, content))
    return found


def body(mime: bytes) -> tuple[str, str]:
    """Return the best body: its type (HTML or Text) and its text."""
    message = message_from_bytes(mime, policy=policy.compat32)
    texts = {part.get_content_type(): part for part in reversed(list(_leaves(message, top=True))) if _is_body(part)}
    for kind, body_type in (("text/html", "HTML"), ("text/plain", "Text")):
        if kind in texts:
            return body_type, _characters(texts[kind])
    return "Text", ""


def text_body(mime: bytes) -> str:
    """Return the plain text body, or nothing."""
    message = message_from_bytes(mime, policy=policy.compat32)
    texts = (part for part in _leaves(message, top=True) if _is_body(part) and part.get_content_type() == "text/plain")
    return next((_characters(part) for part in texts), "")


def headers(mime: bytes) -> list[tuple[str, str]]:
    """Return a message's headers, decoded."""
    return [(name, decode_text(value)) for name, value in parse_headers(mime).fields]


def _leaves(message: Message, *, top: bool = False) -> Iterator[Message]:
    """Yield the parts that are not made of parts. A message within the message is one part."""
    if message.is_multipart() and (top or message.get_content_type() != "message/rfc822"):
        if message.get_content_type() == "message/rfc822":
            yield message
            return
        for part in message.get_payload():
            if not isinstance(part, str):
                yield from _leaves(part)
    else:
        yield message


def _is_body(part: Message) -> bool:
    return (
        part.get_content_maintype() == "text" and part.get_filename() is None and part.get_content_disposition() is None
    )


def _decoded(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _characters(part: Message) -> str:
    charset = part.get_content_charset() or "utf-8"
    try:
        return _decoded(part).decode(charset, "replace")
    except LookupError:
        return _decoded(part).decode("latin-1")


def _message_bytes(part: Message) -> bytes:
    inner = part.get_payload()
    if isinstance(inner, list) and inner and not isinstance(inner[0], str):
        return inner[0].as_bytes()
    return b""


def _default_name(part: Message) -> str:
    if part.get_content_type() == "message/rfc822":
        payload = part.get_payload()
        if isinstance(payload, list) and payload and not isinstance(payload[0], str):
            return decode_text(str(payload[0].get("Subject", "")))[:128] or "message"
    return "attachment" + {"text/calendar": ".ics", "application/pkcs7-signature": ".p7s"}.get(
        part.get_content_type(), ".bin"
    )
