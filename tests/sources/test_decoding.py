from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import (
    Asks,
    ConnectionFailedError,
    CursorRejectedError,
    ProtocolError,
    SourceError,
    ThrottledError,
)
from ews_sync.model import Attachment
from tests.sources.support import (
    ERRORS,
    MESSAGES,
    SOAP,
    TYPES,
    cut,
    envelope,
    fault,
    got,
    item_xml,
    message,
    read,
    response,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDERS = response(
    "FindFolder",
    message(
        "FindFolder",
        '<m:RootFolder IndexedPagingOffset="2" TotalItemsInView="7" IncludesLastItemInRange="false"><t:Folders>'
        '<t:Folder><t:FolderId Id="f1" ChangeKey="k"/><t:ParentFolderId Id="top"/>'
        "<t:FolderClass>IPF.Note</t:FolderClass><t:DisplayName>In&#x0;box</t:DisplayName><t:TotalCount>3</t:TotalCount>"
        '<t:ExtendedProperty><t:ExtendedFieldURI PropertyTag="0x670a" PropertyType="SystemTime"/>'
        "<t:Value>2026-01-01T00:00:00Z</t:Value></t:ExtendedProperty>"
        '<t:ExtendedProperty><t:ExtendedFieldURI PropertyTag="26379" PropertyType="Integer"/>'
        "<t:Value>12</t:Value></t:ExtendedProperty></t:Folder>"
        '<t:CalendarFolder><t:FolderId Id="f2"/></t:CalendarFolder></t:Folders></m:RootFolder>',
    ),
)
ITEMS = response(
    "GetItem",
    got(
        "<t:MeetingRequest><t:MimeContent CharacterSet='UTF-8'>SGk=</t:MimeContent><t:ItemId Id='i1'/>"
        "<t:ItemClass>IPM.Schedule.Meeting.Request</t:ItemClass><t:Sensitivity>Private</t:Sensitivity>"
        "<t:DateTimeReceived>2026-01-02T03:04:05Z</t:DateTimeReceived><t:Size>77</t:Size>"
        "<t:Categories><t:String>red</t:String><t:String>a &lt; b</t:String></t:Categories>"
        "<t:Importance>High</t:Importance><t:DateTimeSent>2026-01-02T04:04:05.5+01:00</t:DateTimeSent>"
        "<t:IsDraft>false</t:IsDraft><t:HasAttachments>true</t:HasAttachments>"
        "<t:Attachments><t:FileAttachment><t:Name>a&#xB;b.pdf</t:Name><t:ContentType>application/pdf</t:ContentType>"
        "<t:Size>9</t:Size></t:FileAttachment><t:ItemAttachment><t:Name>m</t:Name></t:ItemAttachment></t:Attachments>"
        "<t:ConversationId Id='c1'/><t:ConversationTopic>t</t:ConversationTopic><t:IsRead>0</t:IsRead>"
        "<t:InternetMessageId>&lt;a@b&gt;</t:InternetMessageId>"
        "<t:ExtendedProperty><t:ExtendedFieldURI PropertyTag='0x300b' PropertyType='Binary'/><t:Value>AQI=</t:Value>"
        "</t:ExtendedProperty></t:MeetingRequest>"
    ),
    message("GetItem", code="ErrorItemNotFound", text="Gone."),
)
CHANGES = response(
    "SyncFolderItems",
    message(
        "SyncFolderItems",
        "<m:SyncState>H4s=</m:SyncState><m:IncludesLastItemInRange>true</m:IncludesLastItemInRange><m:Changes>"
        "<t:Create><t:Message><t:ItemId Id='n'/><t:Size>5</t:Size></t:Message></t:Create>"
        "<t:Update><t:Item><t:ItemId Id='u'/><t:ItemClass>IPM.Note</t:ItemClass></t:Item></t:Update>"
        "<t:Delete><t:ItemId Id='d'/></t:Delete>"
        "<t:ReadFlagChange><t:ItemId Id='r'/><t:IsRead>true</t:IsRead></t:ReadFlagChange>"
        "<t:Create><t:Message><t:Size>5</t:Size></t:Message></t:Create></m:Changes>",
    ),
)
HIERARCHY = response(
    "SyncFolderHierarchy",
    message(
        "SyncFolderHierarchy",
        "<m:SyncState>S</m:SyncState><m:IncludesLastFolderInRange>false</m:IncludesLastFolderInRange><m:Changes>"
        "<t:Create><t:Folder><t:FolderId Id='f1'/><t:DisplayName>Inbox</t:DisplayName></t:Folder></t:Create>"
        "<t:Delete><t:FolderId Id='f9'/></t:Delete></m:Changes>",
    ),
)


def default_namespaces(data: bytes) -> bytes:
    """The same answer as a server writes it that declares each namespace where it is needed."""
    text = data.decode().replace("<s:", "<").replace("</s:", "</").replace("xmlns:s=", "xmlns=")
    for prefix, namespace in (("m", MESSAGES), ("t", TYPES)):
        text = text.replace(f' xmlns:{prefix}="{namespace}"', "").replace(f"</{prefix}:", "</")
        parts = text.split(f"<{prefix}:")
        for index, part in enumerate(parts[1:], 1):
            end = min(part.find(mark) for mark in (" ", ">", "/") if mark in part)
            parts[index] = f'{part[:end]} xmlns="{namespace}"{part[end:]}'
        text = "<".join(parts)
    return text.encode()


def other_prefixes(data: bytes) -> bytes:
    text = data.decode()
    for old, new in (("s", "SOAP-ENV"), ("m", "ns2"), ("t", "ns3")):
        for mark in ("<", "</", "xmlns:"):
            end = "=" if mark == "xmlns:" else ":"
            text = text.replace(f"{mark}{old}{end}", f"{mark}{new}{end}")
    return text.encode()


def spaced(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data.replace(b"><", b">\r\n<!-- proxy --><?proxy x?>\n<").replace(
        b"?>\r\n<!--", b"?><!--", 1
    )


DIALECTS: list[Callable[[bytes], bytes]] = [bytes, default_namespaces, other_prefixes, spaced]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_folders_in_every_dialect(dialect: Callable[[bytes], bytes]) -> None:
    (answer,) = read(dialect(FOLDERS)).messages
    assert (answer.last, answer.total) == (False, 7)
    first, second = answer.folders
    assert (first.id, first.parent_id, first.name, first.total) == ("f1", "top", "In\ufffdbox", 3)
    assert (first.element, first.folder_class) == ("Folder", "IPF.Note")
    assert (first.changed_at, first.deleted) == ("2026-01-01T00:00:00Z", "12")
    assert (second.element, second.folder_class, second.changed_at) == ("CalendarFolder", None, None)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_items_in_every_dialect(dialect: Callable[[bytes], bytes]) -> None:
    first, second = read(dialect(ITEMS)).messages
    (item,) = first.items
    assert item.mime is not None
    assert b"".join(item.mime.chunks()) == b"Hi"
    assert (item.ref.id, item.ref.size, item.ref.email_id) == ("i1", 77, "<a@b>")
    assert item.ref.received == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert item.ref.sent == datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
    assert item.ref.is_mail
    assert not item.ref.is_draft
    assert (item.sensitivity, item.importance, item.categories) == ("Private", "High", ("red", "a < b"))
    assert (item.has_attachments, item.is_read) == (True, False)
    assert (item.conversation_id, item.conversation_topic, item.search_key) == ("c1", "t", "0102")
    assert item.attachments == (Attachment("a\ufffdb.pdf", 9, "application/pdf"), Attachment("m", 0))
    assert (second.code, second.text, second.items) == ("ErrorItemNotFound", "Gone.", [])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_changes_in_every_dialect(dialect: Callable[[bytes], bytes]) -> None:
    (answer,) = read(dialect(CHANGES)).messages
    assert (answer.sync_state, answer.last) == ("H4s=", True)
    assert [(change.kind, change.ref and change.ref.id) for change in answer.changes] == [
        ("Create", "n"),
        ("Update", "u"),
        ("Delete", "d"),
        ("ReadFlagChange", "r"),
    ]
    (answer,) = read(dialect(HIERARCHY)).messages
    assert (answer.sync_state, answer.last) == ("S", False)
    assert [(change.kind, change.folder and change.folder.id) for change in answer.changes] == [
        ("Create", "f1"),
        ("Delete", "f9"),
    ]


@pytest.mark.parametrize("data", [FOLDERS, ITEMS, CHANGES, HIERARCHY])
def test_every_single_cut_gives_the_same(data: bytes) -> None:
    whole = repr(read(data))
    for at in range(len(data)):
        assert repr(read([data[:at], data[at:]])) == whole
    assert repr(read(cut(data, 1))) == whole


def test_what_is_of_another_namespace_is_passed_by() -> None:
    foreign = 'xmlns:x="urn:other"'
    data = response(
        "GetItem",
        got(
            f'<x:Message {foreign}><t:ItemId Id="no"/><t:MimeContent>SGk=</t:MimeContent></x:Message>'
            f'<t:Message {foreign}><x:MimeContent>SGk=</x:MimeContent><x:ItemId Id="no"/><x:Size>9</x:Size>'
            '<t:ItemId Id="yes"/></t:Message>',
            extra=f"<x:ResponseCode {foreign}>ErrorServerBusy</x:ResponseCode>",
        ),
        f'<x:GetItemResponseMessage {foreign} ResponseClass="Error"/>',
    )
    (answer,) = read(data).messages
    assert answer.code == "NoError"
    assert [(item.ref.id, item.mime, item.ref.size) for item in answer.items] == [("yes", None, 0)]


def test_what_is_deep_in_the_header_is_no_response() -> None:
    assert read(envelope("", f'<a xmlns="{MESSAGES}"><b><c/><c><d/></c></b></a>')).messages == ()


def test_cdata_and_comments_inside_text() -> None:
    data = response("GetItem", got(item_xml(ConversationTopic="a<!-- x -->b<![CDATA[<&>]]>c")))
    assert read(data).messages[0].items[0].conversation_topic == "ab<&>c"


def test_the_servers_version() -> None:
    header = f'<h:ServerVersionInfo xmlns:h="{TYPES}" MajorVersion="15" MinorVersion="1" MajorBuildNumber="2507"/>'
    assert read(envelope("", header)).server_version == "15.1.2507.?"


def test_an_error_without_a_code_is_still_an_error() -> None:
    data = response("GetItem", '<m:GetItemResponseMessage ResponseClass="Error"/>')
    assert read(data).messages[0].code == "NoResponseCode"


def test_a_page_that_does_not_say_whether_it_is_the_last() -> None:
    data = response("FindItem", message("FindItem", "<m:RootFolder><t:Items/></m:RootFolder>"))
    assert read(data).messages[0].last is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05.1234567Z", datetime(2026, 1, 2, 3, 4, 5, 123_456, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31T23:59:59-05:00", None),
        ("2026-02-30T00:00:00Z", None),
        ("soon", None),
    ],
)
def test_times_that_make_sense_and_that_do_not(text: str, moment: datetime | None) -> None:
    data = response("GetItem", got(item_xml(DateTimeReceived=text)))
    assert read(data).messages[0].items[0].ref.received == moment


@pytest.mark.parametrize("size", ["-5", "", "many", "9" * 5000, "1.5"])
def test_a_size_that_makes_no_sense_is_unknown(size: str) -> None:
    assert read(response("GetItem", got(item_xml(Size=size)))).messages[0].items[0].ref.size == 0


@pytest.mark.parametrize(
    ("item_class", "is_mail"),
    [
        ("IPM.Note", True),
        ("ipm.note.SMIME.MultipartSigned", True),
        ("IPM.Notebook", False),
        ("REPORT.IPM.Note.NDR", True),
        ("IPM.Schedule.Meeting.Resp.Pos", True),
        ("IPM.Post", True),
        ("IPM.Contact", False),
        ("IPM.Appointment", False),
        ("", True),
    ],
)
def test_which_classes_are_mail(item_class: str, is_mail: bool) -> None:  # noqa: FBT001 - a table
    data = response("GetItem", got(item_xml(ItemClass=item_class)))
    assert read(data).messages[0].items[0].ref.is_mail is is_mail


def test_a_search_key_stands_in_for_a_message_id() -> None:
    key = base64.b64encode(bytes(range(16))).decode()
    extended = (
        '<t:ExtendedProperty><t:ExtendedFieldURI PropertyTag="0x300B" PropertyType="Binary"/>'
        f"<t:Value>{key}</t:Value></t:ExtendedProperty></t:Message>"
    )
    xml = item_xml(InternetMessageId="").replace("</t:Message>", extended)
    item = read(response("GetItem", got(xml))).messages[0].items[0]
    assert item.ref.email_id == "<000102030405060708090a0b0c0d0e0f@no-message-id.ews-sync>"


# --- SOAP faults -----------------------------------------------------------------------------------------------------


def test_microsofts_fault_with_its_back_off() -> None:
    with pytest.raises(ThrottledError, match=r"reading: the server answered ErrorServerBusy: Busy\.") as caught:
        read(fault("ErrorServerBusy", backoff="297749"))
    assert caught.value.retry_after == 297.749
    assert caught.value.code == "ErrorServerBusy"


@pytest.mark.parametrize(
    ("backoff", "seconds"), [("0", 0.0), ("-7", 0.0), ("soon", None), ("9" * 4000, 86_400.0), ("9" * 5000, None)]
)
def test_back_offs_that_make_no_sense(backoff: str, seconds: float | None) -> None:
    with pytest.raises(ThrottledError) as caught:
        read(fault("ErrorServerBusy", backoff=backoff))
    assert caught.value.retry_after == seconds


OTHER_LAYOUTS = {
    "only a faultcode": ("<s:Fault><faultcode>x:ErrorSchemaValidation</faultcode></s:Fault>", "ErrorSchemaValidation"),
    "messages namespace": (
        (
            "<s:Fault><faultcode>s:Client</faultcode><detail><m:ResponseCode>ErrorInvalidRequest</m:ResponseCode></detail>"
            "</s:Fault>"
        ),
        "ErrorInvalidRequest",
    ),
    "nothing that EWS knows": (
        "<s:Fault><faultcode>s:Server</faultcode><faultstring>java.lang.NullPointerException</faultstring></s:Fault>",
        "SoapFault",
    ),
    "a code from the future": (
        f"<s:Fault><detail><e:ResponseCode xmlns:e='{ERRORS}'>ErrorOfTheYear2031</e:ResponseCode></detail></s:Fault>",
        "ErrorOfTheYear2031",
    ),
    "empty": ("<s:Fault/>", "SoapFault"),
}


@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
def test_faults_as_other_servers_lay_them_out(layout: str) -> None:
    body, code = OTHER_LAYOUTS[layout]
    with pytest.raises(SourceError) as caught:
        read(envelope(body))
    assert caught.value.code == code


def test_a_code_that_nobody_knows_asks_for_a_retry_and_keeps_its_name() -> None:
    with pytest.raises(SourceError) as caught:
        read(fault("ErrorOfTheYear2031", text="New\n  and   strange"))
    assert (caught.value.code, caught.value.asks) == ("ErrorOfTheYear2031", Asks.RETRY)
    assert str(caught.value) == "reading: the server answered ErrorOfTheYear2031: New and strange"


def test_a_lost_position_asks_for_another() -> None:
    with pytest.raises(CursorRejectedError):
        read(fault("ErrorInvalidSyncStateData"))


# --- What is no answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", ConnectionFailedError, "was empty"),
        (b"<html><body><p>Sign in<br></body></html>", ProtocolError, "is no SOAP envelope but <html>"),
        (b"<!DOCTYPE html><html></html>", ProtocolError, "document type"),
        (b"Service Unavailable", ProtocolError, "not well-formed"),
        (b'{"error": "busy"}', ProtocolError, "not well-formed"),
        (f'<s:Envelope xmlns:s="{SOAP}"></s:Envelope>'.encode(), ProtocolError, "no SOAP body"),
        (b'<Envelope xmlns="http://www.w3.org/2003/05/soap-envelope"/>', ProtocolError, "no SOAP envelope"),
        (ITEMS + b"<more/>", ProtocolError, "not well-formed"),
        (ITEMS.replace(b"</m:Items>", b"</m:Folders>"), ProtocolError, "not well-formed"),
    ],
)
def test_what_is_no_answer(data: bytes, error: type[SourceError], text: str) -> None:
    for size in (1, 7, len(data) or 1):
        with pytest.raises(error, match=text):
            read(cut(data, size))


@pytest.mark.parametrize("data", [FOLDERS, ITEMS, CHANGES, fault("ErrorServerBusy", backoff="5")])
def test_an_answer_that_is_cut_short_anywhere_is_never_taken_for_whole(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(ConnectionFailedError, match=r"cut short|was empty"):
            read(data[:end])


def test_errors_do_not_show_what_was_in_the_mail() -> None:
    secret = item_xml(ConversationTopic="the merger")
    for data in (response("GetItem", got(secret + "<broken")), response("GetItem", got(secret))[:-30]):
        with pytest.raises(SourceError) as caught:
            read(data)
        assert "merger" not in str(caught.value)
