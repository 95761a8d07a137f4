"""The Exchange of a simulation: it knows what arrived when and where, and answers late, twice, and in any order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ews_sync.engine.fetching import close_all
from ews_sync.errors import Scope, SourceError
from ews_sync.model import Change, ChangeKind
from tests.engine.exchange import Exchange, ExchangeSource, FolderStore, Item, ref_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from ews_sync.model import ChangePage, Clock, Fetched, Folder, ItemRef, ListPage, Mailbox, Order
    from tests.simulation.faults import Faults
    from tests.simulation.history import History


@dataclass(slots=True)
class Arrival:
    """Where an item came to be: in which folder, and at which place of the folder's feed it became mail."""

    mailbox: str
    folder: str
    name: str
    index: int


class SimulatedExchange(Exchange):
    """An `Exchange` that remembers everything, also what is gone."""

    def __init__(self, clock: Clock, seed: int) -> None:
        super().__init__(clock, seed)
        self.arrivals: dict[str, Arrival] = {}
        """By item."""
        self.carriers: dict[tuple[str, str], set[str]] = {}
        """By mailbox and name: the items that carried the email, one after the other or at the same time."""
        self.copied: set[tuple[str, str]] = set()
        """By mailbox and name: what was in two places at the same time."""
        self.paths: dict[str, list[tuple[str, ...]]] = {}
        """By folder: all paths that it ever had."""
        self.stuck: dict[str, float] = {}
        """By item: until when (monotonic) the server fails on it."""
        self._owners: dict[str, str] = {}

    def folder(self, path: str, mailbox: str = "a@x") -> FolderStore:
        store = super().folder(path, mailbox)
        self._owners[store.id] = mailbox
        self.paths.setdefault(store.id, [store.path])
        return store

    def rename(self, store: FolderStore, path: tuple[str, ...]) -> None:
        store.path = path
        self.paths[store.id].append(path)

    def add(self, store: FolderStore, item: Item) -> str:
        item_id = super().add(store, item)
        mailbox = self._owners[store.id]
        self.arrivals[item_id] = Arrival(mailbox, store.id, item.name, len(store.log) - 1)
        self.carriers.setdefault((mailbox, item.name), set()).add(item_id)
        return item_id

    def copy(self, store: FolderStore, item_id: str, target: FolderStore) -> str:
        item = store.items[item_id]
        self.copied.add((self._owners[store.id], item.name))
        return self.add(target, replace(item))

    def send(self, store: FolderStore, item_id: str) -> None:
        store.items[item_id].version += 1
        super().send(store, item_id)
        self.arrivals[item_id].index = len(store.log) - 1


class SimulatedSource(ExchangeSource):
    """An `ExchangeSource` whose answers are computed, and then may take their time: what they say can be over by then.

    `marking` hears when a folder's feed is read from its very beginning, and when that comes to the end: there is
    no position until then.
    """

    def __init__(
        self,
        exchange: SimulatedExchange,
        clock: Clock,
        faults: Faults,
        history: History,
        marking: Callable[[Mailbox, Folder], None],
    ) -> None:
        super().__init__(exchange, clock)
        self.server = exchange
        self._faults = faults
        self._history = history
        self._marking = marking
        self._again: dict[str, list[str]] = {}
        self._being_marked: set[str] = set()

    async def folders(self, mailbox: Mailbox) -> Sequence[Folder]:
        await self._faults.source("folders", mailbox, None)
        answer = await super().folders(mailbox)
        await self._faults.answer()
        return answer

    async def changes(
        self, mailbox: Mailbox, folder: Folder, cursor: str | None, *, limit: int | None = None, ids_only: bool = False
    ) -> ChangePage:
        await self._faults.source("changes", mailbox, folder)
        page = await super().changes(mailbox, folder, cursor, limit=limit, ids_only=ids_only)
        if cursor is None or (page.last and folder.id in self._being_marked):
            self._marking(mailbox, folder)
        if page.last:
            self._being_marked.discard(folder.id)
        elif cursor is None:
            self._being_marked.add(folder.id)
        if not ids_only:
            self._note_jumps(mailbox, page.changes)
            page = replace(page, changes=self._disordered(mailbox, folder, page.changes))
        await self._faults.answer()
        return page

    async def items(
        self, mailbox: Mailbox, folder: Folder, *, order: Order, since: datetime | None, offset: int = 0
    ) -> ListPage:
        await self._faults.source("items", mailbox, folder)
        page = await super().items(mailbox, folder, order=order, since=since, offset=offset)
        await self._faults.answer()
        return page

    async def newest(self, mailbox: Mailbox, folder: Folder) -> datetime | None:
        await self._faults.source("newest", mailbox, folder)
        answer = await super().newest(mailbox, folder)
        await self._faults.answer()
        return answer

    async def fetch(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
        # From here on, and not only from its answer: whatever fails meanwhile may have the folder begun again.
        began = len(self._history.events)
        self._history.asked.update((mailbox.address, ref.id) for ref in refs)
        await self._faults.source("fetch", mailbox, folder)
        now = self._clock.monotonic()
        if folder.path != self._store(mailbox, folder).path:
            # A sink that is asked for the old path will not know what is stored with the new one.
            self._history.cause(mailbox.address, "rename")
        if any(self.server.stuck.get(ref.id, 0.0) > now for ref in refs):
            self._faults.happened("an item fails", mailbox.address)
            raise SourceError("the server fails on an item", scope=Scope.FOLDER, code="ErrorInternalServerError")
        answer = await super().fetch(mailbox, folder, refs)
        emails = [outcome.email for outcome in answer if outcome.email is not None]
        self._history.note(
            now, "fetch", f"{mailbox.address} {'/'.join(folder.path)}", tuple(email.id for email in emails)
        )
        for email in emails:
            self._history.fetched.setdefault((mailbox.address, email.item_id), began)
        try:
            await self._faults.answer()
        except BaseException:
            close_all(answer)
            raise
        return answer

    def _note_jumps(self, mailbox: Mailbox, changes: Sequence[Change]) -> None:
        """Take note of what may be a draft that nobody has read, as far as one can tell: better twice than never."""
        for change in changes:
            ref, key = change.ref, (mailbox.address, change.ref.id)
            was_draft = ref.created is not None and ref.received is not None and ref.created < ref.received
            if change.kind is ChangeKind.UPDATED and was_draft and key in self._history.asked:
                self._history.jumped[key] += 1

    def _disordered(self, mailbox: Mailbox, folder: Folder, changes: Sequence[Change]) -> tuple[Change, ...]:
        """Tell in any order, and once more of what an earlier page told of and is still there."""
        items = self._store(mailbox, folder).items
        known = {change.ref.id for change in changes}
        pending = self._again.pop(folder.id, [])
        again = [item_id for item_id in pending if item_id in items and item_id not in known]
        self._again[folder.id] = [item_id for item_id in sorted(known) if self._faults.tells_again()]
        if again:
            began = len(self._history.events)
            for item_id in again:
                # It may be told of twice before it is fetched, and is fetched twice then.
                self._history.fetched.setdefault((mailbox.address, item_id), began)
            self._faults.happened("told again", mailbox.address, tuple(items[item_id].name for item_id in again))
        told = [*changes, *(Change(ChangeKind.CREATED, ref_of(item_id, items[item_id])) for item_id in again)]
        if len({change.ref.id for change in told}) == len(told):
            self.exchange.random.shuffle(told)
        return tuple(told)
