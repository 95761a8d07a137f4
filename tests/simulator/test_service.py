from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from ews_sync.simulator.access import Account
from ews_sync.simulator.faults import (
    FaultPlan,
    IllegalCharacters,
    ItemError,
    Prefixes,
    ResponseError,
    ShortPage,
    SoapFault,
    WithoutProperties,
)
from ews_sync.simulator.mail import KINDS, MailFactory
from ews_sync.simulator.store import Exchange
from tests.simulator.soap import Client, find_item, folder_id, get_item, impersonating, page, shape, sync_items

if TYPE_CHECKING:
    from lxml import etree

    from ews_sync.simulator.folder import Folder

_ALL = shape(
    "item:TextBody",
    *(
        f'<t:ExtendedFieldURI PropertyTag="{tag}" PropertyType="{kind}"/>'
        for tag, kind in (
            ("0x300B", "Binary"),
            ("0x0E06", "SystemTime"),
            ("0x0E08", "Long"),
            ("0x007D", "String"),
            ("0x1234", "String"),
        )
    ),
    '<t:ExtendedFieldURI DistinguishedPropertySetId="InternetHeaders" PropertyName="received" PropertyType="String"/>',
    base="AllProperties",
    flags="<t:IncludeMimeContent>true</t:IncludeMimeContent>",
)


def _inbox_of(mailbox: str) -> str:
    address = f"<t:Mailbox><t:EmailAddress>{mailbox}</t:EmailAddress></t:Mailbox>" if mailbox else ""
    return (
        "<m:GetFolder><m:FolderShape><t:BaseShape>Default</t:BaseShape></m:FolderShape><m:FolderIds>"
        f'<t:DistinguishedFolderId Id="inbox">{address}</t:DistinguishedFolderId></m:FolderIds></m:GetFolder>'
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hostile"])
def test_answers_about_every_kind_of_mail_are_valid(
    client: Client, inbox: Folder, schema: etree.XMLSchema, kind: str
) -> None:
    factory = MailFactory(4)
    mail = [factory.email(n, kind=kind) for n in range(3)]  # type: ignore[arg-type]
    items = [inbox.deliver(one, categories=("red",)) for one in mail]
    got = client.post(get_item(items, _ALL))
    assert got.codes == ["NoError"] * 3
    schema.assertValid(got.payload)
    assert [base64.b64decode(text) for text in got.texts("//t:MimeContent")] == [one.mime() for one in mail]
    found = client.post(find_item(inbox, item_shape=shape(base="AllProperties")))
    schema.assertValid(found.payload)
    synced = client.post(sync_items(inbox, item_shape=shape(base="Default")))
    schema.assertValid(synced.payload)
    assert len(synced.changes) == len(found.item_ids) == 3


@pytest.mark.parametrize(
    "item_class", ["IPM.Post", "IPM.Appointment", "IPM.Contact", "IPM.Task", "IPM.Odd", "REPORT.IPM.Note.DR"]
)
def test_answers_about_other_things_are_valid(
    client: Client, inbox: Folder, schema: etree.XMLSchema, item_class: str
) -> None:
    item = inbox.deliver(b"Subject: x\r\nMessage-ID: <1@x>\r\nFrom: a@b\r\n\r\n", item_class=item_class)
    answer = client.post(get_item([item], _ALL))
    assert answer.text("//t:ItemClass") == item_class
    schema.assertValid(answer.payload)


@pytest.mark.parametrize("base", ["IdOnly", "Default", "AllProperties"])
def test_answers_about_folders_are_valid(client: Client, inbox: Folder, schema: etree.XMLSchema, base: str) -> None:
    folder_shape = (
        f"<m:FolderShape><t:BaseShape>{base}</t:BaseShape><t:AdditionalProperties>"
        '<t:FieldURI FieldURI="folder:DistinguishedFolderId"/>'
        '<t:ExtendedFieldURI PropertyTag="0x670A" PropertyType="SystemTime"/>'
        '<t:ExtendedFieldURI PropertyTag="0x10F4" PropertyType="Boolean"/>'
        "</t:AdditionalProperties></m:FolderShape>"
    )
    root = '<t:DistinguishedFolderId Id="root"/>'
    for request in (
        f'<m:FindFolder Traversal="Deep">{folder_shape}<m:ParentFolderIds>{root}</m:ParentFolderIds></m:FindFolder>',
        f"<m:GetFolder>{folder_shape}<m:FolderIds>{root}{folder_id(inbox)}</m:FolderIds></m:GetFolder>",
        f"<m:SyncFolderHierarchy>{folder_shape}</m:SyncFolderHierarchy>",
    ):
        answer = client.post(request)
        assert set(answer.codes) == {"NoError"}
        schema.assertValid(answer.payload)


def test_errors_are_valid_and_known(client: Client, inbox: Folder, schema: etree.XMLSchema) -> None:
    item = inbox.deliver(b"\r\n")
    gone = inbox.deliver(b"\r\n")
    gone.delete()
    answer = client.post(get_item([item, gone.id, inbox.id, "", "nonsense", gone.id.lower()]))
    schema.assertValid(answer.payload)
    assert answer.codes == [
        "NoError",
        "ErrorItemNotFound",
        "ErrorCannotUseFolderIdForItemId",
        "ErrorInvalidIdEmpty",
        "ErrorInvalidIdMalformed",
        "ErrorInvalidIdMalformed",
    ]


def test_control_characters_come_as_references_that_xml_forbids(client: Client, inbox: Folder) -> None:
    inbox.deliver(MailFactory(1).email(0), subject="a\x0b\x00\uffff<&é")
    answer = client.post(find_item(inbox, item_shape=shape("item:Subject")))
    assert "<t:Subject>a&#xB;&#x0;&#xFFFF;&lt;&amp;é</t:Subject>".encode() in answer.raw


def test_attachments_come_whole(client: Client, inbox: Folder, schema: etree.XMLSchema) -> None:
    item = inbox.deliver(
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n\r\nHello\r\n--x\r\n'
        b'Content-Type: image/png\r\nContent-ID: <1@x>\r\nContent-Disposition: inline; filename="a.png"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\nAAEC/w==\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Subject: inner\r\n\r\nx\r\n--x--\r\n"
    )
    listed = client.post(get_item([item], shape("item:Attachments")))
    ids = listed.attributes("//t:AttachmentId", "Id")
    assert listed.texts("//t:Name") == ["a.png", "inner"]
    named = "".join(f'<t:AttachmentId Id="{one}"/>' for one in [*ids, ids[0][:-1] + "z", "bad"])
    answer = client.post(
        "<m:GetAttachment><m:AttachmentShape><t:IncludeMimeContent>true</t:IncludeMimeContent></m:AttachmentShape>"
        f"<m:AttachmentIds>{named}</m:AttachmentIds></m:GetAttachment>"
    )
    assert answer.codes == ["NoError", "NoError", "ErrorInvalidAttachmentId", "ErrorInvalidIdMalformed"]
    assert answer.texts("//t:Content") == ["AAEC/w=="]
    schema.assertValid(answer.payload)


def test_impersonation() -> None:
    exchange = Exchange()
    for address in ("a@example.com", "b@example.com"):
        exchange.create_mailbox(address)
    service = Account("svc", "x", may_impersonate={"a@example.com"})
    client = Client(exchange, service)
    request = _inbox_of("")
    for how in ("PrimarySmtpAddress", "SmtpAddress", "PrincipalName"):
        assert client.post(request, header=impersonating("A@example.com", how)).codes == ["NoError"]
    denied = client.post(request, header=impersonating("b@example.com"))
    assert (denied.status, denied.fault) == (500, "ErrorImpersonateUserDenied")
    assert client.post(request, header=impersonating("c@example.com")).fault == "ErrorNonExistentMailbox"
    assert client.post(request).codes == ["ErrorMissingEmailAddress"]
    other = exchange.mailboxes["b@example.com"].folder("Inbox").deliver(b"\r\n")
    assert client.post(get_item([other]), header=impersonating("a@example.com")).codes == ["ErrorAccessDenied"]


def test_delegate_access(client: Client, inbox: Folder) -> None:
    client.exchange.create_mailbox("boss@example.com")
    client.exchange.create_mailbox("other@example.com")
    client.account = Account("owner@example.com", "x", delegate_of={"Boss@example.com"})
    assert client.post(_inbox_of("boss@example.com")).codes == ["NoError"]
    assert client.post(_inbox_of("other@example.com")).codes == ["ErrorAccessDenied"]
    assert client.post(_inbox_of("nobody@example.com")).codes == ["ErrorNonExistentMailbox"]
    assert client.post(_inbox_of("")).attributes("//t:FolderId", "Id") == [inbox.id]


def test_faults_of_the_service(client: Client, inbox: Folder) -> None:
    plan = client.faults = FaultPlan()
    items = [inbox.deliver(b"Subject: x\r\n\r\n") for _ in range(4)]
    plan.add(SoapFault("ErrorServerBusy", "busy", back_off_ms=1500), operation="FindItem", times=1)
    busy = client.post(find_item(inbox))
    assert (busy.status, busy.fault) == (500, "ErrorServerBusy")
    assert busy.text("//t:MessageXml/t:Value[@Name='BackOffMilliseconds']") == "1500"
    assert client.post(find_item(inbox)).codes == ["NoError"]

    rule = plan.add(ResponseError("ErrorServerBusy", back_off_ms=0), folder="Inbox")
    busy = client.post(find_item(inbox))
    assert (busy.status, busy.codes, busy.texts("//t:Value")) == (200, ["ErrorServerBusy"], ["0"])
    plan.remove(rule)

    plan.add(ItemError("ErrorItemCorrupt"), item=items[0].id)
    plan.add(ItemError("ErrorSomethingNew", stops_batch=True), item=lambda item: item is items[2])
    assert client.post(get_item(items)).codes == [
        "ErrorItemCorrupt",
        "NoError",
        "ErrorSomethingNew",
        "ErrorBatchProcessingStopped",
    ]
    plan.clear()
    assert not plan.rules


@pytest.mark.parametrize("prefixes", [Prefixes(), Prefixes("SOAP-ENV", "", "ns2"), Prefixes("s", "m", "")])
def test_other_prefixes_mean_the_same(
    client: Client, inbox: Folder, schema: etree.XMLSchema, prefixes: Prefixes
) -> None:
    item = inbox.deliver(b"Subject: x\r\n\r\n")
    client.faults = FaultPlan()
    client.faults.add(prefixes)
    answer = client.post(find_item(inbox, item_shape=shape("item:Subject")))
    schema.assertValid(answer.payload)
    assert answer.item_ids == [item.id]
    assert b"<m:FindItemResponse" in answer.raw if prefixes.messages == "m" else b"<m:" not in answer.raw


def test_illegal_characters_in_every_subject(client: Client, inbox: Folder) -> None:
    inbox.deliver(b"Subject: x\r\n\r\n")
    client.faults = FaultPlan()
    client.faults.add(IllegalCharacters())
    assert b"x&#x0;&#xB;&#xFFFF;<" in client.post(find_item(inbox, item_shape=shape("item:Subject"))).raw


def test_chance_is_seeded() -> None:
    def fired(seed: int) -> list[bool]:
        client = Client()
        inbox = client.exchange.create_mailbox("owner@example.com").folder("Inbox")
        client.faults = FaultPlan(seed)
        client.faults.add(SoapFault("ErrorServerBusy"), probability=0.5)
        return [client.post(find_item(inbox)).fault is not None for _ in range(20)]

    assert fired(1) == fired(1) != fired(2)
    assert 0 < sum(fired(1)) < 20


def test_a_page_can_be_shorter_than_asked(client: Client, inbox: Folder) -> None:
    for _ in range(5):
        inbox.deliver(b"\r\n")
    client.faults = FaultPlan()
    client.faults.add(ShortPage(2))
    found = client.post(find_item(inbox, view=page(4)))
    assert (len(found.item_ids), found.is_last) == (2, False)
    synced = client.post(sync_items(inbox))
    assert (len(synced.changes), synced.is_last) == (2, False)


def test_some_servers_lack_properties(client: Client, inbox: Folder) -> None:
    request = (
        "<m:GetFolder><m:FolderShape><t:BaseShape>IdOnly</t:BaseShape><t:AdditionalProperties>"
        '<t:ExtendedFieldURI PropertyTag="0x670A" PropertyType="SystemTime"/>'
        '<t:ExtendedFieldURI PropertyTag="0x3001" PropertyType="String"/>'
        f"</t:AdditionalProperties></m:FolderShape><m:FolderIds>{folder_id(inbox)}</m:FolderIds></m:GetFolder>"
    )
    assert len(client.post(request).all("//t:ExtendedProperty")) == 2
    client.faults = FaultPlan()
    client.faults.add(WithoutProperties())
    assert client.post(request).texts("//t:ExtendedProperty/t:Value") == ["Inbox"]


def test_paths_of_extended_properties_must_make_sense(client: Client, inbox: Folder) -> None:
    path = '<t:ExtendedFieldURI PropertyTag="0x300B" PropertyName="x" PropertyType="Binary"/>'
    assert client.post(find_item(inbox, item_shape=shape(path))).codes == ["ErrorInvalidExtendedProperty"]
