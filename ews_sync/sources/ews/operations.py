"""The EWS operations that the appliance uses, as values: what is asked, and what is answered.

Names are those of Microsoft's EWS reference. What turns them into bytes and back is in `encoding` and `decoding`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from ews_sync.model import Attachment, ItemRef, Mime, Order

MAX_CHANGES_RETURNED = 512
"""The largest MaxChangesReturned that SyncFolderItems takes (messages.xsd)."""

FIND_PAGE = 250
"""EWSFindCountLimit of Exchange 2013 and later where there is a restriction: asking for more brings no more."""


@dataclass(frozen=True, slots=True)
class Access:
    """On whose behalf a request is made.

    A mailbox, reached by impersonation (a SOAP header) or as a delegate (in the folder id).
    """

    mailbox: str
    impersonate: bool


# --- Requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindFolder:
    """All folders below the mailbox's visible root, with what tells whether they changed. `offset` pages."""

    offset: int = 0
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class GetFolder:
    """The mailbox's visible root: the cheapest proof that the mailbox can be read."""


@dataclass(frozen=True, slots=True)
class SyncFolderHierarchy:
    """The folders as changes since `sync_state`; the other way to list them where FindFolder is refused."""

    sync_state: str | None = None


@dataclass(frozen=True, slots=True)
class FindItem:
    """Items of a folder, oldest first by `order`, from `since` on.

    With `Order.CREATED`: only items without a received time. `descending` turns the order around.
    """

    folder_id: str
    order: Order
    since: datetime | None = None
    offset: int = 0
    limit: int = FIND_PAGE
    descending: bool = False


@dataclass(frozen=True, slots=True)
class SyncFolderItems:
    """The changes of a folder behind `sync_state`. `ids_only` asks for no property at all."""

    folder_id: str
    sync_state: str | None = None
    limit: int = MAX_CHANGES_RETURNED
    ids_only: bool = False


@dataclass(frozen=True, slots=True)
class GetItem:
    """Items by id, with everything that is stored of an email; without the message itself when `with_mime` is False.

    `with_search_key` is for items of which nothing else is known by which they could be named.
    """

    item_ids: tuple[str, ...]
    with_mime: bool = True
    with_search_key: bool = True


Operation = FindFolder | GetFolder | SyncFolderHierarchy | FindItem | SyncFolderItems | GetItem


# --- Answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """A folder as the server lists it.

    `element` is the kind of element that it came in (`Folder`, `CalendarFolder`, …).
    """

    id: str
    parent_id: str
    name: str
    element: str
    folder_class: str | None = None
    total: int = 0
    changed_at: str | None = None
    deleted: str | None = None


@dataclass(slots=True)
class ItemRecord:
    """An item with its properties, as the server gave them: None or empty where it did not.

    There is one for each email and each line of a listing. It is not frozen, as that costs as much as all the rest of
    making it; nobody changes it.
    """

    ref: ItemRef
    item_class: str | None = None
    search_key: str | None = None
    mime: Mime | None = None
    mime_damaged: bool = False
    sensitivity: str | None = None
    importance: str | None = None
    categories: tuple[str, ...] = ()
    has_attachments: bool | None = None
    conversation_id: str | None = None
    conversation_topic: str | None = None
    is_read: bool | None = None
    has_size: bool = False
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One entry of SyncFolderItems or SyncFolderHierarchy.

    `kind` is `Create`, `Update`, `Delete` or `ReadFlagChange`.
    """

    kind: str
    ref: ItemRef | None = None
    folder: FolderRecord | None = None


@dataclass(slots=True)
class ResponseMessage:
    """One response message of an answer: its code, its fields, and the records in it, in their order.

    `code` is `NoError` or the server's code verbatim; `backoff` is `BackOffMilliseconds` in seconds, None where absent.
    `last` is IncludesLastItemInRange or IncludesLastFolderInRange, None where the server does not say.
    """

    response_class: str = "Success"
    code: str = "NoError"
    text: str = ""
    backoff: float | None = None
    sync_state: str | None = None
    last: bool | None = None
    total: int | None = None
    folders: list[FolderRecord] = field(default_factory=list)
    items: list[ItemRecord] = field(default_factory=list)
    changes: list[ChangeRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: its response messages in order, and the server's version where it told."""

    messages: tuple[ResponseMessage, ...]
    server_version: str = ""
