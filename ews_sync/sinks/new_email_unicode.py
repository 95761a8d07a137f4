"""What is known of an email, in valid Unicode: strict readers refuse JSON that has half a character in it.

Servers that count in UTF-16 can give such halves (lone surrogates), where a name was cut off. What people read has
U+FFFD in their place; ids, which must stay different from all others, have U+FFFD and the half's number in braces, as
`{d83d}`. For the message itself see `mime_text`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ews_sync.model import Attachment, Email, Metadata

# What looks like such an escape is escaped as well, so that no two ids become one.
_UNSAFE_IN_ID = re.compile("[\ud800-\udfff]|\ufffd(?=\\{[0-9a-f]{4}\\})")


def in_unicode(email: Email) -> Email:
    """Give `email` with ids and names in valid Unicode: nearly always itself."""
    texts = (
        email.id,
        email.mailbox.address,
        *_texts(email.metadata),
        *(attachment.name + (attachment.content_type or "") for attachment in email.attachments),
    )
    if "".join(texts).isascii():
        return email
    return replace(
        email,
        id=unicode_id(email.id),
        mailbox=replace(email.mailbox, address=unicode_id(email.mailbox.address)),
        metadata=_metadata(email.metadata),
        attachments=tuple(_attachment(attachment) for attachment in email.attachments),
    )


def unicode_id(text: str) -> str:
    """Give an id in valid Unicode: itself, unless there are lone surrogates in it. Different ids stay different."""
    if text.isascii():
        return text
    # Two halves that belong together are one character.
    paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _UNSAFE_IN_ID.sub(lambda match: f"\ufffd{{{ord(match[0]):04x}}}", paired)


def _texts(metadata: Metadata) -> tuple[str, ...]:
    optional = (
        metadata.sensitivity,
        metadata.importance,
        metadata.conversation_id,
        metadata.conversation_topic,
    )
    return (*metadata.folder, *metadata.categories, *(text for text in optional if text is not None))


def _metadata(metadata: Metadata) -> Metadata:
    conversation = metadata.conversation_id
    return replace(
        metadata,
        folder=tuple(_name(name) for name in metadata.folder),
        categories=tuple(_name(category) for category in metadata.categories),
        sensitivity=_optional(metadata.sensitivity),
        importance=_optional(metadata.importance),
        conversation_id=None if conversation is None else unicode_id(conversation),
        conversation_topic=_optional(metadata.conversation_topic),
    )


def _attachment(attachment: Attachment) -> Attachment:
    return replace(attachment, name=_name(attachment.name), content_type=_optional(attachment.content_type))


def _optional(text: str | None) -> str | None:
    return None if text is None else _name(text)


def _name(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
