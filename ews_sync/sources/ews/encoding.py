"""EWS requests as bytes. Pure: no I/O.

Exchange validates requests against its schema and refuses any other order of elements (ErrorSchemaValidation), so
each builder follows the sequence of its type in Microsoft's `messages.xsd`; a test validates every kind of request
against that file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from lxml import etree
from lxml.builder import ElementMaker

from ews_sync.errors import Asks, ProtocolError
from ews_sync.model import Order
from ews_sync.sources.ews.operations import (
    Access,
    FindFolder,
    FindItem,
    GetFolder,
    GetItem,
    Operation,
    SyncFolderHierarchy,
    SyncFolderItems,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    Element = etree._Element  # noqa: SLF001 - lxml's own name for the type

SOAP_NS = "http://schemas.xmlsoap.org/soap/envelope/"
MESSAGES_NS = "http://schemas.microsoft.com/exchange/services/2006/messages"
TYPES_NS = "http://schemas.microsoft.com/exchange/services/2006/types"

SERVER_VERSION = "Exchange2010_SP2"
"""Understood by everything from Exchange 2010 SP2 to Exchange Online and Exchange SE."""

LOCAL_COMMIT_TIME_MAX = 0x670A
"""PidTagLocalCommitTimeMax (MS-OXPROPS): when anything in the folder last changed."""
DELETED_COUNT_TOTAL = 0x670B
"""PidTagDeletedCountTotal (MS-OXPROPS): how many deletions the folder has seen."""
SEARCH_KEY = 0x300B
"""PidTagSearchKey (MS-OXPROPS): survives moves, and is copied to copies."""

NOT_XML = "NotXml"
"""Ours, for what was to be sent and cannot be."""

_NSMAP = {"s": SOAP_NS, "m": MESSAGES_NS, "t": TYPES_NS}
_S = ElementMaker(namespace=SOAP_NS, nsmap=_NSMAP)
_M = ElementMaker(namespace=MESSAGES_NS, nsmap=_NSMAP)
_T = ElementMaker(namespace=TYPES_NS, nsmap=_NSMAP)

_ITEM_ID = f"{{{TYPES_NS}}}ItemId"

_LISTED = (
    "item:ItemClass",
    "item:DateTimeReceived",
    "item:Size",
    "item:DateTimeSent",
    "item:DateTimeCreated",
    "item:IsDraft",
    "message:InternetMessageId",
)
# Each property is an element more of each answer for both sides: none that the listing has told for good.
_FETCHED = (
    *(name for name in _LISTED if name != "item:DateTimeCreated"),
    "item:Sensitivity",
    "item:Categories",
    "item:Importance",
    "item:HasAttachments",
    "item:Attachments",
    "item:ConversationId",
    "message:ConversationTopic",
    "message:IsRead",
)
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=_-.@"
"""What needs no escaping, and surely is XML: nearly all ids, sync states and addresses have nothing else."""
_BLANK = "@"
_BETWEEN_IDS = '"/><t:ItemId Id="'
_TIME_FIELD = {Order.RECEIVED: "item:DateTimeReceived", Order.CREATED: "item:DateTimeCreated"}


def encode(operation: Operation, access: Access) -> bytes:
    """Give the SOAP envelope that asks for `operation` on behalf of `access`.

    Raises `ProtocolError` when an id, a sync state or an address has characters that no XML can hold.
    """
    try:
        return _filled_in(operation, access) or _envelope(operation, access)
    except ValueError as error:
        raise ProtocolError(
            f"{type(operation).__name__} for {access.mailbox!r} cannot be written as XML: {error}",
            asks=Asks.STOP,
            code=NOT_XML,
        ) from error


def _envelope(operation: Operation, access: Access) -> bytes:
    header = _S.Header(_T.RequestServerVersion(Version=SERVER_VERSION))
    if access.impersonate:
        header.append(_T.ExchangeImpersonation(_T.ConnectingSID(_T.PrimarySmtpAddress(access.mailbox))))
    envelope = _S.Envelope(header, _S.Body(_body(operation, access)))
    return etree.tostring(envelope, xml_declaration=True, encoding="utf-8")


def _body(operation: Operation, access: Access) -> Element:
    match operation:
        case FindFolder():
            return _M.FindFolder(
                _M.FolderShape(_T.BaseShape("IdOnly"), _T.AdditionalProperties(*_folder_properties())),
                _M.IndexedPageFolderView(
                    MaxEntriesReturned=str(operation.limit), Offset=str(operation.offset), BasePoint="Beginning"
                ),
                _M.ParentFolderIds(_root(access)),
                Traversal="Deep",
            )
        case GetFolder():
            return _M.GetFolder(_M.FolderShape(_T.BaseShape("IdOnly")), _M.FolderIds(_root(access)))
        case SyncFolderHierarchy():
            request = _M.SyncFolderHierarchy(
                _M.FolderShape(_T.BaseShape("IdOnly"), _T.AdditionalProperties(*_folder_properties())),
                _M.SyncFolderId(_root(access)),
            )
            if operation.sync_state is not None:
                request.append(_M.SyncState(operation.sync_state))
            return request
        case FindItem():
            return _find_item(operation)
        case SyncFolderItems():
            shape = _M.ItemShape(_T.BaseShape("IdOnly"))
            if not operation.ids_only:
                shape.append(_listed())
            request = _M.SyncFolderItems(shape, _M.SyncFolderId(_T.FolderId(Id=operation.folder_id)))
            if operation.sync_state is not None:
                request.append(_M.SyncState(operation.sync_state))
            request.append(_M.MaxChangesReturned(str(operation.limit)))
            return request
        case GetItem():
            return _get_item(operation)


def _find_item(operation: FindItem) -> Element:
    request = _M.FindItem(
        _M.ItemShape(_T.BaseShape("IdOnly"), _listed()),
        _M.IndexedPageItemView(
            MaxEntriesReturned=str(operation.limit), Offset=str(operation.offset), BasePoint="Beginning"
        ),
        Traversal="Shallow",
    )
    time_field = _TIME_FIELD[operation.order]
    conditions: list[Element] = []
    if operation.order is Order.CREATED:
        conditions.append(_T.Not(_T.Exists(_T.FieldURI(FieldURI="item:DateTimeReceived"))))
    if operation.since is not None:
        conditions.append(
            _T.IsGreaterThanOrEqualTo(
                _T.FieldURI(FieldURI=time_field), _T.FieldURIOrConstant(_T.Constant(Value=_utc(operation.since)))
            )
        )
    if conditions:
        request.append(_M.Restriction(conditions[0] if len(conditions) == 1 else _T.And(*conditions)))
    direction = "Descending" if operation.descending else "Ascending"
    request.append(_M.SortOrder(_T.FieldOrder(_T.FieldURI(FieldURI=time_field), Order=direction)))
    request.append(_M.ParentFolderIds(_T.FolderId(Id=operation.folder_id)))
    return request


def _get_item(operation: GetItem) -> Element:
    properties = _T.AdditionalProperties(*_field_uris(_FETCHED))
    if operation.with_search_key:
        properties.append(_extended(SEARCH_KEY, "Binary"))
    mime = _T.IncludeMimeContent("true" if operation.with_mime else "false")
    ids = _M.ItemIds()
    for item_id in operation.item_ids:
        etree.SubElement(ids, _ITEM_ID, Id=item_id)
    return _M.GetItem(_M.ItemShape(_T.BaseShape("IdOnly"), mime, properties), ids)


def _root(access: Access) -> Element:
    root = _T.DistinguishedFolderId(Id="msgfolderroot")
    if not access.impersonate:
        root.append(_T.Mailbox(_T.EmailAddress(access.mailbox)))
    return root


def _listed() -> Element:
    # The search key names what has no Message-ID: by it a sink is asked whether it holds an email.
    return _T.AdditionalProperties(*_field_uris(_LISTED), _extended(SEARCH_KEY, "Binary"))


def _folder_properties() -> Iterable[Element]:
    yield from _field_uris(("folder:ParentFolderId", "folder:DisplayName", "folder:TotalCount", "folder:FolderClass"))
    yield _extended(LOCAL_COMMIT_TIME_MAX, "SystemTime")
    yield _extended(DELETED_COUNT_TOTAL, "Integer")


def _field_uris(names: Iterable[str]) -> Iterable[Element]:
    return (_T.FieldURI(FieldURI=name) for name in names)


def _extended(tag: int, kind: str) -> Element:
    return _T.ExtendedFieldURI(PropertyTag=f"0x{tag:04X}", PropertyType=kind)


def _utc(moment: datetime) -> str:
    # Not strftime, which gives the year 1 one digit.
    return f"{moment.replace(microsecond=0, tzinfo=None).isoformat()}Z"


# --- What is asked for all the time is made once, and filled in ------------------------------------------------------


def _filled_in(operation: Operation, access: Access) -> bytes | None:
    """Give the request as `_envelope` would, from one that was made before; None where it has to be made."""
    blank: Operation
    texts: tuple[str, ...]
    match operation:
        case FindFolder(offset=0):
            blank, texts = operation, ()
        case SyncFolderItems(sync_state=None):
            blank, texts = replace(operation, folder_id=_BLANK), (operation.folder_id,)
        case SyncFolderItems(sync_state=str(state)):
            blank, texts = replace(operation, folder_id=_BLANK, sync_state=_BLANK), (operation.folder_id, state)
        case GetItem():
            blank, texts = replace(operation, item_ids=(_BLANK,)), operation.item_ids
        case _:
            return None
    if "".join((access.mailbox, *texts)).encode().translate(None, _PLAIN):
        return None
    if isinstance(operation, GetItem):
        texts = (_BETWEEN_IDS.join(texts),)
    if access.impersonate or isinstance(operation, FindFolder):
        texts = (access.mailbox, *texts)
    pieces = _pieces(blank, impersonate=access.impersonate)
    return "".join(chain.from_iterable(zip_longest(pieces, texts, fillvalue=""))).encode()


@lru_cache(maxsize=64)
def _pieces(blank: Operation, *, impersonate: bool) -> tuple[str, ...]:
    """Give what stands between the blanks of a request."""
    return tuple(_envelope(blank, Access(_BLANK, impersonate)).decode().split(_BLANK))
