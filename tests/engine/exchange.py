"""A small honest Exchange in memory: what the engine is told, and how the mail changes under its hands.

Ids change when an item moves; refs have whole seconds while the store keeps microseconds; pages come as long as the
server likes; the change feed tells of an item as it is now, and of one that came and went not at all; cursors can be
forgotten; every call can be held up or fail.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ews_sync.errors import CursorRejectedError, FolderGoneError
from ews_sync.model import (
    Change,
    ChangeKind,
    ChangePage,
    DeadLetter,
    Email,
    Fetched,
    Folder,
    FolderActivity,
    ItemRef,
    ListPage,
    Metadata,
    Order,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from datetime import datetime

    from ews_sync.model import Clock, Mailbox


@dataclass(slots=True)
class Item:
    """One item. `name` is its Message-ID, and stays."""

    name: str
    received: datetime | None
    created: datetime | None = None
    is_draft: bool = False
    is_mail: bool = True
    size: int = 1000
    dead: str = ""
    """A code that the server answers instead of the message."""
    version: int = 0
    """How often its text was changed: drafts are written on until they are sent."""

    @property
    def text(self) -> bytes:
        """The message."""
        return (f"{self.name} in full" + (f", version {self.version}" if self.version else "")).encode()


@dataclass(slots=True)
class FolderStore:
    """One folder: its items by id, and everything that happened in it."""

    id: str
    path: tuple[str, ...]
    items: dict[str, Item] = field(default_factory=dict)
    log: list[tuple[ChangeKind, str]] = field(default_factory=list)
    generation: int = 0
    deleted: int = 0
    changed_at: str = ""


class OpenMail:
    """How many messages are open: each must be closed by somebody."""

    def __init__(self) -> None:
        self.count = 0


class TrackedMime:
    """A message that must be closed."""

    def __init__(self, data: bytes, opened: OpenMail) -> None:
        self._data = data
        self._opened = opened
        self._closed = False
        opened.count += 1

    @property
    def size(self) -> int:
        return len(self._data)

    def chunks(self) -> Iterator[bytes]:
        assert not self._closed
        yield self._data

    def read(self, start: int, size: int) -> bytes:
        assert not self._closed
        return self._data[start : start + size]

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._opened.count -= 1


class Exchange:
    """The server's side: mailboxes, folders and what people do in them."""

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self.clock = clock
        self.random = random.Random(seed)
        self.mailboxes: dict[str, dict[str, FolderStore]] = {}
        self.page_size = 250
        self.feed_size = 512
        self.feed_tells: Callable[[ItemRef], ItemRef | None] = lambda ref: ref
        """What the feed says of an item that the listing says more of; None where it leaves it out."""
        self.activity = True
        self._ids = 0

    def folder(self, path: str, mailbox: str = "a@x") -> FolderStore:
        """Give the folder at a path, making it where it is missing."""
        folders = self.mailboxes.setdefault(mailbox, {})
        names = tuple(path.split("/"))
        for store in folders.values():
            if store.path == names:
                return store
        self._ids += 1
        store = folders[f"f{self._ids}"] = FolderStore(f"f{self._ids}", names)
        return store

    def remove_folder(self, store: FolderStore, mailbox: str = "a@x") -> None:
        del self.mailboxes[mailbox][store.id]

    def add(self, store: FolderStore, item: Item) -> str:
        """Put an item into a folder; gives its id."""
        self._ids += 1
        item_id = f"i{self._ids}"
        if item.created is None:
            item.created = item.received
        store.items[item_id] = item
        self._happened(store, ChangeKind.CREATED, item_id)
        return item_id

    def remove(self, store: FolderStore, item_id: str) -> Item:
        item = store.items.pop(item_id)
        store.deleted += 1
        self._happened(store, ChangeKind.DELETED, item_id)
        return item

    def move(self, store: FolderStore, item_id: str, target: FolderStore) -> str:
        return self.add(target, self.remove(store, item_id))

    def update(self, store: FolderStore, item_id: str, kind: ChangeKind = ChangeKind.UPDATED) -> None:
        self._happened(store, kind, item_id)

    def send(self, store: FolderStore, item_id: str) -> None:
        """Send a draft where it lies."""
        item = store.items[item_id]
        item.is_draft = False
        item.received = self.clock.now()
        self.update(store, item_id)

    def forget_cursors(self) -> None:
        for folders in self.mailboxes.values():
            for store in folders.values():
                store.generation += 1

    def _happened(self, store: FolderStore, kind: ChangeKind, item_id: str) -> None:
        store.log.append((kind, item_id))
        store.changed_at = self.clock.now().replace(microsecond=0).isoformat()


class ExchangeSource:
    """A `Source` over an `Exchange`.

    `calls` are what was asked, `before` is awaited ahead of every answer (to fail, to wait, or to change things).
    """

    def __init__(self, exchange: Exchange, clock: Clock) -> None:
        self.exchange = exchange
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.before: Callable[[str, Folder | None], Awaitable[None]] | None = None
        self.latency = 0.01
        self.jitter = 0.0
        self.opened = OpenMail()
        self.fetched: list[str] = []
        self._clock = clock

    async def folders(self, mailbox: Mailbox) -> Sequence[Folder]:
        await self._called("folders", None)
        folders = self.exchange.mailboxes.get(mailbox.address, {})
        return [
            Folder(
                store.id,
                store.path,
                len(store.items),
                FolderActivity(store.changed_at, str(store.deleted), len(store.items))
                if self.exchange.activity
                else None,
            )
            for store in folders.values()
        ]

    async def changes(
        self, mailbox: Mailbox, folder: Folder, cursor: str | None, *, limit: int | None = None, ids_only: bool = False
    ) -> ChangePage:
        await self._called("changes", folder)
        store = self._store(mailbox, folder)
        position = 0
        if cursor is not None:
            generation, _, at = cursor.partition(":")
            if int(generation) != store.generation:
                raise CursorRejectedError("the server has forgotten the position", code="ErrorInvalidSyncStateData")
            position = int(at)
        changes: list[Change] = []
        told: set[str] = set()
        came_and_went = {name for kind, name in store.log[position:] if kind is ChangeKind.CREATED}
        most = min(limit or self.exchange.feed_size, self.exchange.feed_size)
        while position < len(store.log) and len(changes) < most:
            kind, item_id = store.log[position]
            position += 1
            item = store.items.get(item_id)
            if item is None:
                if kind is ChangeKind.DELETED and item_id not in came_and_went:
                    changes.append(Change(kind, ItemRef(item_id)))
            elif item_id not in told:
                told.add(item_id)
                ref = self.exchange.feed_tells(ItemRef(item_id) if ids_only else ref_of(item_id, item))
                if ref is not None:
                    changes.append(Change(kind, ref))
        return ChangePage(tuple(changes), f"{store.generation}:{position}", position == len(store.log))

    async def items(
        self, mailbox: Mailbox, folder: Folder, *, order: Order, since: datetime | None, offset: int = 0
    ) -> ListPage:
        await self._called("items", folder)
        store = self._store(mailbox, folder)
        found = []
        for item_id, item in store.items.items():
            moment = item.received if order is Order.RECEIVED else item.created
            if moment is None or (order is Order.CREATED and item.received is not None):
                continue
            if since is None or moment >= since.replace(microsecond=0):
                found.append((moment, item_id, item))
        found.sort(key=lambda entry: entry[:2])
        size = self.exchange.random.randint(1, self.exchange.page_size) if self.jitter else self.exchange.page_size
        page = found[offset : offset + size]
        return ListPage(
            tuple(ref_of(item_id, item) for _, item_id, item in page), offset + len(page) >= len(found), len(found)
        )

    async def newest(self, mailbox: Mailbox, folder: Folder) -> datetime | None:
        await self._called("newest", folder)
        times = [item.received for item in self._store(mailbox, folder).items.values() if item.received is not None]
        return max(times).replace(microsecond=0) if times else None

    async def fetch(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
        await self._called("fetch", folder)
        store = self._store(mailbox, folder)
        return [self._fetched(mailbox, store, ref) for ref in refs]

    async def aclose(self) -> None:
        pass

    def count(self, name: str) -> int:
        return sum(1 for call, _ in self.calls if call == name)

    def _fetched(self, mailbox: Mailbox, store: FolderStore, ref: ItemRef) -> Fetched:
        item = store.items.get(ref.id)
        if item is None or not item.is_mail:
            return Fetched(ref)
        if item.is_draft:
            return Fetched(ref, draft=True)
        self.fetched.append(item.name)
        if item.dead:
            return Fetched(ref, dead_letter=DeadLetter(mailbox, ref.id, store.path, item.dead, "broken", item.name))
        moment = item.received or item.created
        assert moment is not None
        email = Email(
            item.name,
            mailbox,
            moment,
            TrackedMime(item.text, self.opened),
            Metadata(store.path, received_at=item.received),
            item_id=ref.id,
        )
        return Fetched(ref, email=email)

    def _store(self, mailbox: Mailbox, folder: Folder) -> FolderStore:
        store = self.exchange.mailboxes.get(mailbox.address, {}).get(folder.id)
        if store is None:
            raise FolderGoneError("the folder is gone", code="ErrorFolderNotFound")
        return store

    async def _called(self, name: str, folder: Folder | None) -> None:
        self.calls.append((name, () if folder is None else folder.path))
        if self.latency:
            await self._clock.sleep(self.latency + self.exchange.random.random() * self.jitter)
        if self.before is not None:
            await self.before(name, folder)


def ref_of(item_id: str, item: Item) -> ItemRef:
    """Tell of an item as the server does."""
    return ItemRef(
        item_id,
        received=second_of(item.received),
        created=second_of(item.created),
        size=item.size,
        is_mail=item.is_mail,
        is_draft=item.is_draft,
        email_id=item.name,
        sent=second_of(item.received),
    )


def second_of(moment: datetime | None) -> datetime | None:
    """Give a time as the server tells it: in whole seconds."""
    return None if moment is None else moment.replace(microsecond=0)


def copy_of(item: Item, name: str) -> Item:
    """Give another item like this one."""
    return replace(item, name=name)
