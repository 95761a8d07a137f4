"""The part of Exchange's schema that the simulator understands, as tables for `grammar`.

Written down from the published schema's rules; a test compares the two on good and on spoiled requests.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ews_sync.simulator import vocabulary
from ews_sync.simulator.grammar import ElementType, Grammar, model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ews_sync.simulator.grammar import SimpleType

_PATH: Final = "(t:FieldURI | t:IndexedFieldURI | t:ExtendedFieldURI)"
_SEARCH: Final = (
    "(t:Exists | t:Excludes | t:IsEqualTo=Comparison | t:IsNotEqualTo=Comparison | t:IsGreaterThan=Comparison"
    " | t:IsGreaterThanOrEqualTo=Comparison | t:IsLessThan=Comparison | t:IsLessThanOrEqualTo=Comparison"
    " | t:Contains | t:Not | t:And=Several | t:Or=Several | t:Near)"
)
_FOLDER_IDS: Final = "(t:FolderId | t:DistinguishedFolderId)+"
_ITEM_IDS: Final = "(t:ItemId | t:OccurrenceItemId | t:RecurringMasterItemId | t:RecurringMasterItemIdRanges=Open)+"
_SPACE: Final = " \t\r\n"
_INT: Final = re.compile(r"[+-]?[0-9]+")
_GUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_HEX_TAG: Final = re.compile(r"0[xX][0-9A-Fa-f]{1,4}")
_BITMASK: Final = re.compile(r"0[xX][0-9A-Fa-f]*|[0-9]*")
_DATE_TIME: Final = re.compile(
    r"-?\d{4,}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"
)


def _field_uris() -> Iterator[str]:
    group = ""
    for word in vocabulary.FIELD_URIS.split():
        if word.endswith(":"):
            group = word
        else:
            yield group + word


def _one_of(*words: str) -> SimpleType:
    return frozenset(words).__contains__


def _integer(least: int = -(2**31), most: int = 2**31 - 1) -> SimpleType:
    def check(text: str) -> bool:
        text = text.strip(_SPACE)
        return bool(_INT.fullmatch(text)) and least <= int(text) <= most

    return check


def _property_tag(text: str) -> bool:
    return bool(_HEX_TAG.fullmatch(text)) or _integer(0, 65535)(text)


def _simple_types() -> dict[str, SimpleType]:
    return {
        "string": lambda _: True,
        "nonempty": bool,
        "boolean": lambda text: text.strip(_SPACE) in {"true", "false", "0", "1"},
        "int": _integer(),
        "unsigned": _integer(0, 2**32 - 1),
        "max-changes": _integer(1, 512),
        "date-time": lambda text: bool(_DATE_TIME.fullmatch(text.strip(_SPACE))),
        "guid": lambda text: bool(_GUID.fullmatch(text)),
        "bitmask": lambda text: bool(_BITMASK.fullmatch(text)),
        "tag": _property_tag,
        "shape": _one_of("IdOnly", "Default", "AllProperties", "PcxPeopleSearch"),
        "body": _one_of("Best", "HTML", "Text"),
        "base-point": _one_of("Beginning", "End"),
        "direction": _one_of("Ascending", "Descending"),
        "folder-traversal": _one_of("Shallow", "Deep", "SoftDeleted"),
        "item-traversal": _one_of("Shallow", "SoftDeleted", "Associated"),
        "sync-scope": _one_of("NormalItems", "NormalAndAssociatedItems"),
        "containment": _one_of("FullString", "Prefixed", "Substring", "PrefixOnWords", "ExactPhrase"),
        "comparison": _one_of(
            "Exact",
            "IgnoreCase",
            "IgnoreNonSpacingCharacters",
            "Loose",
            "IgnoreCaseAndNonSpacingCharacters",
            "LooseAndIgnoreCase",
            "LooseAndIgnoreNonSpace",
            "LooseAndIgnoreCaseAndIgnoreNonSpace",
        ),
        "mailbox-type": _one_of(
            "Unknown",
            "OneOff",
            "Mailbox",
            "PublicDL",
            "PrivateDL",
            "Contact",
            "PublicFolder",
            "GroupMailbox",
            "ImplicitContact",
        ),
        "version": _one_of(*vocabulary.VERSIONS.split()),
        "distinguished": _one_of(*vocabulary.DISTINGUISHED_FOLDERS.split()),
        "property-type": _one_of(*vocabulary.PROPERTY_TYPES.split()),
        "property-set": _one_of(*vocabulary.PROPERTY_SETS.split()),
        "field-uri": _one_of(*_field_uris()),
        "dictionary-uri": _one_of(*vocabulary.DICTIONARY_URIS.split()),
    }


def _children(content: str, **attributes: str) -> ElementType:
    return ElementType(model(content), attributes=_required(attributes))


def _attributes(**attributes: str) -> ElementType:
    return ElementType(attributes=_required(attributes))


def _text(simple: str, **attributes: str) -> ElementType:
    return ElementType(text=simple, attributes=_required(attributes))


def _required(attributes: Mapping[str, str]) -> dict[str, str]:
    """Turn `Id="string!"` into the grammar's spelling, which marks the name."""
    return {name + "!" * simple.endswith("!"): simple.rstrip("!") for name, simple in attributes.items()}


def _operations() -> dict[str, ElementType]:
    return {
        "FindFolder": _children(
            "m:FolderShape, (m:IndexedPageFolderView=IndexedPage | m:FractionalPageFolderView=FractionalPage)?,"
            " m:Restriction?, m:ParentFolderIds=FolderIds",
            Traversal="folder-traversal!",
        ),
        "GetFolder": _children("m:FolderShape, m:FolderIds"),
        "FindItem": _children(
            "m:ItemShape, (m:IndexedPageItemView=IndexedPage | m:FractionalPageItemView=FractionalPage"
            " | m:SeekToConditionPageItemView | m:CalendarView | m:ContactsView)?,"
            " (m:GroupBy=Open | m:DistinguishedGroupBy=Open)?, m:Restriction?, m:SortOrder?,"
            " m:ParentFolderIds=FolderIds, m:QueryString?",
            Traversal="item-traversal!",
        ),
        "GetItem": _children("m:ItemShape, m:ItemIds"),
        "GetAttachment": _children("m:AttachmentShape?, m:AttachmentIds"),
        "SyncFolderItems": _children(
            "m:ItemShape, m:SyncFolderId, m:SyncState=Text?, m:Ignore?, m:MaxChangesReturned, m:SyncScope?"
        ),
        "SyncFolderHierarchy": _children("m:FolderShape, m:SyncFolderId?, m:SyncState=Text?"),
    }


def _parts() -> dict[str, ElementType]:
    return {
        "FolderShape": _children("t:BaseShape, t:AdditionalProperties?"),
        "ItemShape": _children(
            "t:BaseShape, t:IncludeMimeContent=Boolean?, t:BodyType?, t:UniqueBodyType=BodyType?,"
            " t:NormalizedBodyType=BodyType?, t:FilterHtmlContent=Boolean?, t:ConvertHtmlCodePageToUTF8=Boolean?,"
            " t:InlineImageUrlTemplate=Text?, t:BlockExternalImages=Boolean?, t:AddBlankTargetToLinks=Boolean?,"
            " t:MaximumBodySize=Int?, t:AdditionalProperties?"
        ),
        "AttachmentShape": _children(
            "t:IncludeMimeContent=Boolean?, t:BodyType?, t:FilterHtmlContent=Boolean?, t:AdditionalProperties?"
        ),
        "BaseShape": _text("shape"),
        "BodyType": _text("body"),
        "AdditionalProperties": _children(_PATH + "+"),
        "FolderIds": _children(_FOLDER_IDS),
        "SyncFolderId": _children("(t:FolderId | t:DistinguishedFolderId | t:AddressListId)"),
        "ItemIds": _children(_ITEM_IDS),
        "AttachmentIds": _children("t:AttachmentId+"),
        "Ignore": _children("t:ItemId*"),
        "FolderId": _attributes(Id="string!", ChangeKey="string"),
        "DistinguishedFolderId": _children("t:Mailbox?", Id="distinguished!", ChangeKey="string"),
        "AddressListId": _attributes(Id="string!"),
        "ItemId": _attributes(Id="string!", ChangeKey="string"),
        "OccurrenceItemId": _attributes(RecurringMasterId="string!", ChangeKey="string", InstanceIndex="int!"),
        "RecurringMasterItemId": _attributes(OccurrenceId="string!", ChangeKey="string"),
        "AttachmentId": _attributes(Id="string!"),
        "Mailbox": _children(
            "t:Name=Text?, t:EmailAddress=NonEmpty?, t:RoutingType=NonEmpty?, t:MailboxType?, t:ItemId?,"
            " t:OriginalDisplayName=Text?"
        ),
        "MailboxType": _text("mailbox-type"),
        "MaxChangesReturned": _text("max-changes"),
        "SyncScope": _text("sync-scope"),
        "QueryString": _text(
            "string", ResetCache="boolean", ReturnHighlightTerms="boolean", ReturnDeletedItems="boolean"
        ),
        "Text": _text("string"),
        "NonEmpty": _text("nonempty"),
        "Boolean": _text("boolean"),
        "Int": _text("int"),
        "Unsigned": _text("unsigned"),
        "Open": ElementType(is_open=True),
    }


def _searching() -> dict[str, ElementType]:
    return {
        "IndexedPage": _attributes(MaxEntriesReturned="int", Offset="int!", BasePoint="base-point!"),
        "FractionalPage": _attributes(MaxEntriesReturned="int", Numerator="int!", Denominator="int!"),
        "SeekToConditionPageItemView": _children(
            "t:Condition=Restriction", MaxEntriesReturned="int", BasePoint="base-point!"
        ),
        "CalendarView": _attributes(MaxEntriesReturned="int", StartDate="date-time!", EndDate="date-time!"),
        "ContactsView": _attributes(MaxEntriesReturned="int", InitialName="string", FinalName="string"),
        "Restriction": _children(_SEARCH),
        "SortOrder": _children("t:FieldOrder+"),
        "FieldOrder": _children(_PATH, Order="direction!"),
        "FieldURI": _attributes(FieldURI="field-uri!"),
        "IndexedFieldURI": _attributes(FieldURI="dictionary-uri!", FieldIndex="string!"),
        "ExtendedFieldURI": _attributes(
            DistinguishedPropertySetId="property-set",
            PropertySetId="guid",
            PropertyTag="tag",
            PropertyName="string",
            PropertyId="int",
            PropertyType="property-type!",
        ),
        "Comparison": _children(_PATH + ", t:FieldURIOrConstant"),
        "FieldURIOrConstant": _children("(t:FieldURI | t:IndexedFieldURI | t:ExtendedFieldURI | t:Constant)"),
        "Constant": _attributes(Value="string!"),
        "Exists": _children(_PATH),
        "Excludes": _children(_PATH + ", t:Bitmask"),
        "Bitmask": _attributes(Value="bitmask!"),
        "Contains": _children(
            _PATH + ", t:Constant", ContainmentMode="containment", ContainmentComparison="comparison"
        ),
        "Not": _children(_SEARCH),
        "Several": _children(_SEARCH + "+"),
        "Near": _children(_SEARCH + "+, t:Distance=Unsigned, t:Ordered=Boolean"),
    }


def _headers() -> dict[str, ElementType]:
    return {
        "ExchangeImpersonation": _children("t:ConnectingSID"),
        "ConnectingSID": _children(
            "(t:PrincipalName=Text | t:SID=Text | t:PrimarySmtpAddress=NonEmpty | t:SmtpAddress=NonEmpty)"
        ),
    }


def request_grammar() -> Grammar:
    """Return the grammar of the requests and headers that the simulator understands."""
    return Grammar({**_operations(), **_parts(), **_searching(), **_headers()}, _simple_types())
