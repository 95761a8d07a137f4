"""What an answer to GetItem means for the items that were asked for. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ews_sync.errors import SourceError
from ews_sync.model import DeadLetter, Email, Fetched, ItemRef, Metadata
from ews_sync.sources.ews.codes import NO_ERROR, meaning_of
from ews_sync.sources.ews.records import is_mail_class
from ews_sync.web.failures import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.model import Folder, Mailbox, Mime
    from ews_sync.sources.ews.operations import ItemRecord, ResponseMessage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_MIME = "NoMimeContent"
"""Ours: the server gave an item without its message."""
DAMAGED_MIME = "DamagedMimeContent"
"""Ours: the message's base64 was no base64."""
LEFT_OUT = "LeftOutOfAnswer"
"""Ours: the server answered the request, and not for this item."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What one item was answered with instead of itself; `backoff` is in seconds."""

    code: str
    text: str
    backoff: float | None = None


def matched(
    batch: Sequence[ItemRef], messages: Sequence[ResponseMessage]
) -> list[tuple[ItemRef, ItemRecord | Failure]]:
    """Match what was asked with what was answered, once each.

    By id where the answer has one; else by position, as Exchange answers, as long as the numbers agree. Messages'
    bytes that belong to none of the items are given back.
    """
    found: dict[str, ItemRecord] = {}
    others: list[ItemRecord | Failure] = []
    wanted = {ref.id for ref in batch}
    for message in messages:
        answer = _answered(message)
        if not isinstance(answer, Failure) and answer.ref.id in wanted and answer.ref.id not in found:
            found[answer.ref.id] = answer
        else:
            others.append(answer)
    rest = [ref for ref in batch if ref.id not in found]
    if len(others) == len(rest):
        by_position = {ref.id: answer for ref, answer in zip(rest, others, strict=True)}
        return [(ref, found[ref.id] if ref.id in found else by_position[ref.id]) for ref in batch]
    missing = Failure(LEFT_OUT, "the server's answer left the item out")
    for other in others:
        if not isinstance(other, Failure):
            _close(other)
        elif meaning_of(other.code).on_item is None:
            # One word for all of them, such as ErrorServerBusy.
            missing = other
    return [(ref, found.get(ref.id, missing)) for ref in batch]


def properties(messages: Sequence[ResponseMessage]) -> dict[str, ItemRecord]:
    """Index the items of an answer that was asked for without messages' bytes."""
    items = [item for message in messages for item in message.items]
    for item in items:
        _close(item)
    return {item.ref.id: item for item in items}


def messages_in(messages: Sequence[ResponseMessage]) -> int:
    """Count the items that came with their message, whole; all are given back."""
    items = [item for message in messages for item in message.items]
    whole = sum(1 for item in items if item.mime is not None and item.mime.size and not item.mime_damaged)
    for item in items:
        _close(item)
    return whole


def judged(mailbox: Mailbox, folder: Folder, ref: ItemRef, item: ItemRecord) -> Fetched | Failure:
    """Make the email of an item; nothing when it is no mail, or not mail yet; a failure when its bytes are not there.

    Raises `SourceError` when the bytes cannot be read back from where they are kept.
    """
    mime = item.mime
    if item.ref.is_draft or not is_mail_class(item.item_class):
        _close(item)
        return Fetched(ref, draft=item.ref.is_draft)
    if item.mime_damaged:
        return Failure(DAMAGED_MIME, "the message's base64 was damaged")
    if mime is None or not mime.size:
        _close(item)
        return Failure(NO_MIME, "the server gave the item without its message")
    email = Email(
        id=item.ref.email_id or ref.email_id or _content_id(mime),
        mailbox=mailbox,
        timestamp=item.ref.sent or item.ref.received or ref.created or _EPOCH,
        mime=mime,
        metadata=Metadata(
            folder=folder.path,
            received_at=item.ref.received,
            size=item.ref.size if item.has_size else None,
            sensitivity=item.sensitivity,
            importance=item.importance,
            categories=item.categories,
            has_attachments=item.has_attachments,
            conversation_id=item.conversation_id,
            conversation_topic=item.conversation_topic,
            is_read=item.is_read,
        ),
        attachments=item.attachments,
        item_id=ref.id,
    )
    return Fetched(ref, email=email)


def _content_id(mime: Mime) -> str:
    """Name a message that has neither Message-ID nor search key by what it contains."""
    digest = hashlib.sha256()
    try:
        for chunk in mime.chunks():
            digest.update(chunk)
    except OSError as error:
        mime.close()
        raise SourceError(f"cannot read a message back from its temporary file: {error.strerror or error}") from error
    return f"<{digest.hexdigest()}@no-message-id.ews-sync>"


def dead_letter(mailbox: Mailbox, folder: Folder, ref: ItemRef, failure: Failure, item: ItemRecord | None) -> Fetched:
    """Record that an item cannot be fetched; `item` has the properties that could still be had.

    Gives nothing to store when they show that it is no mail, or not mail yet.
    """
    known: dict[str, str] = {}
    source = item.ref if item is not None else ref
    if source.is_draft or not source.is_mail:
        return Fetched(ref, draft=source.is_draft)
    if item is not None:
        known |= {"item_class": item.item_class} if item.item_class else {}
        known |= {"search_key": item.search_key} if item.search_key else {}
    known |= {"size": str(source.size)} if source.size else {}
    known |= {"sent": source.sent.isoformat()} if source.sent else {}
    letter = DeadLetter(
        mailbox=mailbox,
        item_id=ref.id,
        folder=folder.path,
        code=one_line(failure.code, 100),
        reason=one_line(failure.text, 500) or "the server gave no reason",
        email_id=source.email_id or ref.email_id,
        received=source.received or ref.received,
        known=known,
    )
    return Fetched(ref, dead_letter=letter)


def _answered(message: ResponseMessage) -> ItemRecord | Failure:
    if message.items and message.code in {NO_ERROR, ""}:
        for item in message.items[1:]:
            _close(item)
        return message.items[0]
    for item in message.items:
        _close(item)
    if message.code in {NO_ERROR, ""}:
        return Failure(NO_MIME, "the server gave nothing for the item, and no error")
    return Failure(message.code, message.text, message.backoff)


def _close(item: ItemRecord) -> None:
    if item.mime is not None:
        item.mime.close()
