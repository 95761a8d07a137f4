"""The operations: each takes a checked request and writes its response messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from lxml import etree

from ews_sync.simulator import ids, parts
from ews_sync.simulator.changefeed import folder_changes, hierarchy_changes
from ews_sync.simulator.changes import ChangeKind
from ews_sync.simulator.errors import EwsError
from ews_sync.simulator.faults import ResponseError, ShortPage, WithoutProperties
from ews_sync.simulator.fields import IN_UTF_8, write_attachment
from ews_sync.simulator.grammar import local
from ews_sync.simulator.restriction import Compiler, select
from ews_sync.simulator.shapes import FolderShape, ItemShape, ItemWriter, folder_reader, item_reader
from ews_sync.simulator.views import Order, RangeView, cut, in_order, read_paging
from ews_sync.simulator.wire import MESSAGES_NS, TYPES_NS, boolean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.simulator.access import Caller
    from ews_sync.simulator.changefeed import Change
    from ews_sync.simulator.exchange import Limits
    from ews_sync.simulator.faults import Disturbance
    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.views import Page, Paging
    from ews_sync.simulator.wire import XmlWriter

_M: Final = f"{{{MESSAGES_NS}}}"
_T: Final = f"{{{TYPES_NS}}}"
_VIEWS_KEPT: Final = 4


@dataclass(frozen=True, slots=True)
class Request:
    """A request that follows the schema: who makes it, its body, and what is to go wrong with it."""

    body: etree._Element
    caller: Caller
    version: str
    disturbance: Disturbance

    @property
    def operation(self) -> str:
        """The operation's name."""
        return local(self.body)

    def part(self, name: str) -> etree._Element | None:
        """Return the request's child with a name, if it is there."""
        return self.body.find(_M + name)

    def parts(self, name: str) -> list[etree._Element]:
        """Return the elements in the request's child with a name."""
        found = self.part(name)
        return [] if found is None else [child for child in found if isinstance(child.tag, str)]

    @property
    def without(self) -> frozenset[int]:
        """The tags of the extended properties that are not to be returned."""
        effect = self.disturbance.find(WithoutProperties)
        return effect.tags if effect else frozenset()

    def cap(self, limit: int) -> int:
        """Return how many entries a page can have."""
        effect = self.disturbance.find(ShortPage)
        return min(limit, effect.entries) if effect else limit


Content: TypeAlias = Callable[["XmlWriter"], None]


class Operations:
    """What the server can do. It remembers the last few restricted views, as Exchange does."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._views: OrderedDict[tuple[object, ...], list[Item]] = OrderedDict()
        self.known: dict[str, Callable[[Request, XmlWriter], None]] = {
            "FindFolder": self._find_folder,
            "FindItem": self._find_item,
            "GetAttachment": self._get_attachment,
            "GetFolder": self._get_folder,
            "GetItem": self._get_item,
            "SyncFolderHierarchy": self._sync_hierarchy,
            "SyncFolderItems": self._sync_items,
        }

    # --- folders

    def _get_folder(self, request: Request, out: XmlWriter) -> None:
        for named in request.parts("FolderIds"):

            def content(named: etree._Element = named) -> Content:
                shape = FolderShape.read(_required(request, "FolderShape"))
                folder = request.caller.folder(named)
                return lambda out: _write_folders(out, shape, [folder], request.without)

            _message(request, out, content, empty="m:Folders")

    def _find_folder(self, request: Request, out: XmlWriter) -> None:
        for named in request.parts("ParentFolderIds"):

            def content(named: etree._Element = named) -> Content:
                shape = FolderShape.read(_required(request, "FolderShape"))
                parent = request.caller.folder(named)
                deep = request.body.get("Traversal") == "Deep"
                found = list(parent.descendants()) if deep else list(parent.children)
                if request.body.get("Traversal") == "SoftDeleted":
                    found = []
                restriction = request.part("Restriction")
                if restriction is not None:
                    found = list(filter(Compiler(folder_reader).compile(restriction[0]), found))
                view = _first(request, "IndexedPageFolderView", "FractionalPageFolderView")
                paging = read_paging(view, request.cap(self._limits.find), lambda: len(found))
                page = cut(found, paging)

                def write(out: XmlWriter) -> None:
                    _start_page(out, page)
                    out.start("t:Folders")
                    for folder in page.entries:
                        shape.write(out, folder, request.without)
                    out.end()
                    out.end()

                return write

            _message(request, out, content)

    def _sync_hierarchy(self, request: Request, out: XmlWriter) -> None:
        def content() -> Content:
            shape = FolderShape.read(_required(request, "FolderShape"))
            named = request.parts("SyncFolderId")
            top = request.caller.folder(named[0]) if named else request.caller.own_mailbox().root
            result = hierarchy_changes(top.mailbox, top, _text(request.part("SyncState")))

            def write(out: XmlWriter) -> None:
                out.leaf("m:SyncState", result.state)
                out.leaf("m:IncludesLastFolderInRange", boolean(result.is_last))
                out.start("m:Changes")
                for change in result.changes:
                    if change.thing is None:
                        out.start("t:Delete")
                        out.leaf("t:FolderId", Id=ids.folder_id(top.mailbox.space, change.number))
                    else:
                        out.start("t:Create" if change.kind is ChangeKind.CREATE else "t:Update")
                        shape.write(out, change.thing, request.without)
                    out.end()
                out.end()

            return write

        _message(request, out, content, not_found="ErrorSyncFolderNotFound")

    # --- items

    def _get_item(self, request: Request, out: XmlWriter) -> None:
        stopped = False
        known: ItemWriter | None = None
        for named in request.parts("ItemIds"):
            if stopped:
                _write_error(request, out, EwsError("ErrorBatchProcessingStopped", _STOPPED), empty="m:Items")
                continue

            def content(named: etree._Element = named) -> Content:
                nonlocal stopped, known
                shape = known = known or _item_writer(request, full=True)
                item = request.caller.item(str(named.get("Id", "")))
                disturbed = request.disturbance.item_error(item)
                if disturbed is not None:
                    stopped = disturbed.stops_batch
                    raise EwsError(disturbed.code, disturbed.text)

                def write(out: XmlWriter) -> None:
                    out.start("m:Items")
                    shape.write(out, item)
                    out.end()

                return write

            _message(request, out, content, empty="m:Items")

    def _find_item(self, request: Request, out: XmlWriter) -> None:
        for named in request.parts("ParentFolderIds"):

            def content(named: etree._Element = named) -> Content:
                shape = _item_writer(request, full=False)
                page = self._view_page(request, request.caller.folder(named))

                def write(out: XmlWriter) -> None:
                    _start_page(out, page)
                    out.start("t:Items")
                    for item in page.entries:
                        shape.write(out, item)
                    out.end()
                    out.end()

                return write

            _message(request, out, content)

    def _view_page(self, request: Request, folder: Folder) -> Page[Item]:
        for missing in ("GroupBy", "DistinguishedGroupBy", "QueryString"):
            if request.part(missing) is not None:
                raise EwsError("ErrorInvalidOperation", f"{missing} is not there.")
        restriction = request.part("Restriction")
        cap = request.cap(self._limits.find if restriction is None else self._limits.find_restricted)
        view = _first(
            request,
            "IndexedPageItemView",
            "FractionalPageItemView",
            "SeekToConditionPageItemView",
            "CalendarView",
            "ContactsView",
        )
        if request.body.get("Traversal") != "Shallow":
            nothing: list[Item] = []
            return cut(nothing, read_paging(view, cap, lambda: 0))
        selection = select(None if restriction is None else restriction[0], Compiler(item_reader))
        orders = [_read_order(order) for order in request.parts("SortOrder")]
        if selection.test is None and (not orders or orders[0].is_received):
            ranged = RangeView(folder, selection, orders)
            return ranged.page(read_paging(view, cap, ranged.__len__))
        items = self._restricted(request, folder, selection.test, RangeView(folder, selection, ()), orders)
        return cut(items, read_paging(view, cap, items.__len__))

    def _restricted(
        self,
        request: Request,
        folder: Folder,
        test: Callable[[Item], bool] | None,
        candidates: RangeView,
        orders: Sequence[Order],
    ) -> list[Item]:
        described = tuple(
            etree.tostring(part, method="c14n") if part is not None else b""
            for part in (request.part("Restriction"), request.part("SortOrder"))
        )
        key = (folder.mailbox.number, folder.number, len(folder.log), described)
        known = self._views.get(key)
        if known is None:
            known = list(filter(test, candidates.page(_everything(candidates)).entries))
            self._views[key] = in_order(known, orders)
            if len(self._views) > _VIEWS_KEPT:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return known

    def _sync_items(self, request: Request, out: XmlWriter) -> None:
        def content() -> Content:
            shape = _item_writer(request, full=False)
            folder = request.caller.folder(request.parts("SyncFolderId")[0])
            if folder.is_search:
                raise EwsError("ErrorInvalidOperation", "Search folders cannot be synchronized.")
            most = request.cap(int(_text(request.part("MaxChangesReturned")) or 1))
            ignored = {_number(named) for named in request.parts("Ignore")}
            result = folder_changes(folder, _text(request.part("SyncState")), most, ignored)

            def write(out: XmlWriter) -> None:
                out.leaf("m:SyncState", result.state)
                out.leaf("m:IncludesLastItemInRange", boolean(result.is_last))
                out.start("m:Changes")
                for change in result.changes:
                    _write_change(request, out, shape, folder, change)
                out.end()

            return write

        _message(request, out, content, not_found="ErrorSyncFolderNotFound")

    def _get_attachment(self, request: Request, out: XmlWriter) -> None:
        for named in request.parts("AttachmentIds"):

            def content(named: etree._Element = named) -> Content:
                shape = request.part("AttachmentShape")
                mime = None if shape is None else shape.find(f"{_T}IncludeMimeContent")
                identity = str(named.get("Id"))
                try:
                    _, position = ids.parse_attachment(identity)
                except ids.MalformedIdError:
                    raise EwsError("ErrorInvalidIdMalformed", "Id is malformed.") from None
                item = request.caller.item(identity[: ids.ITEM_ID_LENGTH])
                found = parts.opened(item.mime())
                if position >= len(found):
                    raise EwsError("ErrorInvalidAttachmentId", "The attachment is not there.")
                with_mime = mime is not None and (mime.text or "").strip() in {"true", "1"}
                return lambda out: _write_attachment(out, identity, found[position], item, with_mime=with_mime)

            _message(request, out, content, empty="m:Attachments")


_STOPPED: Final = "Batch processing stopped because of an earlier error."
_WARNINGS: Final = frozenset({"ErrorBatchProcessingStopped"})


def _message(
    request: Request,
    out: XmlWriter,
    content: Callable[[], Content],
    *,
    empty: str | None = None,
    not_found: str | None = None,
) -> None:
    """Write one response message. `content` does all that can fail, before anything is written."""
    try:
        _disturb(request)
        write = content()
    except EwsError as error:
        if not_found and error.code in {"ErrorItemNotFound", "ErrorFolderNotFound"}:
            error = EwsError(not_found, error.text)
        _write_error(request, out, error, empty=empty)
        return
    out.start(f"m:{request.operation}ResponseMessage", ResponseClass="Success")
    out.leaf("m:ResponseCode", "NoError")
    write(out)
    out.end()


def _disturb(request: Request) -> None:
    wanted = request.disturbance.find(ResponseError)
    if wanted is not None:
        raise EwsError(wanted.code, wanted.text, back_off_ms=wanted.back_off_ms)


def _write_error(request: Request, out: XmlWriter, error: EwsError, *, empty: str | None) -> None:
    response_class = "Warning" if error.code in _WARNINGS else "Error"
    out.start(f"m:{request.operation}ResponseMessage", ResponseClass=response_class)
    out.leaf("m:MessageText", error.text)
    out.leaf("m:ResponseCode", error.code)
    out.leaf("m:DescriptiveLinkKey", "0")
    if error.back_off_ms is not None:
        out.start("m:MessageXml")
        out.leaf("t:Value", str(error.back_off_ms), Name="BackOffMilliseconds")
        out.end()
    if empty:
        out.leaf(empty)  # the schema wants it although there is nothing in it
    out.end()


def _write_folders(out: XmlWriter, shape: FolderShape, folders: Sequence[Folder], without: frozenset[int]) -> None:
    out.start("m:Folders")
    for folder in folders:
        shape.write(out, folder, without)
    out.end()


def _start_page(out: XmlWriter, page: Page[Item] | Page[Folder]) -> None:
    out.start(
        "m:RootFolder",
        IndexedPagingOffset=str(page.next_offset),
        TotalItemsInView=str(page.total),
        IncludesLastItemInRange=boolean(page.is_last),
    )


def _write_change(request: Request, out: XmlWriter, shape: ItemWriter, folder: Folder, change: Change[Item]) -> None:
    item, kind = change.thing, change.kind
    if item is None:
        out.start("t:Delete")
        out.leaf("t:ItemId", Id=ids.item_id(folder.mailbox.space, change.number))
    elif kind is ChangeKind.READ_FLAG and not request.version.startswith("Exchange2007"):
        out.start("t:ReadFlagChange")
        out.identity("t:ItemId", item.id, item.change_key)
        out.leaf("t:IsRead", boolean(item.is_read))
    else:
        out.start("t:Create" if kind is ChangeKind.CREATE else "t:Update")
        shape.write(out, item)
    out.end()


def _write_attachment(
    out: XmlWriter, identity: str, opened: tuple[parts.Attachment, bytes], item: Item, *, with_mime: bool
) -> None:
    attachment, content = opened
    out.start("m:Attachments")
    out.start("t:ItemAttachment" if attachment.is_message else "t:FileAttachment")
    out.leaf("t:AttachmentId", Id=identity)
    write_attachment(out, attachment, item)
    if attachment.is_message:
        out.start("t:Message")
        if with_mime:
            out.base64("t:MimeContent", lambda: content, IN_UTF_8)
        out.leaf("t:ItemClass", "IPM.Note")
        out.leaf("t:Subject", attachment.name)
        out.end()
    else:
        out.base64("t:Content", lambda: content)
    out.end()
    out.end()


def _item_writer(request: Request, *, full: bool) -> ItemWriter:
    return ItemWriter(ItemShape.read(_required(request, "ItemShape"), full=full), request.without)


def _read_order(element: etree._Element) -> Order:
    path = element[0]
    is_received = path.get("FieldURI") == "item:DateTimeReceived"
    return Order(item_reader(path), element.get("Order") == "Descending", is_received)


def _everything(view: RangeView) -> Paging:
    return read_paging(None, max(1, len(view)), view.__len__)


def _first(request: Request, *names: str) -> etree._Element | None:
    return next((found for found in map(request.part, names) if found is not None), None)


def _required(request: Request, name: str) -> etree._Element:
    found = request.part(name)
    if found is None:  # the grammar has seen to it
        raise EwsError("ErrorInvalidRequest", f"{name} is missing.")
    return found


def _text(element: etree._Element | None) -> str | None:
    return None if element is None or not element.text else str(element.text).strip()


def _number(named: etree._Element) -> int:
    try:
        return ids.parse(str(named.get("Id"))).number
    except ids.MalformedIdError:
        raise EwsError("ErrorInvalidIdMalformed", "Id is malformed.") from None
