"""Exchange as a source: folders, change feeds, listings, and fetching, over the EWS client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from ews_sync.errors import CursorRejectedError, FolderGoneError, ProtocolError
from ews_sync.model import Change, ChangeKind, ChangePage, Folder, FolderActivity, ListPage, Order
from ews_sync.sources.ews.client import Call
from ews_sync.sources.ews.codes import NO_ERROR, error_for
from ews_sync.sources.ews.decoding import AnswerReader, MimeWriter
from ews_sync.sources.ews.encoding import encode
from ews_sync.sources.ews.hydration import Hydrator
from ews_sync.sources.ews.operations import (
    MAX_CHANGES_RETURNED,
    Access,
    FindFolder,
    FindItem,
    FolderRecord,
    GetFolder,
    GetItem,
    Operation,
    ResponseMessage,
    SyncFolderHierarchy,
    SyncFolderItems,
)
from ews_sync.sources.ews.spool import SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from ews_sync.model import Clock, Fetched, ItemRef, Mailbox
    from ews_sync.sources.ews.client import Client

_KINDS = {
    "Create": ChangeKind.CREATED,
    "Update": ChangeKind.UPDATED,
    "Delete": ChangeKind.DELETED,
    "ReadFlagChange": ChangeKind.FLAGGED,
}
_REFUSED_REQUEST = frozenset(
    {
        "ErrorInvalidRequest",
        "ErrorSchemaValidation",
        "ErrorInvalidOperation",
        "ErrorInvalidRestriction",
        "ErrorUnsupportedPathForQuery",
        "ErrorUnsupportedPathForSortGroup",
        "ErrorUnsupportedQueryFilter",
        "ErrorInvalidPropertyForExists",
        "ErrorUnsupportedPropertyDefinition",
    }
)
_MAX_FOLDERS = 100_000


class EwsSource:
    """A `Source` over EWS.

    `impersonate` says how mailboxes are reached (`access_type`); `account` names whom the server throttles when they
    are reached as a delegate.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        impersonate: bool,
        account: str,
        new_writer: Callable[[], MimeWriter] = SpoolWriter,
    ) -> None:
        self._client = client
        self._impersonate = impersonate
        self._account = account
        self._new_writer = new_writer
        self._hydrator = Hydrator(clock, self._ask_items)
        self._without_undated = False
        self._log = structlog.get_logger("ews_sync.ews")

    # --- Source ------------------------------------------------------------------------------------------------------

    async def folders(self, mailbox: Mailbox) -> Sequence[Folder]:
        """List the mailbox's mail folders; one request for up to 1000 of them."""
        try:
            records = await self._find_folders(mailbox)
        except ProtocolError as error:
            if error.code not in _REFUSED_REQUEST:
                raise
            records = await self._sync_hierarchy(mailbox)
        return _mail_folders(records)

    async def changes(
        self, mailbox: Mailbox, folder: Folder, cursor: str | None, *, limit: int | None = None, ids_only: bool = False
    ) -> ChangePage:
        """Give the next page of SyncFolderItems."""
        size = MAX_CHANGES_RETURNED if limit is None else max(1, min(limit, MAX_CHANGES_RETURNED))
        operation = SyncFolderItems(folder.id, cursor, limit=size, ids_only=ids_only)
        message = await self._ask_one(
            operation, mailbox, f"reading the changes of {_name(folder)} in {mailbox.address}"
        )
        if message.sync_state is None:
            raise ProtocolError(
                f"SyncFolderItems for {_name(folder)} in {mailbox.address}: the answer has no SyncState"
            )
        if not message.last and message.sync_state == cursor:
            raise ProtocolError(
                f"SyncFolderItems for {_name(folder)} in {mailbox.address}: the server goes round in circles"
            )
        changes = tuple(
            Change(_KINDS[change.kind], change.ref)
            for change in message.changes
            if change.ref is not None and change.kind in _KINDS
        )
        return ChangePage(changes, message.sync_state, message.last)

    async def items(
        self, mailbox: Mailbox, folder: Folder, *, order: Order, since: datetime | None, offset: int = 0
    ) -> ListPage:
        """Give a page of FindItem."""
        if order is Order.CREATED and self._without_undated:
            return ListPage((), last=True, total=0)
        operation = FindItem(folder.id, order, since, offset)
        try:
            message = await self._ask_one(operation, mailbox, f"listing {_name(folder)} in {mailbox.address}")
        except ProtocolError as error:
            if order is Order.RECEIVED or error.code not in _REFUSED_REQUEST:
                raise
            self._without_undated = True
            self._log.info(
                "the server cannot list items without a received time; there are hardly ever any", code=error.code
            )
            return ListPage((), last=True, total=0)
        return ListPage(tuple(item.ref for item in message.items), message.last, message.total)

    async def newest(self, mailbox: Mailbox, folder: Folder) -> datetime | None:
        """Ask for the one item received last."""
        operation = FindItem(folder.id, Order.RECEIVED, limit=1, descending=True)
        message = await self._ask_one(
            operation, mailbox, f"looking for the newest item of {_name(folder)} in {mailbox.address}"
        )
        return message.items[0].ref.received if message.items else None

    async def fetch(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
        """Fetch items with their MIME; see `Hydrator` for what becomes of those that fail."""
        return await self._hydrator.fetch(mailbox, folder, refs)

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def probe(self, mailbox: Mailbox) -> None:
        """Prove with one small request that the mailbox can be read."""
        await self._ask_one(GetFolder(), mailbox, f"opening {mailbox.address}")

    # --- Requests ----------------------------------------------------------------------------------------------------

    async def _ask(self, operation: Operation, mailbox: Mailbox, doing: str) -> tuple[ResponseMessage, ...]:
        access = Access(mailbox.address, self._impersonate)
        call = Call(
            doing,
            encode(operation, access),
            principal=mailbox.address.lower() if self._impersonate else self._account,
            anchor=mailbox.address if self._impersonate else None,
            # Base64 of mail hardly shrinks, and inflating it costs more than it saves.
            compressed=not (isinstance(operation, GetItem) and operation.with_mime),
            max_answer=2**40 if isinstance(operation, GetItem) else 256 * 1024 * 1024,
        )
        answer = await self._client.send(call, lambda: AnswerReader(doing, self._new_writer))
        return answer.messages

    async def _ask_one(self, operation: Operation, mailbox: Mailbox, doing: str) -> ResponseMessage:
        """Ask what is answered with a single response message, and raise what its code asks for."""
        messages = await self._ask(operation, mailbox, doing)
        if not messages:
            raise ProtocolError(f"{doing}: the answer has no response message")
        message = messages[0]
        if message.code not in {NO_ERROR, ""} or message.response_class == "Error":
            error = error_for(message.code, message.text, doing=doing, backoff=message.backoff)
            if isinstance(error, CursorRejectedError | FolderGoneError):
                raise error
            self._note_throttling(mailbox, message)
            raise error
        return message

    async def _ask_items(
        self, mailbox: Mailbox, item_ids: Sequence[str], *, with_mime: bool
    ) -> tuple[ResponseMessage, ...]:
        messages = await self._ask(
            GetItem(tuple(item_ids), with_mime), mailbox, f"fetching {len(item_ids)} item(s) of {mailbox.address}"
        )
        for message in messages:
            self._note_throttling(mailbox, message)
        return messages

    def _note_throttling(self, mailbox: Mailbox, message: ResponseMessage) -> None:
        """Obey a back-off that came inside an answer with HTTP status 200."""
        if message.backoff is not None or message.code == "ErrorServerBusy":
            self._client.gate(mailbox.address.lower() if self._impersonate else self._account).was_busy(message.backoff)

    async def _find_folders(self, mailbox: Mailbox) -> list[FolderRecord]:
        records: list[FolderRecord] = []
        doing = f"listing the folders of {mailbox.address}"
        while len(records) < _MAX_FOLDERS:
            message = await self._ask_one(FindFolder(offset=len(records)), mailbox, doing)
            records += message.folders
            if message.last or not message.folders:
                return records
        raise ProtocolError(f"{doing}: the list does not end")

    async def _sync_hierarchy(self, mailbox: Mailbox) -> list[FolderRecord]:
        records: list[FolderRecord] = []
        state: str | None = None
        doing = f"listing the folders of {mailbox.address}"
        while len(records) < _MAX_FOLDERS:
            message = await self._ask_one(SyncFolderHierarchy(state), mailbox, doing)
            records += [
                change.folder for change in message.changes if change.folder is not None and change.kind == "Create"
            ]
            state = message.sync_state
            if message.last or state is None:
                return records
        raise ProtocolError(f"{doing}: the list does not end")


def _mail_folders(records: Sequence[FolderRecord]) -> list[Folder]:
    """Keep the folders for mail (class IPF.Note or below, or none), each with its path from the visible root down."""
    by_id = {record.id: record for record in records}
    return [
        Folder(record.id, _path(record, by_id), record.total, _activity(record))
        for record in by_id.values()
        if record.element == "Folder" and _is_mail_folder(record.folder_class)
    ]


def _is_mail_folder(folder_class: str | None) -> bool:
    name = (folder_class or "IPF.Note").casefold()
    return name == "ipf.note" or name.startswith("ipf.note.")


def _path(record: FolderRecord, by_id: dict[str, FolderRecord]) -> tuple[str, ...]:
    names: list[str] = []
    seen: set[str] = set()
    current: FolderRecord | None = record
    while current is not None and current.id not in seen:
        seen.add(current.id)
        names.append(current.name)
        current = by_id.get(current.parent_id)
    return tuple(reversed(names))


def _activity(record: FolderRecord) -> FolderActivity | None:
    if record.changed_at is None or record.deleted is None:
        return None
    return FolderActivity(record.changed_at, record.deleted, record.total)


def _name(folder: Folder) -> str:
    return "/".join(folder.path)
