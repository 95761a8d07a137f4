"""One thing in a folder. There can be millions, so it holds little; what its message says is looked up when needed."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from ews_sync.simulator import ids, parts
from ews_sync.simulator.changes import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.parts import Attachment
    from ews_sync.simulator.properties import Content, Properties

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BIAS: Final = 1 << 62
_NUMBER_BITS: Final = 40


class Given(Enum):
    """Says something about a property instead of giving its value."""

    ABSENT = "absent"
    FROM_MIME = "from the message"


ABSENT: Final = Given.ABSENT
"""The item is to have no such property."""
FROM_MIME: Final = Given.FROM_MIME
"""The property is to be what the message's headers say."""


class Flag:
    """The states of an item that are on or off, as bits. Plain numbers: every answer looks at some of each item."""

    READ: Final = 1
    DRAFT: Final = 2
    SUBMITTED: Final = 4
    FROM_ME: Final = 8


def microseconds(moment: datetime) -> int:
    """Return a moment as whole microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """Return the moment that lies this many microseconds after the beginning of 1970."""
    return _EPOCH + value * _MICROSECOND


def received_key(received: int | None) -> int:
    """Return the smallest sort key that an item received at this time (microseconds) can have."""
    return 0 if received is None else received + _BIAS << _NUMBER_BITS


class Item:
    """An item. Made by `Folder.deliver`.

    `number` is unique in the mailbox and never used again; `origin` is the number of the first item of which this one
    is a copy, or which it was before it moved. Times are in microseconds since 1970; `received` can be missing.
    """

    __slots__ = (
        "_attachments",
        "_item_class",
        "_properties",
        "_received",
        "categories",
        "change",
        "content",
        "created_at",
        "created_position",
        "flags",
        "folder",
        "modified_at",
        "number",
        "origin",
        "overrides",
    )

    def __init__(
        self, folder: Folder, content: Content, received: int | None, overrides: tuple[tuple[str, Any], ...]
    ) -> None:
        self.folder = folder
        self.content = content
        self.overrides = overrides
        self.number = folder.mailbox.next_number()
        self.origin = self.number
        self.created_at = folder.now()
        self.modified_at = self.created_at
        self.created_position = 0
        self.change = 0
        self.flags = 0
        self.categories: tuple[str, ...] = ()
        self._received = received
        self._item_class: str | None = None
        self._properties: Properties | None = None
        self._attachments: tuple[Attachment, ...] | None = None

    def __repr__(self) -> str:
        return f"<Item {self.number} in {self.folder.path}>"

    @property
    def id(self) -> str:
        """The ItemId. It changes when the item moves."""
        return ids.item_id(self.folder.mailbox.space, self.number)

    @property
    def change_key(self) -> str:
        """The ChangeKey. It changes with the item."""
        return ids.change_key(self.folder.mailbox.space, self.change)

    @property
    def sort_key(self) -> int:
        """The place in the order of received times; without one, before all others."""
        return received_key(self._received) | self.number

    @property
    def search_key(self) -> bytes:
        """PidTagSearchKey: 16 bytes that stay when the item moves, and that its copies share."""
        return hashlib.md5(f"{self.folder.mailbox.space}{self.origin}".encode(), usedforsecurity=False).digest()

    @property
    def received(self) -> datetime | None:
        """When it arrived, with microseconds. On the wire it has whole seconds."""
        return None if self._received is None else moment(self._received)

    @property
    def created(self) -> datetime:
        """When it was made in this mailbox."""
        return moment(self.created_at)

    @property
    def modified(self) -> datetime:
        """When it was changed last."""
        return moment(self.modified_at)

    @property
    def properties(self) -> Properties:
        """What it is: known from the last time, or parsed from its message. It stays the same while the item is."""
        if self._properties is None:
            known = self.content.properties()
            self._properties = replace(known, **dict(self.overrides)) if self.overrides else known
            self.folder.mailbox.exchange.known_items.add(self)
        return self._properties

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What is attached to its message; like `properties`, and known as long as they are."""
        if self._attachments is None:
            _ = self.properties  # so that both are forgotten together
            self._attachments = parts.attachments(self.content.mime())
        return self._attachments

    @property
    def item_class(self) -> str:
        """What kind of thing it is."""
        # Every answer needs it, and no two items' messages need to be looked into for it twice.
        if self._item_class is None:
            given = dict(self.overrides).get("item_class")
            self._item_class = sys.intern(str(given or self.properties.item_class))
        return self._item_class

    @property
    def is_read(self) -> bool:
        """Whether it has been read."""
        return bool(self.flags & Flag.READ)

    @property
    def is_draft(self) -> bool:
        """Whether it has not been sent yet."""
        return bool(self.flags & Flag.DRAFT)

    @property
    def is_deleted(self) -> bool:
        """Whether it is no longer in its folder: deleted, or moved, and then another item stands for it."""
        return self.folder.mailbox.items_by_number.get(self.number) is not self

    def mime(self) -> bytes:
        """Return the message: the same bytes each time."""
        return self.content.mime()

    def move(self, folder: Folder) -> Item:
        """Move it. Return the item that stands for it from now on, with a new id; this one is gone."""
        moved = self._clone(folder)
        self.folder.remove(self)
        folder.add(moved)
        return moved

    def copy(self, folder: Folder) -> Item:
        """Copy it. The copy shares the search key and the Message-ID."""
        copied = self._clone(folder)
        folder.add(copied)
        return copied

    def delete(self) -> None:
        """Delete it for good. To put it into Deleted Items, move it there."""
        self.folder.remove(self)

    def set_read(self, is_read: bool = True) -> None:  # noqa: FBT001, FBT002 - the name says what it is
        """Mark it as read or unread. No change if it is so already."""
        if self.is_read != is_read:
            self.flags ^= Flag.READ
            self.folder.count_unread(-1 if is_read else 1)
            self.folder.changed(self, ChangeKind.READ_FLAG)

    def set_categories(self, categories: Iterable[str]) -> None:
        """Give it other categories: an update."""
        self.categories = tuple(categories)
        self.folder.changed(self, ChangeKind.UPDATE)

    def touch(self) -> None:
        """Change something that the simulator does not model: an update."""
        self.folder.changed(self, ChangeKind.UPDATE)

    def send(self) -> Item:
        """Send a draft as Exchange does: it moves to Sent Items, where it has a new id and is received now."""
        sent = self._clone(self.folder.mailbox.distinguished["sentitems"])
        sent.flags = self.flags & ~Flag.DRAFT | Flag.SUBMITTED | Flag.FROM_ME | Flag.READ
        sent._received = sent.created_at  # noqa: SLF001 - an item of our own
        self.folder.remove(self)
        sent.folder.add(sent)
        return sent

    def send_in_place(self) -> None:
        """Send a draft as some other servers do: it stays where it is, with its id, and is no draft any more."""
        self.flags = self.flags & ~Flag.DRAFT | Flag.SUBMITTED | Flag.FROM_ME
        self.folder.changed(self, ChangeKind.UPDATE)

    def forget(self) -> None:
        """Let go of what can be read from the message again."""
        self._properties = self._attachments = None

    def _clone(self, folder: Folder) -> Item:
        if folder.mailbox is not self.folder.mailbox:
            raise ValueError("items cannot move between mailboxes")
        clone = Item(folder, self.content, self._received, self.overrides)
        clone.origin = self.origin
        clone.flags = self.flags
        clone.categories = self.categories
        return clone


class KnownItems:
    """The items whose messages were looked into last: the others forget what their messages say."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._capacity = capacity
        self._items: deque[Item] = deque()

    def add(self, item: Item) -> None:
        """Take in an item that has just been looked into, and let another forget if there are too many."""
        self._items.append(item)
        if len(self._items) > self._capacity:
            self._items.popleft().forget()
