from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from lxml import etree

from ews_sync.simulator.grammar import Violation, local
from ews_sync.simulator.grammar_tables import request_grammar
from tests.simulator.soap import Client, envelope, impersonating

if TYPE_CHECKING:
    from ews_sync.simulator.folder import Folder

_RICH = """
<m:ItemShape><t:BaseShape>IdOnly</t:BaseShape><t:IncludeMimeContent>true</t:IncludeMimeContent>
 <t:BodyType>Text</t:BodyType><t:FilterHtmlContent>0</t:FilterHtmlContent><t:MaximumBodySize>12</t:MaximumBodySize>
 <t:AdditionalProperties><t:FieldURI FieldURI="item:Subject"/><t:ExtendedFieldURI PropertyTag="0x300B"
 PropertyType="Binary"/><t:IndexedFieldURI FieldURI="item:InternetMessageHeader" FieldIndex="X-A"/>
 </t:AdditionalProperties></m:ItemShape>"""
_FOLDER_SHAPE = """<m:FolderShape><t:BaseShape>Default</t:BaseShape><t:AdditionalProperties>
 <t:ExtendedFieldURI DistinguishedPropertySetId="Common" PropertyId="34144" PropertyType="Integer"/>
 <t:ExtendedFieldURI PropertySetId="00020329-0000-0000-C000-000000000046" PropertyName="x" PropertyType="String"/>
 </t:AdditionalProperties></m:FolderShape>"""
_EQUAL = (
    '<t:IsEqualTo><t:FieldURI FieldURI="item:Subject"/><t:FieldURIOrConstant><t:Constant Value="x"/>'
    "</t:FieldURIOrConstant></t:IsEqualTo>"
)
REQUESTS = {
    "FindFolder": f"""<m:FindFolder Traversal="Deep">{_FOLDER_SHAPE}
 <m:IndexedPageFolderView MaxEntriesReturned="10" Offset="0" BasePoint="Beginning"/>
 <m:Restriction><t:Contains ContainmentMode="Substring" ContainmentComparison="Loose"><t:FieldURI
 FieldURI="folder:DisplayName"/><t:Constant Value="a"/></t:Contains></m:Restriction>
 <m:ParentFolderIds><t:DistinguishedFolderId Id="inbox"><t:Mailbox><t:Name>x</t:Name>
 <t:EmailAddress>a@example.com</t:EmailAddress></t:Mailbox></t:DistinguishedFolderId><t:FolderId Id="x"/>
 </m:ParentFolderIds></m:FindFolder>""",
    "GetFolder": f"""<m:GetFolder>{_FOLDER_SHAPE}<m:FolderIds><t:FolderId Id="x" ChangeKey="y"/></m:FolderIds>
 </m:GetFolder>""",
    "FindItem": f"""<m:FindItem Traversal="Shallow">{_RICH}
 <m:FractionalPageItemView MaxEntriesReturned="10" Numerator="1" Denominator="2"/>
 <m:Restriction><t:And><t:Or>{_EQUAL}<t:Not>{_EQUAL}</t:Not></t:Or><t:Exists><t:FieldURI FieldURI="item:Size"/>
 </t:Exists><t:Excludes><t:FieldURI FieldURI="item:Size"/><t:Bitmask Value="0xF"/></t:Excludes></t:And>
 </m:Restriction><m:SortOrder><t:FieldOrder Order="Ascending"><t:FieldURI FieldURI="item:DateTimeReceived"/>
 </t:FieldOrder></m:SortOrder><m:ParentFolderIds><t:FolderId Id="x"/></m:ParentFolderIds>
 <m:QueryString ResetCache="true">a</m:QueryString></m:FindItem>""",
    "FindItem-seek": f"""<m:FindItem Traversal="Associated">{_RICH}<m:SeekToConditionPageItemView BasePoint="End">
 <t:Condition>{_EQUAL}</t:Condition></m:SeekToConditionPageItemView><m:ParentFolderIds><t:FolderId Id="x"/>
 </m:ParentFolderIds></m:FindItem>""",
    "FindItem-calendar": f"""<m:FindItem Traversal="Shallow">{_RICH}<m:CalendarView MaxEntriesReturned="3"
 StartDate="2026-01-01T00:00:00Z" EndDate="2026-02-01T00:00:00+01:00"/><m:ParentFolderIds><t:FolderId Id="x"/>
 </m:ParentFolderIds></m:FindItem>""",
    "GetItem": f"""<m:GetItem>{_RICH}<m:ItemIds><t:ItemId Id="a" ChangeKey="b"/><t:OccurrenceItemId
 RecurringMasterId="x" InstanceIndex="3"/></m:ItemIds></m:GetItem>""",
    "GetAttachment": """<m:GetAttachment><m:AttachmentShape><t:IncludeMimeContent>true</t:IncludeMimeContent>
 </m:AttachmentShape><m:AttachmentIds><t:AttachmentId Id="x"/></m:AttachmentIds></m:GetAttachment>""",
    "SyncFolderItems": f"""<m:SyncFolderItems>{_RICH}<m:SyncFolderId><t:FolderId Id="x"/></m:SyncFolderId>
 <m:SyncState>abc</m:SyncState><m:Ignore><t:ItemId Id="x"/></m:Ignore><m:MaxChangesReturned>512
 </m:MaxChangesReturned><m:SyncScope>NormalItems</m:SyncScope></m:SyncFolderItems>""",
    "SyncFolderHierarchy": f"""<m:SyncFolderHierarchy>{_FOLDER_SHAPE}<m:SyncFolderId><t:DistinguishedFolderId
 Id="msgfolderroot"/></m:SyncFolderId><m:SyncState/></m:SyncFolderHierarchy>""",
}
_VALUES = ("", "nonsense", "0", "-1", "513", "true", "2026-13-01T00:00:00Z", "Ascending", "0x1FFFFF")


def _request(name: str) -> etree._Element:
    return etree.fromstring(envelope(REQUESTS[name])).find("{*}Body")[0]  # type: ignore[index]


def _is_accepted(request: etree._Element) -> bool:
    try:
        request_grammar().check(request, local(request))
    except Violation:
        return False
    return True


def _mutate(request: etree._Element, rng: random.Random) -> str:
    """Spoil a request (perhaps) in one place, and say how."""
    element = rng.choice([found for found in request.iter() if isinstance(found.tag, str) and found is not request])
    parent = element.getparent()
    assert parent is not None
    how = rng.choice(["remove", "repeat", "swap", "rename", "attribute", "drop", "extra", "text"])
    if how == "remove":
        parent.remove(element)
    elif how == "repeat":
        parent.append(etree.fromstring(etree.tostring(element, with_tail=False)))
    elif how == "swap":
        parent.append(element)
    elif how == "rename":
        element.tag = rng.choice([str(found.tag) for found in request.iter() if isinstance(found.tag, str)])
    elif how == "attribute" and element.attrib:
        element.set(rng.choice([str(name) for name in element.attrib]), rng.choice(_VALUES))
    elif how == "drop" and element.attrib:
        del element.attrib[rng.choice([str(name) for name in element.attrib])]
    elif how == "extra":
        element.set("Unheard", "of")
    elif how == "text" and not len(element):
        element.text = rng.choice(_VALUES)
    return how


@pytest.mark.parametrize("name", REQUESTS)
def test_good_requests_are_accepted_by_both(schema: etree.XMLSchema, name: str) -> None:
    request = _request(name)
    schema.assertValid(request)
    request_grammar().check(request, local(request))


@pytest.mark.parametrize("name", REQUESTS)
def test_the_grammar_agrees_with_the_schema_on_spoiled_requests(schema: etree.XMLSchema, name: str) -> None:
    rng = random.Random(name)
    refused = 0
    for _ in range(400):
        request = _request(name)
        how = [_mutate(request, rng) for _ in range(rng.randrange(1, 3))]
        if any("GroupBy" in str(found.tag) for found in request.iter()):
            continue
        request = etree.fromstring(etree.tostring(request))
        valid = bool(schema.validate(request))
        refused += not valid
        assert _is_accepted(request) == valid, (how, etree.tostring(request), schema.error_log.last_error)
    assert refused > 100


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ('<t:ItemId Id="a"/>', None),
        ('<t:ItemId Id="a"><!-- nothing --></t:ItemId>', None),
        ('<t:ItemId Id="a"> </t:ItemId>', "ErrorSchemaValidation"),
        ('<t:ItemId Id="a">b</t:ItemId>', "ErrorSchemaValidation"),
        ('<t:ItemId Id="a"><!-- nothing -->b</t:ItemId>', "ErrorSchemaValidation"),
        ('<t:ItemId Id="a"><t:ItemId Id="b"/></t:ItemId>', "ErrorSchemaValidation"),
        ("<t:ItemId/>", "ErrorSchemaValidation"),
        ('<t:ItemId Id="a" Unheard="of"/>', "ErrorSchemaValidation"),
    ],
)
def test_an_id_has_attributes_and_nothing_in_it(client: Client, named: str, fault: str | None) -> None:
    shape = "<m:ItemShape><t:BaseShape>IdOnly</t:BaseShape></m:ItemShape>"
    answer = client.post(f"<m:GetItem>{shape}<m:ItemIds>{named}</m:ItemIds></m:GetItem>")
    assert answer.fault == fault


def test_a_violation_says_what_was_expected(client: Client) -> None:
    answer = client.post("<m:GetItem><m:ItemIds><t:ItemId Id='x'/></m:ItemIds></m:GetItem>")
    assert (answer.status, answer.fault) == (500, "ErrorSchemaValidation")
    assert "m:ItemShape" in answer.text("//t:Violation")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"no xml",
        b"<a/>",
        envelope(""),
        envelope("<m:Nonsense/>"),
        envelope("<t:GetItem/>"),
        envelope("<m:GetItem/><m:GetItem/>"),
        envelope(REQUESTS["GetFolder"], header="<t:ExchangeImpersonation/>"),
        envelope(REQUESTS["GetFolder"], header=impersonating("", "PrimarySmtpAddress")),
    ],
)
def test_what_is_no_request_is_refused(client: Client, request_bytes: bytes) -> None:
    assert client.send(request_bytes).fault == "ErrorSchemaValidation"


def test_unknown_versions_and_operations_are_refused(client: Client, inbox: Folder) -> None:
    assert inbox is not None
    assert client.post(REQUESTS["GetFolder"], version="Exchange2042").fault == "ErrorInvalidServerVersion"
    assert client.post("<m:GetDelegate/>").fault == "ErrorInvalidOperation"
