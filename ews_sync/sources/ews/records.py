"""Records of an answer (items, folders, changes) from the elements that the parser makes. Pure.

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
    from collections.abc import Container, Mapping

    from lxml import etree

    Element = etree._Element  # noqa: SLF001 - lxml's own name for the type

TYPES = f"{{{TYPES_NS}}}"
"""What the names of all elements in records begin with."""

_ITEM_ID = f"{TYPES}ItemId"
_FOLDER_ID = f"{TYPES}FolderId"
_PARENT_FOLDER_ID = f"{TYPES}ParentFolderId"
_DISPLAY_NAME = f"{TYPES}DisplayName"
_FOLDER_CLASS = f"{TYPES}FolderClass"
_TOTAL_COUNT = f"{TYPES}TotalCount"
_ITEM_CLASS = f"{TYPES}ItemClass"
_RECEIVED = f"{TYPES}DateTimeReceived"
_CREATED = f"{TYPES}DateTimeCreated"
_SENT = f"{TYPES}DateTimeSent"
_SIZE = f"{TYPES}Size"
_IS_DRAFT = f"{TYPES}IsDraft"
_IS_READ = f"{TYPES}IsRead"
_MESSAGE_ID = f"{TYPES}InternetMessageId"
_SENSITIVITY = f"{TYPES}Sensitivity"
_IMPORTANCE = f"{TYPES}Importance"
_CATEGORIES = f"{TYPES}Categories"
_CONVERSATION_ID = f"{TYPES}ConversationId"
_CONVERSATION_TOPIC = f"{TYPES}ConversationTopic"
_HAS_ATTACHMENTS = f"{TYPES}HasAttachments"
_ATTACHMENTS = f"{TYPES}Attachments"
_NAME = f"{TYPES}Name"
_CONTENT_TYPE = f"{TYPES}ContentType"
_EXTENDED_PROPERTY = f"{TYPES}ExtendedProperty"
_EXTENDED_FIELD_URI = f"{TYPES}ExtendedFieldURI"
_VALUE = f"{TYPES}Value"

_MAIL_CLASSES = ("ipm.note", "ipm.schedule.meeting", "ipm.post", "report", "ipm")
_BELOW_MAIL_CLASSES = tuple(f"{name}." for name in _MAIL_CLASSES if name != "ipm")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_LARGEST_COUNT = 2**63 - 1
"""What is beyond would not fit where it is to be stored, or be more than a float can hold."""


def item_record(element: Element, mime: Mime | None = None, *, mime_damaged: bool = False) -> ItemRecord:
    """Make an item of any kind (Message, MeetingRequest, Item, …), and the message that came in it, into a record."""
    fields = _by_name(element)
    search_key = _search_key(element, fields)
    return ItemRecord(
        ref=_item_ref(fields, search_key),
        item_class=_text(fields, _ITEM_CLASS),
        search_key=search_key,
        mime=mime,
        mime_damaged=mime_damaged,
        sensitivity=_text(fields, _SENSITIVITY),
        importance=_text(fields, _IMPORTANCE),
        categories=tuple(own_text(child) for child in fields[_CATEGORIES]) if _CATEGORIES in fields else (),
        has_attachments=_boolean(fields, _HAS_ATTACHMENTS),
        conversation_id=fields[_CONVERSATION_ID].get("Id") if _CONVERSATION_ID in fields else None,
        conversation_topic=_text(fields, _CONVERSATION_TOPIC),
        is_read=_boolean(fields, _IS_READ),
        has_size=_SIZE in fields,
        attachments=tuple(map(_attachment, fields[_ATTACHMENTS])) if _ATTACHMENTS in fields else (),
    )


def listed_record(element: Element) -> ItemRecord:
    """Make an item of a listing, of which nothing but its ref is wanted, into a record."""
    fields = _by_name(element)
    return ItemRecord(_item_ref(fields, _search_key(element, fields)))


def folder_record(element: Element) -> FolderRecord:
    """Make a folder of any kind (Folder, CalendarFolder, SearchFolder, …) into a record."""
    fields = _by_name(element)
    return FolderRecord(
        id=_id(fields, _FOLDER_ID),
        parent_id=_id(fields, _PARENT_FOLDER_ID),
        name=_text(fields, _DISPLAY_NAME) or "",
        element=_kind(element),
        folder_class=_text(fields, _FOLDER_CLASS),
        total=_integer(fields, _TOTAL_COUNT) or 0,
        changed_at=_extended(element, LOCAL_COMMIT_TIME_MAX),
        deleted=_extended(element, DELETED_COUNT_TOTAL),
    )


def change_record(element: Element) -> ChangeRecord | None:
    """Make an entry of a change feed into a record; None when it names nothing."""
    kind = _kind(element)
    fields = _by_name(element)
    if item_id := _id(fields, _ITEM_ID):
        return ChangeRecord(kind, ref=ItemRef(item_id))
    if folder_id := _id(fields, _FOLDER_ID):
        return ChangeRecord(kind, folder=FolderRecord(folder_id, "", "", "Folder"))
    for child in element:
        below = _by_name(child)
        if _id(below, _ITEM_ID):
            return ChangeRecord(kind, ref=_item_ref(below, _search_key(child, below)))
        if _id(below, _FOLDER_ID):
            return ChangeRecord(kind, folder=folder_record(child))
    return None


def own_text(element: Element) -> str:
    """Give what stands in an element, without white space around it."""
    text = element.text
    return text.replace(MENDED, " ").strip() if text else ""


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


def _item_ref(fields: Mapping[str, Element], search_key: str | None) -> ItemRef:
    return ItemRef(
        id=_id(fields, _ITEM_ID),
        received=parse_time(_text(fields, _RECEIVED)),
        created=parse_time(_text(fields, _CREATED)),
        size=max(0, _integer(fields, _SIZE) or 0),
        is_mail=is_mail_class(_text(fields, _ITEM_CLASS)),
        is_draft=bool(_boolean(fields, _IS_DRAFT)),
        email_id=stored_id(_text(fields, _MESSAGE_ID), search_key),
        sent=parse_time(_text(fields, _SENT)),
    )


def _by_name(element: Element) -> dict[str, Element]:
    """Index an element's children by their names; the first of each name counts."""
    # Only comments and instructions have no text for a name, and the parser leaves them out.
    return {child.tag: child for child in reversed(element)}  # type: ignore[misc]


def _kind(element: Element) -> str:
    return str(element.tag).removeprefix(TYPES)


def _attachment(element: Element) -> Attachment:
    fields = _by_name(element)
    return Attachment(
        name=_text(fields, _NAME) or "",
        size=max(0, _integer(fields, _SIZE) or 0),
        content_type=_text(fields, _CONTENT_TYPE),
    )


def _search_key(element: Element, fields: Container[str]) -> str | None:
    return _hex(_extended(element, SEARCH_KEY)) if _EXTENDED_PROPERTY in fields else None


def _extended(element: Element, tag: int) -> str | None:
    for child in element.iterchildren(_EXTENDED_PROPERTY):
        fields = _by_name(child)
        uri = fields.get(_EXTENDED_FIELD_URI)
        if uri is not None and _VALUE in fields and _same_tag(uri.get("PropertyTag", ""), tag):
            return own_text(fields[_VALUE])
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


def _id(fields: Mapping[str, Element], name: str) -> str:
    return fields[name].get("Id", "") if name in fields else ""


def _text(fields: Mapping[str, Element], name: str) -> str | None:
    element = fields.get(name)
    return None if element is None else own_text(element)


def _boolean(fields: Mapping[str, Element], name: str) -> bool | None:
    return boolean(_text(fields, name))


def _integer(fields: Mapping[str, Element], name: str) -> int | None:
    return parse_count(_text(fields, name))
