"""The properties of items that requests can name: where they stand in an answer, and what they are compared by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ews_sync.simulator import ids, parts
from ews_sync.simulator.item import Flag
from ews_sync.simulator.properties import conversation_id
from ews_sync.simulator.wire import boolean, markup_of, wire_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from ews_sync.simulator.item import Item
    from ews_sync.simulator.properties import Address
    from ews_sync.simulator.wire import XmlWriter

Value: TypeAlias = "str | int | bool | bytes | datetime | None"
Write: TypeAlias = "Callable[[XmlWriter, Item, bool], None]"

SUMMARY_LENGTH: Final = 255
"""FindItem and SyncFolderItems return only so many characters of a text."""

IN_UTF_8: Final = markup_of({"CharacterSet": "UTF-8"})
"""What Exchange says of each MimeContent, whatever the message is in."""

MESSAGE_KINDS: Final = frozenset(
    {"Message", "MeetingMessage", "MeetingRequest", "MeetingResponse", "MeetingCancellation", "SharingMessage"}
)
_BY_CLASS: Final = (
    ("IPM.NOTE", "Message"),
    ("REPORT.", "Message"),
    ("IPM.SCHEDULE.MEETING.REQUEST", "MeetingRequest"),
    ("IPM.SCHEDULE.MEETING.RESP", "MeetingResponse"),
    ("IPM.SCHEDULE.MEETING.CANCELED", "MeetingCancellation"),
    ("IPM.SCHEDULE.MEETING", "MeetingMessage"),
    ("IPM.SHARING", "SharingMessage"),
    ("IPM.POST", "PostItem"),
    ("IPM.APPOINTMENT", "CalendarItem"),
    ("IPM.CONTACT", "Contact"),
    ("IPM.DISTLIST", "DistributionList"),
    ("IPM.TASK", "Task"),
)


@dataclass(frozen=True, slots=True)
class ItemField:
    """A property: its URI, how it is written (the flag says: in full), and its value in restrictions, if any.

    `default` marks what BaseShape Default has. `get_only` marks what FindItem and SyncFolderItems cannot return.
    """

    uri: str
    write: Write
    value: Callable[[Item], Value] | None = None
    default: bool = False
    get_only: bool = False


def element_kind(item_class: str) -> str:
    """Return the element that stands for items of a class."""
    upper = item_class.upper()
    return next((kind for prefix, kind in _BY_CLASS if upper.startswith(prefix)), "Item")


def _leaf(name: str, value: Callable[[Item], Value]) -> Write:
    def write(out: XmlWriter, item: Item, full: bool) -> None:  # noqa: FBT001 - one of a family
        found = value(item)
        if found is None:
            return
        if isinstance(found, str):
            out.leaf(name, found if full else found[:SUMMARY_LENGTH])
        elif isinstance(found, bool):
            out.leaf(name, boolean(found))
        elif isinstance(found, int):
            out.leaf(name, str(found))
        elif not isinstance(found, bytes):
            out.leaf(name, wire_time(found))

    return write


def _plain(uri: str, value: Callable[[Item], Value], *, default: bool = False) -> ItemField:
    return ItemField(uri, _leaf(f"t:{uri.partition(':')[2]}", value), value, default)


def _write_mime(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    out.base64("t:MimeContent", item.mime, IN_UTF_8)


def _write_id(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    out.identity("t:ItemId", item.id, item.change_key)


def _write_parent(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    out.identity("t:ParentFolderId", item.folder.id, item.folder.change_key)


def _write_subject(out: XmlWriter, item: Item, full: bool) -> None:  # noqa: FBT001 - one of a family
    subject = item.properties.subject
    if subject is not None:
        out.subject("t:Subject", subject if full else subject[:SUMMARY_LENGTH])


def _write_body(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    kind, text = parts.body(item.mime())
    out.leaf("t:Body", text, BodyType=kind)


def _write_text_body(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    out.leaf("t:TextBody", parts.text_body(item.mime()), BodyType="Text")


def _write_attachments(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    found = item.attachments
    if not found:
        return
    out.start("t:Attachments")
    for position, attachment in enumerate(found):
        out.start("t:ItemAttachment" if attachment.is_message else "t:FileAttachment")
        out.leaf("t:AttachmentId", Id=ids.attachment_id(item.id, position))
        write_attachment(out, attachment, item)
        out.end()
    out.end()


def write_attachment(out: XmlWriter, attachment: parts.Attachment, item: Item) -> None:
    """Write what Exchange says of an attachment besides its id and content."""
    out.leaf("t:Name", attachment.name)
    out.leaf("t:ContentType", attachment.content_type)
    if attachment.content_id:
        out.leaf("t:ContentId", attachment.content_id)
    out.leaf("t:Size", str(attachment.size))
    out.leaf("t:LastModifiedTime", wire_time(item.modified))
    out.leaf("t:IsInline", boolean(attachment.is_inline))


def _write_categories(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    if item.categories:
        out.start("t:Categories")
        for category in item.categories:
            out.leaf("t:String", category)
        out.end()


def _write_headers(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    headers = parts.headers(item.mime())
    if headers:
        out.start("t:InternetMessageHeaders")
        for name, value in headers:
            out.leaf("t:InternetMessageHeader", value, HeaderName=name)
        out.end()


def _write_rights(out: XmlWriter, _item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    write_rights(out)


def write_rights(out: XmlWriter) -> None:
    """Write what the caller can do: with impersonation, everything."""
    out.start("t:EffectiveRights")
    for right in ("CreateAssociated", "CreateContents", "CreateHierarchy", "Delete", "Modify", "Read"):
        out.leaf(f"t:{right}", "true")
    out.leaf("t:ViewPrivateItems", "true")
    out.end()


def _write_conversation(out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    out.leaf("t:ConversationId", Id=conversation_id(item.folder.mailbox.space, item.properties.conversation_topic))


def _write_flag(out: XmlWriter, _item: Item, _full: bool) -> None:  # noqa: FBT001 - one of a family
    out.start("t:Flag")
    out.leaf("t:FlagStatus", "NotFlagged")
    out.end()


def _mailbox(out: XmlWriter, address: Address, *, full: bool) -> None:
    out.start("t:Mailbox")
    if address.name or address.email:
        out.leaf("t:Name", address.name or address.email)
    # A search returns a person's name only; the address takes a GetItem.
    if full and address.email:
        out.leaf("t:EmailAddress", address.email)
        out.leaf("t:RoutingType", "SMTP")
    out.end()


def _person(name: str, who: Callable[[Item], Address | None]) -> Write:
    def write(out: XmlWriter, item: Item, full: bool) -> None:  # noqa: FBT001 - one of a family
        address = who(item)
        if address is not None:
            out.start(name)
            _mailbox(out, address, full=full)
            out.end()

    return write


def _people(name: str, who: Callable[[Item], tuple[Address, ...]]) -> Write:
    def write(out: XmlWriter, item: Item, full: bool) -> None:  # noqa: FBT001 - one of a family
        addresses = who(item)
        if addresses:
            out.start(name)
            for address in addresses:
                _mailbox(out, address, full=full)
            out.end()

    return write


def _names(addresses: tuple[Address, ...]) -> str:
    return "; ".join(address.name or address.email for address in addresses)


def _name(address: Address | None) -> str | None:
    return None if address is None else address.name or address.email


def _owner(item: Item) -> str:
    return item.folder.mailbox.address


ITEM_FIELDS: Final = (
    ItemField("item:MimeContent", _write_mime, get_only=True),
    ItemField("item:ItemId", _write_id, lambda item: item.id, default=True),
    ItemField("item:ParentFolderId", _write_parent, lambda item: item.folder.id),
    _plain("item:ItemClass", lambda item: item.item_class),
    ItemField("item:Subject", _write_subject, lambda item: item.properties.subject, default=True),
    _plain("item:Sensitivity", lambda item: item.properties.sensitivity, default=True),
    ItemField("item:Body", _write_body, default=True, get_only=True),
    ItemField("item:Attachments", _write_attachments, default=True, get_only=True),
    _plain("item:DateTimeReceived", lambda item: item.received),
    _plain("item:Size", lambda item: item.properties.size, default=True),
    ItemField("item:Categories", _write_categories, lambda item: item.categories[0] if item.categories else None),
    _plain("item:Importance", lambda item: item.properties.importance),
    _plain("item:InReplyTo", lambda item: item.properties.in_reply_to),
    _plain("item:IsSubmitted", lambda item: bool(item.flags & Flag.SUBMITTED)),
    _plain("item:IsDraft", lambda item: item.is_draft),
    _plain("item:IsFromMe", lambda item: bool(item.flags & Flag.FROM_ME)),
    _plain("item:IsResend", lambda _item: False),
    _plain("item:IsUnmodified", lambda item: item.modified_at == item.created_at),
    ItemField("item:InternetMessageHeaders", _write_headers, get_only=True),
    _plain("item:DateTimeSent", lambda item: item.properties.sent, default=True),
    _plain("item:DateTimeCreated", lambda item: item.created, default=True),
    _plain("item:DisplayCc", lambda item: _names(item.properties.cc)),
    _plain("item:DisplayTo", lambda item: _names(item.properties.to)),
    _plain("item:HasAttachments", lambda item: item.properties.has_attachments, default=True),
    _plain("item:Culture", lambda _item: "en-US"),
    ItemField("item:EffectiveRights", _write_rights),
    _plain("item:LastModifiedName", _owner),
    _plain("item:LastModifiedTime", lambda item: item.modified),
    _plain("item:IsAssociated", lambda _item: False),
    ItemField("item:ConversationId", _write_conversation),
    ItemField("item:Flag", _write_flag),
    ItemField("item:TextBody", _write_text_body, get_only=True),
)
"""The properties of every item, in the order of the schema. Extended properties come after HasAttachments."""

MESSAGE_FIELDS: Final = (
    ItemField(
        "message:Sender", _person("t:Sender", lambda item: item.properties.sender), lambda i: _name(i.properties.sender)
    ),
    ItemField(
        "message:ToRecipients", _people("t:ToRecipients", lambda item: item.properties.to), default=True, get_only=True
    ),
    ItemField(
        "message:CcRecipients", _people("t:CcRecipients", lambda item: item.properties.cc), default=True, get_only=True
    ),
    ItemField("message:BccRecipients", _people("t:BccRecipients", lambda item: item.properties.bcc), get_only=True),
    _plain("message:IsReadReceiptRequested", lambda item: item.properties.read_receipt_requested, default=True),
    _plain("message:IsDeliveryReceiptRequested", lambda item: item.properties.delivery_receipt_requested, default=True),
    _plain("message:ConversationTopic", lambda item: item.properties.conversation_topic),
    ItemField(
        "message:From",
        _person("t:From", lambda item: item.properties.author),
        lambda item: _name(item.properties.author),
        default=True,
    ),
    _plain("message:InternetMessageId", lambda item: item.properties.message_id),
    _plain("message:IsRead", lambda item: item.is_read, default=True),
    _plain("message:References", lambda item: item.properties.references),
    ItemField("message:ReplyTo", _people("t:ReplyTo", lambda item: item.properties.reply_to), get_only=True),
)
"""The further properties of messages, in the order of the schema."""

_POST_ORDER: Final = ("ConversationTopic", "From", "InternetMessageId", "IsRead", "References", "Sender")
_MESSAGE_BY_NAME: Final = {field.uri.partition(":")[2]: field for field in MESSAGE_FIELDS}
POST_FIELDS: Final = tuple(_MESSAGE_BY_NAME[name] for name in _POST_ORDER)
"""The further properties of a post, in the order of the schema, which is another one."""

FIELDS_BY_URI: Final = {field.uri: field for field in ITEM_FIELDS + MESSAGE_FIELDS}
"""All properties by their URI."""


def fields_of(kind: str) -> tuple[ItemField, ...]:
    """Return the fields after those of every item that an element has."""
    if kind in MESSAGE_KINDS:
        return MESSAGE_FIELDS
    return POST_FIELDS if kind == "PostItem" else ()
