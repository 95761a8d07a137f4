"""SyncFolderItems and SyncFolderHierarchy, without their XML: from a state to changes and the next state."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

from ews_sync.simulator.changes import ChangeKind, ChangeLog, InvalidSyncStateError, SyncState
from ews_sync.simulator.errors import EwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.store import Mailbox

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What became of the thing with a number: `thing` is None once it is gone."""

    kind: ChangeKind
    number: int
    thing: T | None


@dataclass(frozen=True, slots=True)
class Changes(Generic[T]):
    """A page of changes, the state after them, and whether there are no more for now."""

    changes: list[Change[T]]
    state: str
    is_last: bool


def folder_changes(folder: Folder, state: str | None, most: int, ignored: Collection[int] = ()) -> Changes[Item]:
    """Return what happened in a folder since a state; without one, everything in it, newest first.

    Raises:
        EwsError: the state is not valid (any more).

    """
    current = _read_state(folder.mailbox, folder.number, state, len(folder.log))
    if current is None:
        current = _state(folder.mailbox, folder.number, len(folder.log), below=1 << 127)
    if current.below is None:
        return _follow_items(folder, current, most, ignored)
    # The first pass: what was there when it began, whatever has come and gone since.
    there = (item for item in folder.index.descending(current.below) if item.created_position < current.log)
    page = list(islice(there, most))
    more = next(there, None) is not None
    following = _state(folder.mailbox, folder.number, current.log, below=page[-1].sort_key if more else None)
    changes = [Change(ChangeKind.CREATE, item.number, item) for item in page if item.number not in ignored]
    is_last = not more and current.log == len(folder.log)
    return Changes(changes, following.encode(len(folder)), is_last)


def hierarchy_changes(mailbox: Mailbox, top: Folder, state: str | None) -> Changes[Folder]:
    """Return what happened to the folders below one since a state; without one, all of them.

    Raises:
        EwsError: the state is not valid (any more).

    """
    log = mailbox.hierarchy
    current = _read_state(mailbox, 0, state, len(log))
    following = _state(mailbox, 0, len(log))
    if current is None:
        changes = [Change(ChangeKind.CREATE, folder.number, folder) for folder in top.descendants()]
        return Changes(changes, following.encode(), is_last=True)
    within = {folder.number for folder in top.descendants()}
    known = {number: folder for number, folder in mailbox.folders_by_number.items() if number in within}
    net: list[Change[Folder]]
    net, _ = _net_changes(log, current.log, len(log), known, lambda folder: folder.created_position)
    return Changes(net, following.encode(), is_last=True)


def _follow_items(folder: Folder, current: SyncState, most: int, ignored: Collection[int]) -> Changes[Item]:
    mailbox = folder.mailbox
    net: list[Change[Item]]
    net, position = _net_changes(
        folder.log,
        current.log,
        most,
        _ItemsIn(folder),
        lambda item: item.created_position,
    )
    changes = [change for change in net if change.number not in ignored]
    following = _state(mailbox, folder.number, position)
    return Changes(changes, following.encode(len(folder)), position == len(folder.log))


class _ItemsIn:
    """The items of a mailbox that lie in one folder, by number."""

    def __init__(self, folder: Folder) -> None:
        self._items = folder.mailbox.items_by_number
        self._folder = folder

    def get(self, number: int) -> Item | None:
        item = self._items.get(number)
        return item if item is not None and item.folder is self._folder else None


def _net_changes(
    log: ChangeLog,
    start: int,
    most: int,
    there: Mapping[int, T] | _ItemsIn,
    created: Callable[[T], int],
) -> tuple[list[Change[T]], int]:
    """Read a log from `start` until `most` things have changed; return each one's net change and where reading ended.

    What is there now decides: a thing that came and went again since `start` is not mentioned, and one that came and
    was changed is new. A change that is read again on a later page is told again; that does no harm.
    """
    found: dict[int, Change[T]] = {}
    born: set[int] = set()
    position = start
    while position < len(log):
        number, kind = log[position]
        thing: T | None = there.get(number)  # type: ignore[assignment]
        change = _net(number, kind, thing, found.get(number), created, start, born)
        if change is not None and number not in found and len(found) == most:
            break
        if change is not None:
            found[number] = change
        position += 1
    return list(found.values()), position


def _net(  # noqa: PLR0913, PLR0917 - one step of the loop above
    number: int,
    kind: ChangeKind,
    thing: T | None,
    earlier: Change[T] | None,
    created: Callable[[T], int],
    start: int,
    born: set[int],
) -> Change[T] | None:
    if thing is None:
        if kind is ChangeKind.CREATE:
            born.add(number)
        # Only the deletion itself is told, and only of what the client can know.
        is_news = kind is ChangeKind.DELETE and number not in born
        return Change(kind, number, None) if is_news else None
    if created(thing) >= start:
        # Told as new when its creation is reached; until then nothing about it would make sense.
        return Change(ChangeKind.CREATE, number, thing) if kind is ChangeKind.CREATE else earlier
    if earlier is not None and earlier.kind is ChangeKind.UPDATE:
        return earlier
    return Change(kind, number, thing)


def _state(mailbox: Mailbox, folder: int, log: int, below: int | None = None) -> SyncState:
    return SyncState(mailbox.number, mailbox.sync_generation, folder, log, below)


def _read_state(mailbox: Mailbox, folder: int, text: str | None, length: int) -> SyncState | None:
    if not text:
        return None
    try:
        state = SyncState.decode(text)
    except InvalidSyncStateError:
        raise _invalid() from None
    expected = (mailbox.number, mailbox.sync_generation, folder)
    if (state.space, state.generation, state.folder) != expected or state.log > length:
        raise _invalid()
    return state


def _invalid() -> EwsError:
    return EwsError("ErrorInvalidSyncStateData", "Synchronization state data is corrupt or otherwise invalid.")
