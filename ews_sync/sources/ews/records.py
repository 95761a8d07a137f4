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
from ews_sync.sources.ews.encoding import DELETED_COUNT_TOTAL, LOCAL_COMMIT_TIME_MAX, SEARCH_KEY
from ews_sync.sources.ews.operations import ChangeRecord, FolderRecord, ItemRecord
from ews_sync.sources.ews.wire import MENDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAIL_CLASSES = ("ipm.note", "ipm.schedule.meeting", "ipm.post", "report", "ipm")
_BELOW_MAIL_CLASSES = tuple(f"{name}." for name in _MAIL_CLASSES if name != "ipm")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_LARGEST_COUNT = 2**63 - 1
"""What is beyond would not fit where it is to be stored, or be more than a float can hold."""


class Node:
    """An element of the open record: just enough of a tree to look things up by name.

    `name` is the local name of an element in the types namespace, and `{namespace}name` of any other, with
    braces also where there is no namespace. `attributes` are
    to be read only; `children` are the elements in it, in their order.
    """

    __slots__ = ("_more", "_text", "attributes", "children", "name")

    def __init__(self, name: str, attributes: Mapping[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Node] = []
        # Hardly any text comes in more than one piece.
        self._text = ""
        self._more: list[str] | None = None

    def add(self, text: str) -> None:
        """Add to the element's own text."""
        if not self._text:
            self._text = text
        elif self._more is None:
            self._more = [text]
        else:
            self._more.append(text)

    @property
    def text(self) -> str:
        """The element's own text, without white space around it."""
        text = self._text if self._more is None else "".join((self._text, *self._more))
        return text.replace(MENDED, " ").strip()

    def walk(self) -> Iterator[Node]:
        """Yield the element and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def item_record(node: Node, mime: Mime | None = None, *, mime_damaged: bool = False) -> ItemRecord:
    """Make an item of any kind (Message, MeetingRequest, Item, …), and the message that came in it, into a record."""
    fields = _by_name(node)
    search_key = _hex(_extended(node, SEARCH_KEY))
    return ItemRecord(
        ref=_item_ref(fields, search_key),
        item_class=_text(fields, "ItemClass"),
        search_key=search_key,
        mime=mime,
        mime_damaged=mime_damaged,
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


def listed_record(node: Node) -> ItemRecord:
    """Make an item of a listing, of which nothing but its ref is wanted, into a record."""
    return ItemRecord(_item_ref(_by_name(node), _hex(_extended(node, SEARCH_KEY))))


def folder_record(node: Node) -> FolderRecord:
    """Make a folder of any kind (Folder, CalendarFolder, SearchFolder, …) into a record."""
    fields = _by_name(node)
    return FolderRecord(
        id=_id(fields, "FolderId"),
        parent_id=_id(fields, "ParentFolderId"),
        name=_text(fields, "DisplayName") or "",
        element=node.name,
        folder_class=_text(fields, "FolderClass"),
        total=_integer(fields, "TotalCount") or 0,
        changed_at=_extended(node, LOCAL_COMMIT_TIME_MAX),
        deleted=_extended(node, DELETED_COUNT_TOTAL),
    )


def change_record(node: Node) -> ChangeRecord | None:
    """Make an entry of a change feed into a record; None when it names nothing."""
    kind = node.name
    fields = _by_name(node)
    if _id(fields, "ItemId"):
        return ChangeRecord(kind, ref=ItemRef(_id(fields, "ItemId")))
    if _id(fields, "FolderId"):
        return ChangeRecord(kind, folder=FolderRecord(_id(fields, "FolderId"), "", "", "Folder"))
    for child in node.children:
        below = _by_name(child)
        if _id(below, "ItemId"):
            return ChangeRecord(kind, ref=_item_ref(below, _hex(_extended(child, SEARCH_KEY))))
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
    return name in _MAIL_CLASSES or name.startswith(_BELOW_MAIL_CLASSES)


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
        if moment.tzinfo is UTC:
            return moment
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


def boolean(text: str | None) -> bool | None:
    """Read an xs:boolean; None when there is none or it makes no sense."""
    return _BOOLEANS.get(text.lower()) if text else None


def _item_ref(fields: dict[str, Node], search_key: str | None) -> ItemRef:
    return ItemRef(
        id=_id(fields, "ItemId"),
        received=parse_time(_text(fields, "DateTimeReceived")),
        created=parse_time(_text(fields, "DateTimeCreated")),
        size=max(0, _integer(fields, "Size") or 0),
        is_mail=is_mail_class(_text(fields, "ItemClass")),
        is_draft=bool(_boolean(fields, "IsDraft")),
        email_id=stored_id(_text(fields, "InternetMessageId"), search_key),
        sent=parse_time(_text(fields, "DateTimeSent")),
    )


def _by_name(node: Node) -> dict[str, Node]:
    """Index an element's children by their names; the first of each name counts."""
    return {child.name: child for child in reversed(node.children)}


def _attachment(node: Node) -> Attachment:
    fields = _by_name(node)
    return Attachment(
        name=_text(fields, "Name") or "",
        size=max(0, _integer(fields, "Size") or 0),
        content_type=_text(fields, "ContentType"),
    )


def _extended(node: Node, tag: int) -> str | None:
    for child in node.children:
        if child.name == "ExtendedProperty":
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


def _id(fields: dict[str, Node], name: str) -> str:
    return fields[name].attributes.get("Id", "") if name in fields else ""


def _text(fields: dict[str, Node], name: str) -> str | None:
    node = fields.get(name)
    return node.text if node is not None else None


def _boolean(fields: dict[str, Node], name: str) -> bool | None:
    return boolean(_text(fields, name))


def _integer(fields: dict[str, Node], name: str) -> int | None:
    return parse_count(_text(fields, name))
