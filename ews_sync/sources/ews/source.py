"""Exchange as a source: folders, change feeds, listings, and fetching, over the EWS client."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from ews_sync.errors import CursorRejectedError, FolderGoneError, ProtocolError, Scope, ThrottledError
from ews_sync.model import Change, ChangeKind, ChangePage, Folder, FolderActivity, ListPage, Order
from ews_sync.sources.ews.client import Call
from ews_sync.sources.ews.codes import NO_ERROR, error_for, meaning_of
from ews_sync.sources.ews.decoding import AnswerReader
from ews_sync.sources.ews.encoding import NOT_XML, encode
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
from ews_sync.sources.ews.outcomes import properties
from ews_sync.sources.ews.repeats import RepeatReader
from ews_sync.sources.ews.spool import SpoolError, SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from ews_sync.model import Clock, Fetched, ItemRef, Mailbox
    from ews_sync.sources.ews.client import Client
    from ews_sync.sources.ews.mime import MimeWriter
    from ews_sync.sources.ews.repeats import Answered

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
_PATIENCE = 30.0
"""Seconds that a listing, or a request for messages, waits for a server that wants to be left alone: others may be
waiting for the turn that is held for the one, or the memory that is reserved for the other."""
_MAX_FOLDERS = 100_000
_MAX_MESSAGES_ANSWER = 4 * 1024**3
"""Bytes of an answer with messages: base64 of the 2 GB that Exchange takes at most, and room besides."""


@dataclass(frozen=True, slots=True)
class _KnownFolders:
    """What was made of a mailbox's list of folders, and the digest of the answer that it was made of."""

    digest: bytes
    folders: tuple[Folder, ...]


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
        self._hydrator = Hydrator(clock, self._ask_items, self.newest)
        self._without_undated = False
        self._known: dict[str, _KnownFolders] = {}
        """By mailbox; as many as the config has, and little besides the folders that the engine keeps anyway."""
        self._log = structlog.get_logger("ews_sync.ews")

    # --- Source ------------------------------------------------------------------------------------------------------

    async def folders(self, mailbox: Mailbox) -> Sequence[Folder]:
        """List the mailbox's mail folders; one request for up to 1000 of them.

        Gives the very same ones as the last time when the server's answer is the same, byte for byte.
        """
        try:
            return await self._find_folders(mailbox)
        except ProtocolError as error:
            if error.code not in _REFUSED_REQUEST:
                raise
            return _mail_folders(await self._sync_hierarchy(mailbox))

    async def changes(
        self, mailbox: Mailbox, folder: Folder, cursor: str | None, *, limit: int | None = None, ids_only: bool = False
    ) -> ChangePage:
        """Give the next page of SyncFolderItems."""
        size = MAX_CHANGES_RETURNED if limit is None else max(1, min(limit, MAX_CHANGES_RETURNED))
        operation = SyncFolderItems(folder.id, cursor, limit=size, ids_only=ids_only)
        doing = f"reading the changes of {_name(folder)} in {mailbox.address}"
        try:
            message = await self._ask_one(operation, mailbox, doing)
        except ProtocolError as error:
            if error.code != NOT_XML or cursor is None:
                raise
            raise CursorRejectedError(f"{doing}: the position is damaged") from error
        if message.sync_state is None:
            raise ProtocolError(f"{doing}: the answer has no SyncState")
        last = message.last if message.last is not None else not message.changes
        if not last and message.sync_state == cursor:
            raise ProtocolError(f"{doing}: the server goes round in circles")
        changes = tuple(
            Change(_KINDS[change.kind], change.ref)
            for change in message.changes
            if change.ref is not None and change.kind in _KINDS
        )
        return ChangePage(changes, message.sync_state, last)

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
        refs = tuple(item.ref for item in message.items if item.ref.id)
        return ListPage(refs, _is_last(message, offset), message.total)

    async def newest(self, mailbox: Mailbox, folder: Folder) -> datetime | None:
        """Ask for the one item received last."""
        operation = FindItem(folder.id, Order.RECEIVED, limit=1, descending=True)
        message = await self._ask_one(
            operation, mailbox, f"looking for the newest item of {_name(folder)} in {mailbox.address}"
        )
        return message.items[0].ref.received if message.items else None

    async def fetch(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
        """Fetch items with their MIME; see `Hydrator` for what becomes of those that fail."""
        try:
            return await self._hydrator.fetch(mailbox, folder, refs)
        except SpoolError as error:
            # Neither the server nor the items: but the folders without large messages can go on.
            error.scope = Scope.FOLDER
            raise

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def probe(self, mailbox: Mailbox) -> None:
        """Prove with one small request that the mailbox can be read."""
        await self._ask_one(GetFolder(), mailbox, f"opening {mailbox.address}")

    # --- Requests ----------------------------------------------------------------------------------------------------

    async def _ask(self, operation: Operation, mailbox: Mailbox, doing: str) -> tuple[ResponseMessage, ...]:
        call = self._call(operation, mailbox, doing)
        answer = await self._client.send(
            call, lambda: AnswerReader(doing, self._new_writer), lambda answer: _throttling(answer.messages, doing)
        )
        return answer.messages

    async def _ask_one(self, operation: Operation, mailbox: Mailbox, doing: str) -> ResponseMessage:
        """Ask what is answered with a single response message, and raise what its code asks for."""
        call = self._call(operation, mailbox, doing)
        of_folder = isinstance(operation, FindItem | SyncFolderItems)
        return await self._client.send(
            call,
            lambda: _SingleReader(doing, self._new_writer, of_folder=of_folder),
            lambda message: _throttling([message], doing),
        )

    def _call(self, operation: Operation, mailbox: Mailbox, doing: str) -> Call:
        with_mime = isinstance(operation, GetItem) and operation.with_mime
        call = Call(
            doing,
            encode(operation, Access(mailbox.address, self._impersonate)),
            principal=self._principal(mailbox),
            anchor=mailbox.address if self._impersonate else None,
            # Base64 of mail hardly shrinks, and inflating it costs more than it saves.
            compressed=not with_mime,
            operation=type(operation).__name__,
        )
        if isinstance(operation, GetItem | FindItem):
            call = replace(call, patience=_PATIENCE, for_messages=isinstance(operation, GetItem))
        if isinstance(operation, GetItem) and with_mime:
            # One item can spoil a batch, and each attempt may take minutes: have it divided soon.
            attempts = 2 if len(operation.item_ids) > 1 else call.attempts
            call = replace(call, max_answer=_MAX_MESSAGES_ANSWER, attempts=attempts)
        return call

    def _principal(self, mailbox: Mailbox) -> str:
        """Name whom the server charges: the impersonated mailbox, else the account."""
        return mailbox.address.lower() if self._impersonate else self._account

    async def _ask_items(
        self, mailbox: Mailbox, item_ids: Sequence[str], *, with_mime: bool, with_search_key: bool = True
    ) -> tuple[ResponseMessage, ...]:
        doing = f"fetching {len(item_ids)} item(s) of {mailbox.address}"
        return await self._ask(GetItem(tuple(item_ids), with_mime, with_search_key), mailbox, doing)

    async def _find_folders(self, mailbox: Mailbox) -> tuple[Folder, ...]:
        doing = f"listing the folders of {mailbox.address}"
        known = self._known.get(mailbox.address)
        first = await self._look(mailbox, doing, None if known is None else known.digest)
        if first.value is None:
            assert known is not None  # noqa: S101 - for the type checker
            return known.folders
        self._known.pop(mailbox.address, None)
        records = {record.id: record for record in first.value.folders if record.id}
        if not _is_last(first.value, 0):
            await self._find_more_folders(mailbox, doing, records)
            return _mail_folders(list(records.values()))
        # Those that stay the same are everywhere in memory already, with thousands of mailboxes.
        same = {} if known is None else {folder.id: folder for folder in known.folders}
        found = _mail_folders(list(records.values()))
        folders = tuple(same[folder.id] if same.get(folder.id) == folder else folder for folder in found)
        if first.digest is not None and _throttling([first.value], doing) is None:
            self._known[mailbox.address] = _KnownFolders(first.digest, folders)
        return folders

    async def _look(self, mailbox: Mailbox, doing: str, known: bytes | None) -> Answered[ResponseMessage]:
        """Ask for the first page of the folders. All that a quiet mailbox costs is here."""
        return await self._client.send(
            self._call(FindFolder(), mailbox, doing),
            lambda: RepeatReader(lambda: _SingleReader(doing, self._new_writer, of_folder=False), known),
            # What is remembered did not say that the server was busy.
            lambda answered: None if answered.value is None else _throttling([answered.value], doing),
        )

    async def _find_more_folders(self, mailbox: Mailbox, doing: str, records: dict[str, FolderRecord]) -> None:
        """Read the pages behind the first one."""
        before = 0
        while before < len(records) < _MAX_FOLDERS:
            before = len(records)
            message = await self._ask_one(FindFolder(offset=before), mailbox, doing)
            records.update((record.id, record) for record in message.folders if record.id)
            if _is_last(message, before):
                return
        raise ProtocolError(f"{doing}: the list does not end")

    async def _sync_hierarchy(self, mailbox: Mailbox) -> list[FolderRecord]:
        records: dict[str, FolderRecord] = {}
        state: str | None = None
        doing = f"listing the folders of {mailbox.address}"
        while len(records) < _MAX_FOLDERS:
            message = await self._ask_one(SyncFolderHierarchy(state), mailbox, doing)
            for change in message.changes:
                if change.folder is not None and change.kind in {"Create", "Update"}:
                    records[change.folder.id] = change.folder
                elif change.folder is not None and change.kind == "Delete":
                    records.pop(change.folder.id, None)
            last = message.last if message.last is not None else not message.changes
            if last or message.sync_state is None:
                return list(records.values())
            if message.sync_state == state:
                break
            state = message.sync_state
        raise ProtocolError(f"{doing}: the list does not end")


class _SingleReader:
    """Reads an answer with a single response message: gives it, or raises what its code asks for.

    With `of_folder` an object that is not found is the folder that was asked about.
    """

    def __init__(self, doing: str, new_writer: Callable[[], MimeWriter], *, of_folder: bool) -> None:
        self._doing = doing
        self._of_folder = of_folder
        self._reader = AnswerReader(doing, new_writer)
        self.feed = self._reader.feed
        self.discard = self._reader.discard

    def close(self) -> ResponseMessage:
        messages = self._reader.close().messages
        # Nothing here was asked for with its message.
        properties(messages)
        if not messages:
            raise ProtocolError(f"{self._doing}: the answer has no response message")
        message = messages[0]
        if message.code in {NO_ERROR, ""}:
            return message
        if self._of_folder and meaning_of(message.code).gone:
            raise FolderGoneError(f"{self._doing}: the server answered {message.code}", code=message.code)
        raise error_for(message.code, message.text, doing=self._doing, backoff=message.backoff)


def _throttling(messages: Sequence[ResponseMessage], doing: str) -> ThrottledError | None:
    """Find in an answer with HTTP status 200 that the principal is to be left alone, for the longest time asked for."""
    backoffs = [message.backoff for message in messages if message.backoff is not None]
    busy = [message.code for message in messages if meaning_of(message.code).throttles]
    if not backoffs and not busy:
        return None
    return ThrottledError(
        f"{doing}: the server is busy", code=next(iter(busy), ""), retry_after=max(backoffs, default=None)
    )


def _is_last(message: ResponseMessage, offset: int) -> bool:
    """Tell whether a page of FindItem or FindFolder is the last, also where the server does not say."""
    if message.last is not None:
        return message.last
    count = len(message.items) + len(message.folders)
    return count == 0 or (message.total is not None and offset + count >= message.total)


def _mail_folders(records: Sequence[FolderRecord]) -> tuple[Folder, ...]:
    """Keep the folders for mail (class IPF.Note or below, or none), each with its path from the visible root down."""
    by_id = {record.id: record for record in records}
    return tuple(
        Folder(record.id, _path(record, by_id), record.total, _activity(record))
        for record in by_id.values()
        if record.element == "Folder" and _is_mail_folder(record.folder_class)
    )


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
