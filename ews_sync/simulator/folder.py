"""A folder: its place in the tree, its items in order, and the log of what happened in it."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ews_sync.simulator import ids
from ews_sync.simulator.changes import ChangeKind, ChangeLog
from ews_sync.simulator.index import SortedIndex
from ews_sync.simulator.item import ABSENT, FROM_MIME, Flag, Given, Item, microseconds, moment
from ews_sync.simulator.properties import Properties, content_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ews_sync.simulator.properties import MimeSource
    from ews_sync.simulator.store import Mailbox

_PROPERTY_NAMES: Final = frozenset(field.name for field in fields(Properties))


class Folder:
    """A folder. Made by `Mailbox.folder` or `Mailbox.create_folder`. Its id stays, wherever it goes."""

    def __init__(
        self, mailbox: Mailbox, number: int, name: str, folder_class: str | None, *, is_search: bool = False
    ) -> None:
        self.mailbox = mailbox
        self.number = number
        self.name = name
        self.folder_class = folder_class
        self.is_search = is_search
        self.distinguished: str | None = None
        self.parent: Folder | None = None
        self.children: list[Folder] = []
        self.index: SortedIndex[Item] = SortedIndex()
        self.log = ChangeLog()
        self.unread = 0
        self.deleted_count = 0
        self.change = 0
        self.created_position = 0
        self._committed = self.now()

    def __repr__(self) -> str:
        return f"<Folder {self.path} of {self.mailbox.address}>"

    def __len__(self) -> int:
        return len(self.index)

    def __bool__(self) -> bool:
        return True  # an empty folder is still a folder

    @property
    def id(self) -> str:
        """The FolderId."""
        return ids.folder_id(self.mailbox.space, self.number)

    @property
    def change_key(self) -> str:
        """The folder's ChangeKey."""
        return ids.change_key(self.mailbox.space, self.change)

    @property
    def path(self) -> str:
        """The names from the top down, with slashes between: Inbox/Claims."""
        if self.parent is None or self.distinguished == "msgfolderroot":
            return ""
        return f"{self.parent.path}/{self.name}".lstrip("/")

    @property
    def local_commit_time_max(self) -> datetime:
        """PidTagLocalCommitTimeMax: when anything in the folder changed last."""
        return moment(self._committed)

    @property
    def is_deleted(self) -> bool:
        """Whether the folder is gone."""
        return self.mailbox.folders_by_number.get(self.number) is not self

    def now(self) -> int:
        """Return the server's time, in microseconds."""
        return microseconds(self.mailbox.exchange.clock())

    def child(self, name: str) -> Folder | None:
        """Return the folder in this one with a name, in whatever case."""
        wanted = name.casefold()
        return next((folder for folder in self.children if folder.name.casefold() == wanted), None)

    def descendants(self) -> Iterator[Folder]:
        """Yield the folders below this one, parents before their children."""
        for folder in list(self.children):
            yield folder
            yield from folder.descendants()

    def items(self) -> Iterator[Item]:
        """Yield the items, oldest received first."""
        return iter(self.index)

    def attach(self, folder: Folder) -> None:
        """Hang a folder into this one, by name. Part of making or moving one."""
        folder.parent = self
        self.children.append(folder)
        self.children.sort(key=lambda child: child.name.casefold())

    def rename(self, name: str) -> None:
        """Give the folder another name."""
        self.name = name
        if self.parent is not None:
            self.parent.children.sort(key=lambda child: child.name.casefold())
        self.mailbox.hierarchy_changed(self, ChangeKind.UPDATE)

    def set_class(self, folder_class: str | None) -> None:
        """Give the folder another class, or none."""
        self.folder_class = folder_class
        self.mailbox.hierarchy_changed(self, ChangeKind.UPDATE)

    def move(self, parent: Folder) -> None:
        """Hang the folder, with all below it, into another one.

        Raises:
            ValueError: the other one lies within this one.

        """
        if parent is self or parent in self.descendants():
            raise ValueError("a folder cannot move into itself")
        if self.parent is not None:
            self.parent.children.remove(self)
        parent.attach(self)
        self.mailbox.hierarchy_changed(self, ChangeKind.UPDATE)

    def delete(self) -> None:
        """Delete the folder for good, with all that is in it. To put it into Deleted Items, move it there."""
        for child in list(self.children):
            child.delete()
        for item in list(self.index):
            self.remove(item)
        if self.parent is not None:
            self.parent.children.remove(self)
        del self.mailbox.folders_by_number[self.number]
        self.mailbox.hierarchy_changed(self, ChangeKind.DELETE)

    def deliver(
        self,
        mime: MimeSource,
        *,
        received: datetime | Literal[Given.ABSENT] | None = None,
        is_read: bool = False,
        is_draft: bool = False,
        categories: tuple[str, ...] = (),
        **properties: Any,  # noqa: ANN401 - checked against the fields of Properties
    ) -> Item:
        """Put a message into the folder.

        `mime` is the message, a function that makes it (always the same bytes, kept nowhere), or a `Content`.
        `received` is now unless given, or ABSENT. `properties` are fields of `Properties` (subject, sent, message_id,
        item_class, size, importance, ...); each one that is not given, or is FROM_MIME, is what the message says, and
        None or ABSENT leaves it out.

        Raises:
            TypeError: there is no such property.

        """
        overrides = []
        for name, value in properties.items():
            if name not in _PROPERTY_NAMES:
                raise TypeError(f"an item has no property {name!r}")
            if value is not FROM_MIME:
                value = None if value is ABSENT else value  # noqa: PLW2901 - what is stored is what is meant
                overrides.append((name, value.astimezone(UTC) if isinstance(value, datetime) else value))
        content = content_of(mime)
        when = None if received is ABSENT else self.now() if received is None else microseconds(received)
        item = Item(self, content, when, tuple(overrides))
        item.flags = (Flag.READ if is_read else 0) | (Flag.DRAFT if is_draft else 0)
        item.categories = categories
        self.add(item)
        return item

    def add(self, item: Item) -> None:
        """Put an item in. Part of delivering, moving and copying one."""
        self.mailbox.items_by_number[item.number] = item
        self.index.add(item)
        if not item.flags & Flag.READ:
            self.unread += 1
        self.changed(item, ChangeKind.CREATE)

    def remove(self, item: Item) -> None:
        """Take an item out. Part of deleting and moving one.

        Raises:
            KeyError: it is not in the folder.

        """
        if item.is_deleted:
            raise KeyError(item.id)
        self.index.remove(item)
        del self.mailbox.items_by_number[item.number]
        self.deleted_count += 1
        if not item.flags & Flag.READ:
            self.unread -= 1
        self.changed(item, ChangeKind.DELETE)

    def changed(self, item: Item, kind: ChangeKind) -> None:
        """Write down what happened to an item."""
        now = self.now()
        position = self.log.append(item.number, kind)
        item.change = self.mailbox.next_change()
        if kind is ChangeKind.CREATE:
            item.created_position = position
        else:
            item.modified_at = now
        # Clocks can go back; the time of the last change must not.
        self._committed = max(self._committed, now)

    def count_unread(self, difference: int) -> None:
        """Count unread items up or down. Part of marking one as read."""
        self.unread += difference
