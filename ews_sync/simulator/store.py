r"""What the simulated Exchange holds: mailboxes, folders and items, in memory, with no HTTP and no XML.

exchange = Exchange()
claims = exchange.create_mailbox("claims@example.com").folder("Inbox", "Claims")
item = claims.deliver(b"Subject: hail\r\n\r\nHello")
item.move(claims.mailbox.folder("Archive"))
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ews_sync.simulator import ids
from ews_sync.simulator.changes import ChangeKind, ChangeLog
from ews_sync.simulator.folder import Folder
from ews_sync.simulator.item import ABSENT, FROM_MIME, Item, KnownItems
from ews_sync.simulator.properties import Address, Properties
from ews_sync.simulator.tree import DEFAULT_TREE, FolderPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["ABSENT", "FROM_MIME", "Address", "Exchange", "Folder", "Item", "Mailbox", "Properties", "utc_now"]


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class Exchange:
    """All the mailboxes of one server.

    `clock` tells the time (aware, UTC); `seed` makes the ids.
    """

    def __init__(self, clock: Callable[[], datetime] = utc_now, seed: int = 0) -> None:
        self.clock = clock
        self.seed = seed
        self.known_items = KnownItems()
        self._created = 0
        self._mailboxes: dict[str, Mailbox] = {}
        self._spaces: dict[str, Mailbox] = {}

    @property
    def mailboxes(self) -> Mapping[str, Mailbox]:
        """The mailboxes by their address, in lower case."""
        return self._mailboxes

    def create_mailbox(self, address: str) -> Mailbox:
        """Make a mailbox with the folders that a new one has.

        Raises:
            ValueError: there is one with this address.

        """
        key = address.casefold()
        if key in self._mailboxes:
            raise ValueError(f"the mailbox {address} exists")
        self._created += 1
        mailbox = Mailbox(self, address, self._created)
        self._mailboxes[key] = self._spaces[mailbox.space] = mailbox
        return mailbox

    def delete_mailbox(self, address: str) -> None:
        """Take a mailbox away with all that is in it; its ids are then unknown."""
        mailbox = self._mailboxes.pop(address.casefold())
        del self._spaces[mailbox.space]

    def mailbox(self, address: str) -> Mailbox | None:
        """Return the mailbox with an address, in whatever case."""
        return self._mailboxes.get(address.casefold())

    def mailbox_of(self, parsed: ids.ParsedId) -> Mailbox | None:
        """Return the mailbox that an id belongs to."""
        return self._spaces.get(parsed.space)


class Mailbox:
    """One mailbox: its tree of folders and, by number, all its items. Made by `Exchange.create_mailbox`."""

    def __init__(self, exchange: Exchange, address: str, number: int) -> None:
        self.exchange = exchange
        self.address = address
        self.number = number
        self.space = ids.mailbox_space(address, exchange.seed)
        self.hierarchy = ChangeLog()
        self.sync_generation = 1
        self.items_by_number: dict[int, Item] = {}
        self.folders_by_number: dict[int, Folder] = {}
        self.distinguished: dict[str, Folder] = {}
        self._change = 0
        self._number = 0
        self._plant(DEFAULT_TREE, None)

    @property
    def root(self) -> Folder:
        """The folder that all others are below of; people never see it."""
        return self.distinguished["root"]

    @property
    def top(self) -> Folder:
        """The folder that people's folders are in (msgfolderroot)."""
        return self.distinguished["msgfolderroot"]

    def folder(self, *path: str, folder_class: str | None = "IPF.Note") -> Folder:
        """Return the folder at a path below the top, made with `folder_class` where it is missing.

        Names are compared without regard to case, as Exchange does.
        """
        here = self.top
        for name in path:
            here = here.child(name) or self.create_folder(here, name, folder_class)
        return here

    def folders(self) -> Iterator[Folder]:
        """Yield people's folders, parents before their children."""
        return self.top.descendants()

    def create_folder(
        self, parent: Folder, name: str, folder_class: str | None = "IPF.Note", *, is_search: bool = False
    ) -> Folder:
        """Make a folder in `parent`."""
        folder = Folder(self, self.next_number(), name, folder_class, is_search=is_search)
        self.folders_by_number[folder.number] = folder
        parent.attach(folder)
        self.hierarchy_changed(folder, ChangeKind.CREATE)
        return folder

    def forget_sync_states(self) -> None:
        """Make every sync state given out so far invalid, as after a restore from a backup."""
        self.sync_generation += 1

    def items(self) -> Iterator[Item]:
        """Yield all items of the mailbox, in no particular order."""
        return iter(self.items_by_number.values())

    def next_number(self) -> int:
        """Return a number that nothing in this mailbox has had."""
        self._number += 1
        return self._number

    def next_change(self) -> int:
        """Return the number of one more change in this mailbox."""
        self._change += 1
        return self._change

    def hierarchy_changed(self, folder: Folder, kind: ChangeKind) -> None:
        """Write down that a folder was made, changed or taken away."""
        folder.change = self.next_change()
        position = self.hierarchy.append(folder.number, kind)
        if kind is ChangeKind.CREATE:
            folder.created_position = position

    def _plant(self, plans: tuple[FolderPlan, ...], parent: Folder | None) -> None:
        for plan in plans:
            if parent is None:
                folder = Folder(self, self.next_number(), plan.name, plan.folder_class)
                self.folders_by_number[folder.number] = folder
            else:
                folder = self.create_folder(parent, plan.name, plan.folder_class, is_search=plan.is_search)
            if plan.distinguished:
                folder.distinguished = plan.distinguished
                self.distinguished[plan.distinguished] = folder
            self._plant(plan.children, folder)
