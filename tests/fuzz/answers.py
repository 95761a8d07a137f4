"""EWS answers that are nearly right: built by a grammar with mistakes in it, or real ones with damage done to them.

The reading of one is `outcome`: whatever it gives back is allowed, whatever else it raises is a bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.errors import SourceError
from ews_sync.sources.ews.spool import SpoolWriter
from tests.sources.support import ERRORS, MESSAGES, SOAP, TYPES, cut, envelope, fault, got, item_xml, read, response
from tests.sources.test_decoding import CHANGES, FOLDERS, HIERARCHY, ITEMS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from ews_sync.model import Mime

# --- Real answers, and what is done to them --------------------------------------------------------------------------

RICH = item_xml(
    "i1",
    b"Subject: caf\xc3\xa9\r\n\r\nbody\r\n" * 3,
    Categories="<t:String>Red</t:String><t:String>&amp;</t:String>",
    Attachments="<t:FileAttachment><t:Name>a.pdf</t:Name><t:Size>12</t:Size></t:FileAttachment>",
    ConversationTopic="<![CDATA[<caf\u00e9>]]>",
    IsRead="false",
)
REAL = (
    *(FOLDERS, ITEMS, CHANGES, HIERARCHY),
    response("GetItem", got(RICH), got("", "ErrorItemNotFound", "Gone."), got(item_xml("i3", b"x" * 300))),
    fault("ErrorServerBusy", backoff="1000"),
    envelope(""),
)
"""Answers of every kind, and what comes in an answer's place."""

TOKENS = (
    *(b"\xff", b"\xfe\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf"),
    *(text.encode("utf-8", "surrogatepass") for text in (
        "<t:Message>", "</t:Message>", "<t:MimeContent>", "</t:MimeContent>", "<m:Items>", "</m:Items>", "<t:Items>",
        "<m:RootFolder>", "</m:RootFolder>", "<t:ItemId Id='x'/>", "<t:FolderId/>", "<m:Changes>", "</m:Changes>",
        "<t:Create>", "</t:Create>", "<s:Fault>", "</s:Fault>", "<s:Body>", "</s:Body>", "</s:Envelope>", "<t:x/>",
        "<m:GetItemResponseMessage ResponseClass='Error'>", "</m:GetItemResponseMessage>", "<m:SyncState/>",
        "<m:ResponseCode>ErrorServerBusy</m:ResponseCode>", "<t:Size>99999999999999999999999999</t:Size>",
        "<t:Size>-1</t:Size>", "<t:DateTimeReceived>0001-01-01T00:00:00+14:00</t:DateTimeReceived>",
        "<t:DateTimeSent>9999-12-31T23:59:59-14:00</t:DateTimeSent>", "<t:Categories/>", "<t:Attachments><t:y/>",
        "<t:ExtendedProperty><t:ExtendedFieldURI PropertyTag='0x300B'/><t:Value>=</t:Value></t:ExtendedProperty>",
        "<q:a/>", "<q:a xmlns:q=''/>", "<a xmlns='http://[bad'/>", " xmlns:t='u'", " Id='1' Id='2'", " Name='\x9b'",
        "&#0;", "&#x0;", "&#xD800;", "&#x110000;", "&#99999999999999999999;", "&#x41;", "&#", "&", "&amp;", "&lt;",
        "&nbsp;", "&a;", "<", ">", "<!--", "-->", "<!-- -- -->", "<![CDATA[", "]]>", "<?x?>", "<?xml version='1.1'?>",
        "<!DOCTYPE a>", "<!DOCTYPE a [<!ENTITY b 'c'>]>", "<xi:include href='/etc/passwd'/>", "SGk=", "SG", "=", "\n",
        "\0", "\x0b", "\x7f", "\x85", "\ufeff", "\ufffe", "\ud800", "\u00e9", "\U0001f525", '"', "'", "/", ":",
    )),
)  # fmt: skip


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes] = REAL) -> bytes:
    """Do some damage: bytes flipped, parts taken out, doubled, moved, put in from elsewhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 1, 2, 5, 20, 100, 1000)))
        part = data[start:end]
        other = rng.choice(others)
        begin = rng.randint(0, len(other))
        place = rng.randint(0, len(data))
        match rng.randrange(7):
            case 0:
                part = bytes(byte ^ (1 << rng.randrange(8)) for byte in part)
            case 1:
                part = b""
            case 2:
                part *= rng.choice((2, 3, 50))
            case 3:
                part = rng.choice(TOKENS)
            case 4:
                part = rng.choice(TOKENS) + part + rng.choice(TOKENS)
            case 5:
                part = other[begin : begin + rng.choice((10, 100, 1000))]
            case _:
                data = data[:place] + part + data[place:]
                part = data[start:end]
        data = data[:start] + part + data[end:]
    return data


# --- Answers by a grammar --------------------------------------------------------------------------------------------

BELOW: dict[str, tuple[str, ...]] = {
    "s:Envelope": ("s:Header", "s:Body", "s:Body"),
    "s:Header": ("t:ServerVersionInfo",),
    "s:Body": ("m:R", "m:R", "s:Fault"),
    "s:Fault": ("faultcode", "faultstring", "detail"),
    "detail": ("e:ResponseCode", "e:Message", "t:MessageXml"),
    "t:MessageXml": ("t:Value",),
    "m:MessageXml": ("t:Value",),
    "m:R": ("m:ResponseMessages",),
    "m:ResponseMessages": ("m:GetItemResponseMessage", "m:SyncFolderItemsResponseMessage"),
    "m:GetItemResponseMessage": ("m:ResponseCode", "m:MessageText", "m:MessageXml", "m:Items", "m:Folders"),
    "m:SyncFolderItemsResponseMessage": (
        "m:ResponseCode", "m:SyncState", "m:IncludesLastItemInRange", "m:Changes", "m:RootFolder",
    ),
    "m:RootFolder": ("t:Items", "t:Folders"),
    "m:Items": ("t:Message", "t:MeetingRequest"),
    "t:Items": ("t:Message", "t:Item"),
    "m:Folders": ("t:Folder",),
    "t:Folders": ("t:Folder", "t:CalendarFolder"),
    "m:Changes": ("t:Create", "t:Update", "t:Delete", "t:ReadFlagChange"),
    "t:Create": ("t:Message", "t:Folder", "t:ItemId"),
    "t:Delete": ("t:ItemId", "t:FolderId"),
    "t:Message": (
        "t:MimeContent", "t:ItemId", "t:Size", "t:DateTimeReceived", "t:InternetMessageId", "t:Categories",
        "t:Attachments", "t:ConversationId", "t:ExtendedProperty", "t:IsDraft", "t:ItemClass",
    ),
    "t:Folder": ("t:FolderId", "t:ParentFolderId", "t:DisplayName", "t:TotalCount", "t:ExtendedProperty"),
    "t:Categories": ("t:String",),
    "t:Attachments": ("t:FileAttachment",),
    "t:FileAttachment": ("t:Name", "t:Size", "t:ContentType"),
    "t:ExtendedProperty": ("t:ExtendedFieldURI", "t:Value"),
}  # fmt: skip
ALL = sorted({name for below in BELOW.values() for name in below} | {"x:Foreign", "t:Body", "m:Nothing"})
TEXTS = (
    "", " ", "x", "true", "0", "12", "-1", "9" * 30, "9" * 5000, "1e9", "NaN", "2026-01-02T03:04:05Z", "SGk=",
     "SGk", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "NoError", "ErrorServerBusy", "Error" * 100, "a&amp;b",
     "&#x1F525;", "<![CDATA[<t:Message>]]>", "<!-- c -->", "<?p i?>", "&#x0;", "&#xFFFF;", "\0", "\x9b31m", "\u2028",
     "\ufffe", "\u00e9", "0x300B", "0x670A", "4294967295", "IPM.Note", "BackOffMilliseconds", "&undeclared;", "a\n\nb",
)  # fmt: skip
ATTRIBUTES = (
    "Id", "ChangeKey", "ResponseClass", "Name", "PropertyTag", "IncludesLastItemInRange", "TotalItemsInView",
    "xml:lang", "xml:base", "t:Id",
)  # fmt: skip


def element(rng: random.Random, tag: str, depth: int = 0) -> str:
    """An element with what belongs in it, mostly; sometimes with what does not, twice, or in another order.

    It is well-formed, as long as nobody minds an entity that is not declared.
    """
    inside = [rng.choice(TEXTS)] if rng.randrange(4) == 0 or tag not in BELOW else []
    if depth < 12:
        for _ in range(rng.randrange(5) if tag in BELOW else rng.choice((0, 0, 0, 1))):
            below = BELOW.get(tag) if rng.randrange(10) else None
            inside.append(element(rng, rng.choice(below or ALL), depth + 1))
    attributes = [
        f' {name}="{"" if "<" in text else text}"'
        for name in rng.sample(ATTRIBUTES, rng.choice((0, 0, 1, 2)))
        for text in (rng.choice(TEXTS),)
    ]
    return f"<{tag}{''.join(attributes)}>{''.join(inside)}</{tag}>"


DECLARED = f'xmlns:s="{SOAP}" xmlns:m="{MESSAGES}" xmlns:t="{TYPES}" xmlns:e="{ERRORS}" xmlns:x="urn:x"'
PROLOGS = (
    "", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-8"?>', '<?xml version="1.0" encoding="utf-16"?>',
    '<?xml version="1.1" encoding="iso-8859-1" standalone="no"?>', "\ufeff", "<!-- p --><?p x?>\n", " ",
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1", "utf-7")


def whole_answer(rng: random.Random) -> bytes:
    """A document by the grammar, in one of the encodings that it may or may not say it is in."""
    root = element(rng, rng.choice(("s:Envelope",) * 9 + ("m:R",)))
    name = root[1:].partition(" ")[0].partition(">")[0]
    text = rng.choice(PROLOGS) + root.replace(f"<{name}", f"<{name} {DECLARED}", 1)
    return text.encode(rng.choice(ENCODINGS), "replace")


# --- Reading ---------------------------------------------------------------------------------------------------------


class Kept(SpoolWriter):
    """A writer that knows whether somebody still has to give its room back."""

    def __init__(self, made: list[Kept]) -> None:
        super().__init__(in_memory=4)
        self.given: Mime | None = None
        made.append(self)

    def finish(self) -> Mime:
        self.given = super().finish()
        return self.given

    @property
    def is_open(self) -> bool:
        return self._file is not None and not self._file.closed


def outcome(pieces: Sequence[bytes]) -> str:
    """Read an answer; give what comes of it. No file stays open behind it.

    Anything but an answer or a `SourceError` is a bug, and raised.
    """
    made: list[Kept] = []
    try:
        answer = read(pieces, lambda: Kept(made))
    except SourceError as error:
        assert not any(writer.is_open for writer in made), "a message of a refused answer keeps its room"
        assert len(str(error)) < 2000, "an error is one line"  # noqa: PT017 - any of them is fine, as far as it goes
        # Where in a piece the parser stumbles is not the same for all cuts.
        return error.code or "no answer"
    given = {id(item.mime): item.mime for said in answer.messages for item in said.items if item.mime is not None}
    assert all(not writer.is_open or id(writer.given) in given for writer in made)
    shown = [
        (said.code, said.sync_state, said.folders, said.changes,
         [(item.ref, item.mime_damaged, item.mime and b"".join(item.mime.chunks())) for item in said.items])
        for said in answer.messages
    ]  # fmt: skip
    for mime in given.values():
        mime.close()
    assert not any(writer.is_open for writer in made)
    return repr(shown)


def in_pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut anywhere."""
    if rng.randrange(3) == 0:
        return cut(data, rng.choice((1, 2, 3, 7)))
    places = sorted(rng.randint(0, len(data)) for _ in range(rng.randrange(8)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
