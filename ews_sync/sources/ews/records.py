"""Records of an answer (items, folders, changes) from the light nodes that the reader makes. Pure.

Property names are those of Microsoft's EWS reference. What a server leaves out or garbles becomes None: absent is
better than invented.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ews_sync.model import Attachment, ItemRef, Mime
from ews_sync.sources.ews.encoding import DELETED_COUNT_TOTAL, LOCAL_COMMIT_TIME_MAX, SEARCH_KEY, TYPES_NS
from ews_sync.sources.ews.operations import ChangeRecord, FolderRecord, ItemRecord
from ews_sync.sources.ews.wire import MENDED

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = f"{{{TYPES_NS}}}"
_LARGEST_COUNT = 2**63 - 1
"""What is beyond would not fit where it is to be stored, or be more than a float can hold."""


class Node:
    """An element of the open record: just enough of a tree to look things up by name."""

    __slots__ = ("attributes", "children", "mime", "mime_damaged", "pieces", "tag")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.pieces: list[str] = []
        self.children: list[Node] = []
        self.mime: Mime | None = None
        self.mime_damaged = False

    @property
    def text(self) -> str:
        """The element's own text, without white space around it."""
        return "".join(self.pieces).replace(MENDED, " ").strip()

    def walk(self) -> Iterator[Node]:
        """Yield the element and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def item_record(node: Node) -> ItemRecord:
    """Make an item of any kind (Message, MeetingRequest, Item, …) into a record."""
    fields = _by_name(node)
    mime_node = fields.get("MimeContent")
    search_key = _extended(node, SEARCH_KEY)
    return ItemRecord(
        ref=_item_ref(node, fields),
        item_class=_text(fields, "ItemClass"),
        search_key=_hex(search_key),
        mime=mime_node.mime if mime_node is not None else None,
        mime_damaged=mime_node is not None and mime_node.mime_damaged,
        sensitivity=_text(fields, "Sensitivity"),
        importance=_text(fields, "Importance"),
        categories=tuple(child.text for child in fields["Categories"].children) if "Categories" in fields else (),
        has_attachments=_boolean(fields, "HasAttachments"),
        conversation_id=fields["ConversationId"].attributes.get("Id") if "ConversationId" in fields else None,
        conversation_topic=_text(fields, "ConversationTopic"),
        is_read=_boolean(fields, "IsRead"),
        has_size="Size" in fields,
        attachments=tuple(_attachment(child) for child in fields["Attachments"].children)
        if "Attachments" in fields
        else (),
    )


def folder_record(node: Node) -> FolderRecord:
    """Make a folder of any kind (Folder, CalendarFolder, SearchFolder, …) into a record."""
    fields = _by_name(node)
    return FolderRecord(
        id=_id(fields, "FolderId"),
        parent_id=_id(fields, "ParentFolderId"),
        name=_text(fields, "DisplayName") or "",
        element=_local(node.tag),
        folder_class=_text(fields, "FolderClass"),
        total=_integer(fields, "TotalCount") or 0,
        changed_at=_extended(node, LOCAL_COMMIT_TIME_MAX),
        deleted=_extended(node, DELETED_COUNT_TOTAL),
    )


def change_record(node: Node) -> ChangeRecord | None:
    """Make an entry of a change feed into a record; None when it names nothing."""
    kind = _local(node.tag)
    fields = _by_name(node)
    if _id(fields, "ItemId"):
        return ChangeRecord(kind, ref=ItemRef(_id(fields, "ItemId")))
    if _id(fields, "FolderId"):
        return ChangeRecord(kind, folder=FolderRecord(_id(fields, "FolderId"), "", "", "Folder"))
    for child in fields.values():
        below = _by_name(child)
        if _id(below, "ItemId"):
            return ChangeRecord(kind, ref=_item_ref(child, below))
        if _id(below, "FolderId"):
            return ChangeRecord(kind, folder=folder_record(child))
    return None


def is_mail_class(item_class: str | None) -> bool:
    """Tell whether items of a class are mail.

    Notes and their children, receipts and reports, meeting messages, posts (see MS-OXCMSG, MS-OXOCAL).
    """
    if not item_class:
        return True
    name = item_class.casefold()
    return (
        any(
            name == root or name.startswith(f"{root}.")
            for root in ("ipm.note", "ipm.schedule.meeting", "ipm.post", "report")
        )
        or name == "ipm"
    )


def stored_id(email_id: str | None, search_key: str | None) -> str | None:
    """Give the id under which an email is stored, None when neither its Message-ID nor its search key is known.

    The search key stands in for a Message-ID because it survives moves, and is shared by copies just as a Message-ID
    is.
    """
    if email_id:
        return email_id
    return f"<{search_key}@no-message-id.ews-sync>" if search_key else None


def parse_time(text: str | None) -> datetime | None:
    """Read an xs:dateTime into UTC; None when there is none or it makes no sense."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None


def parse_integer(text: str | None) -> int | None:
    """Read a whole number; None when there is none."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def parse_count(text: str | None) -> int | None:
    """Read a whole number; None when there is none, or one that no server counts up to."""
    number = parse_integer(text)
    return number if number is not None and abs(number) <= _LARGEST_COUNT else None


def _item_ref(node: Node, fields: dict[str, Node]) -> ItemRef:
    return ItemRef(
        id=_id(fields, "ItemId"),
        received=parse_time(_text(fields, "DateTimeReceived")),
        created=parse_time(_text(fields, "DateTimeCreated")),
        size=max(0, _integer(fields, "Size") or 0),
        is_mail=is_mail_class(_text(fields, "ItemClass")),
        is_draft=bool(_boolean(fields, "IsDraft")),
        email_id=stored_id(_text(fields, "InternetMessageId"), _hex(_extended(node, SEARCH_KEY))),
        sent=parse_time(_text(fields, "DateTimeSent")),
    )


def _by_name(node: Node) -> dict[str, Node]:
    """Index an element's children in the types namespace by their local name; the first of each name counts."""
    fields: dict[str, Node] = {}
    for child in node.children:
        if child.tag.startswith(_T):
            fields.setdefault(child.tag[len(_T) :], child)
    return fields


def _attachment(node: Node) -> Attachment:
    fields = _by_name(node)
    return Attachment(
        name=_text(fields, "Name") or "",
        size=max(0, _integer(fields, "Size") or 0),
        content_type=_text(fields, "ContentType"),
    )


def _extended(node: Node, tag: int) -> str | None:
    for child in node.children:
        if child.tag == f"{_T}ExtendedProperty":
            fields = _by_name(child)
            uri = fields.get("ExtendedFieldURI")
            if uri is not None and "Value" in fields and _same_tag(uri.attributes.get("PropertyTag", ""), tag):
                return fields["Value"].text
    return None


def _same_tag(text: str, tag: int) -> bool:
    """Compare a property tag as servers write it, `0x670a`, `0x670A` or in decimal, with a number."""
    try:
        return int(text, 0) == tag
    except ValueError:
        return False


def _hex(base64_text: str | None) -> str | None:
    try:
        return base64.b64decode(base64_text, validate=True).hex() or None if base64_text else None
    except (binascii.Error, ValueError):
        return None


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _id(fields: dict[str, Node], name: str) -> str:
    return fields[name].attributes.get("Id", "") if name in fields else ""


def _text(fields: dict[str, Node], name: str) -> str | None:
    return fields[name].text if name in fields else None


def _boolean(fields: dict[str, Node], name: str) -> bool | None:
    text = (_text(fields, name) or "").lower()
    return True if text in {"true", "1"} else False if text in {"false", "0"} else None


def _integer(fields: dict[str, Node], name: str) -> int | None:
    return parse_count(_text(fields, name))
