"""What people do with their mail, and what is the matter with it."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.engine.exchange import FolderStore, Item, second_of
from tests.engine.world import LONG_AGO
from tests.simulation.storage import INDIGESTIBLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.model import Clock
    from tests.simulation.history import History
    from tests.simulation.plan import Plan
    from tests.simulation.server import SimulatedExchange

INBOX = "Inbox"
"""A folder that stays where it is."""
UNWANTED = "Unwanted"
"""A folder that the config denies, where the plan has one."""


class People:
    """Those whose mailboxes they are. Each act takes its details from a seed."""

    def __init__(
        self, plan: Plan, exchange: SimulatedExchange, addresses: tuple[str, ...], clock: Clock, history: History
    ) -> None:
        self._plan = plan
        self._exchange = exchange
        self._addresses = addresses
        self._clock = clock
        self._history = history
        self._names = 0

    def move_in(self) -> None:
        """Have what was there before anything runs."""
        dice = random.Random(self._plan.seed)
        names = [INBOX, "Claims", "Archive/2023"][: self._plan.folders]
        if self._plan.unwanted:
            names.append(UNWANTED)
        for address in self._addresses:
            for name in names:
                folder = self._exchange.folder(name, address)
                for number in range(dice.randrange(self._plan.old_mail + 1)):
                    moment = LONG_AGO + timedelta(seconds=number * self._plan.apart)
                    item = Item(self._name("old"), moment, is_mail=dice.random() > 0.05)
                    if dice.random() < 0.05:
                        item.dead = "ErrorItemCorrupt"
                    if dice.random() < 0.05:
                        item.received = None
                        item.created = moment
                    self._exchange.add(folder, item)
                if dice.random() < 0.6:
                    self._exchange.add(folder, Item(self._name("draft"), LONG_AGO, is_draft=True))

    def one_more(self) -> None:
        """Have an email in each mailbox."""
        for address in self._addresses:
            self._add(self._exchange.folder(INBOX, address), Item(self._name("last"), self._clock.now()))

    def act(self, kind: str, seed: int) -> None:
        """Do something."""
        dice = random.Random(seed)
        address = dice.choice(self._addresses)
        folders = list(self._exchange.mailboxes[address].values())
        folder = dice.choice(folders)
        if kind in _ON_AN_ITEM:
            held = [(place, item_id) for place in folders for item_id in place.items]
            if held:
                _ON_AN_ITEM[kind](self, dice, *dice.choice(held), folder)
        else:
            _ACTS[kind](self, dice, address, folder)

    # --- What arrives ------------------------------------------------------------------------------------------------

    def _mail(self, dice: random.Random, _: str, folder: FolderStore) -> None:
        for _number in range(dice.randrange(1, 6)):
            self._add(folder, Item(self._name("new"), self._clock.now()))

    def _burst(self, dice: random.Random, _: str, folder: FolderStore) -> None:
        moment = dice.choice([self._clock.now(), LONG_AGO + timedelta(seconds=dice.randrange(300))])
        for _number in range(dice.randrange(5, 25)):
            part = timedelta(microseconds=dice.choice([0, dice.randrange(400_000)]))
            self._add(folder, Item(self._name("burst"), moment + part))

    def _imported(self, dice: random.Random, _: str, folder: FolderStore) -> None:
        days = dice.choice([0.001, 1.0, 50.0, 99.0, 150.0, -1.0])
        moment = self._clock.now() - timedelta(days=days * dice.random())
        self._add(folder, Item(self._name("imported"), moment))

    def _undated(self, dice: random.Random, _: str, folder: FolderStore) -> None:
        made = self._clock.now() - timedelta(days=dice.choice([0.0, 50.0]))
        self._add(folder, Item(self._name("undated"), None, made))

    def _draft(self, dice: random.Random, _: str, folder: FolderStore) -> None:
        made = self._clock.now() - timedelta(days=dice.choice([0.0, 0.0, 50.0, 200.0]))
        self._add(folder, Item(self._name("draft"), dice.choice([made, None]), made, is_draft=True))

    def _no_mail(self, _: random.Random, __: str, folder: FolderStore) -> None:
        self._add(folder, Item(self._name("task"), self._clock.now(), is_mail=False))

    def _poison(self, _: random.Random, __: str, folder: FolderStore) -> None:
        self._add(folder, Item(self._name("poison"), self._clock.now(), dead="ErrorMimeContentConversionFailed"))

    def _indigestible(self, _: random.Random, __: str, folder: FolderStore) -> None:
        self._add(folder, Item(self._name(INDIGESTIBLE), self._clock.now()))

    def _stuck(self, dice: random.Random, _: str, folder: FolderStore) -> None:
        item_id = self._add(folder, Item(self._name("stuck"), self._clock.now()))
        self._exchange.stuck[item_id] = self._clock.monotonic() + dice.choice([2.0, 30.0, 400.0])

    # --- What happens to an item -------------------------------------------------------------------------------------

    def _move(self, _: random.Random, place: FolderStore, item_id: str, target: FolderStore) -> str:
        name = place.items[item_id].name
        moved = self._exchange.move(place, item_id, target)
        self._tell(f"moved from {_path(place)} to {_path(target)}: {item_id} is {moved}", name)
        return moved

    def _to_and_fro(self, dice: random.Random, place: FolderStore, item_id: str, target: FolderStore) -> None:
        for _number in range(dice.randrange(1, 3)):
            item_id = self._move(dice, place, item_id, target)
            item_id = self._move(dice, target, item_id, place)

    def _copy(self, _: random.Random, place: FolderStore, item_id: str, target: FolderStore) -> None:
        item = place.items[item_id]
        if not item.is_draft:
            copied = self._exchange.copy(place, item_id, target)
            self._tell(f"copied from {_path(place)} to {_path(target)}: {copied}", item.name)

    def _delete(self, _: random.Random, place: FolderStore, item_id: str, __: FolderStore) -> None:
        item = self._exchange.remove(place, item_id)
        self._tell(f"deleted {item_id} from {_path(place)}", item.name)

    def _update(self, _: random.Random, place: FolderStore, item_id: str, __: FolderStore) -> None:
        self._exchange.update(place, item_id)
        self._tell(f"changed {item_id}", place.items[item_id].name)

    def _send(self, _: random.Random, place: FolderStore, __: str, target: FolderStore) -> None:
        drafts = _drafts(place) or _drafts(target)
        for folder, draft in drafts[:2]:
            if second_of(folder.items[draft].created) == second_of(self._clock.now()):
                # Nobody writes and sends within a second; the times of the server could not tell that it was a draft.
                continue
            self._exchange.send(folder, draft)
            self._tell(f"sent {draft} in {_path(folder)}", folder.items[draft].name)

    # --- What happens to folders -------------------------------------------------------------------------------------

    def _new_folder(self, dice: random.Random, address: str, _: FolderStore) -> None:
        self._exchange.folder(f"New/{dice.randrange(100)}", address)
        self._history.note(self._clock.monotonic(), "folder", f"{address}: a new one")

    def _vanish(self, _: random.Random, address: str, folder: FolderStore) -> None:
        if folder.path != (INBOX,):
            names = tuple(item.name for item in folder.items.values())
            self._exchange.remove_folder(folder, address)
            self._history.note(self._clock.monotonic(), "vanish", f"{address}: {_path(folder)}")
            self._history.note(self._clock.monotonic(), "people", f"vanished with {_path(folder)}", names)

    def _rename(self, dice: random.Random, address: str, folder: FolderStore) -> None:
        if folder.path not in {(INBOX,), (UNWANTED,)}:
            before = _path(folder)
            self._exchange.rename(folder, (*folder.path[:-1], f"renamed {dice.randrange(1000)}"))
            self._history.note(self._clock.monotonic(), "rename", f"{address}: {before} is now {_path(folder)}")
            self._history.cause(address, "rename")

    # --- Small things ------------------------------------------------------------------------------------------------

    def _add(self, folder: FolderStore, item: Item) -> str:
        item_id = self._exchange.add(folder, item)
        what = "draft" if item.is_draft else f"received {item.received}, made {item.created}"
        self._tell(f"{item_id} comes to {_path(folder)}: {what}", item.name)
        return item_id

    def _tell(self, what: str, name: str) -> None:
        self._history.note(self._clock.monotonic(), "people", what, (name,))

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names}"


def _drafts(folder: FolderStore) -> list[tuple[FolderStore, str]]:
    return [(folder, item_id) for item_id, item in folder.items.items() if item.is_draft]


def _path(folder: FolderStore) -> str:
    return "/".join(folder.path)


_ACTS: dict[str, Callable[[People, random.Random, str, FolderStore], None]] = {
    "mail": People._mail,
    "burst": People._burst,
    "import": People._imported,
    "undated": People._undated,
    "draft": People._draft,
    "no mail": People._no_mail,
    "poison": People._poison,
    "indigestible": People._indigestible,
    "stuck": People._stuck,
    "new folder": People._new_folder,
    "vanish": People._vanish,
    "rename": People._rename,
}
_ON_AN_ITEM: dict[str, Callable[[People, random.Random, FolderStore, str, FolderStore], object]] = {
    "move": People._move,
    "to and fro": People._to_and_fro,
    "copy": People._copy,
    "delete": People._delete,
    "update": People._update,
    "send": People._send,
}
