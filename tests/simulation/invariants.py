"""What must hold, whatever happens. The fake Exchange and the disk know the truth; the engine is not asked.

*Stored right* is an email that is stored with the text that it has, and with a path that its folder had since; one that
was in several folders at the same time (a copy) may have any of theirs. A recorded dead letter is as good.

*Long enough* was an email there once a checkpoint was saved that covers it, or when it is there at the end.

*Covered* by a checkpoint is an item of a folder when a process that begins there would never look at it again: its
arrival lies before the cursor, and no unfinished backfill is going to list it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.engine.progress import digest
from ews_sync.model import Order, Recall
from tests.engine.exchange import second_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from ews_sync.model import Backfill, FolderCheckpoint, Mailbox, MailboxCheckpoint
    from tests.engine.exchange import FolderStore, Item
    from tests.engine.stores import Stored
    from tests.simulation.history import History
    from tests.simulation.server import SimulatedExchange
    from tests.simulation.storage import SimulatedDisk


class ViolatedError(AssertionError):
    """An invariant does not hold. `name` is the email that it is about, or \"\"."""

    def __init__(self, invariant: str, detail: str, name: str = "") -> None:
        super().__init__(f"{invariant}: {detail}")
        self.name = name


class Invariants:
    """Looks at what is stored, and compares."""

    def __init__(
        self, kind: str, exchange: SimulatedExchange, disk: SimulatedDisk, mailboxes: list[Mailbox], history: History
    ) -> None:
        self._kind = kind
        self._exchange = exchange
        self._disk = disk
        self._mailboxes = mailboxes
        self._history = history
        self._excused: set[str] = set()
        """Items that a documented limit lets escape: see `excuse`."""
        self._covered: dict[str, set[str]] = {}
        """By mailbox: the emails that were there for long enough."""

    # --- 1: nothing is lost ------------------------------------------------------------------------------------------

    def missing(self) -> list[tuple[str, str]]:
        """Give what is on the server and not stored right: the name of each email, and what is wrong with it."""
        found = []
        for mailbox in self._mailboxes:
            view = self._disk.view(self._kind, mailbox.address)
            for store in self._wanted(mailbox):
                for item_id, item in store.items.items():
                    if self._is_due(mailbox, item) and (problem := self._problem(mailbox, item_id, item, view)):
                        found.append((item.name, problem))
        return found

    def at_the_end(self) -> None:
        """Check that what is there, and what once was there for long enough, is stored."""
        for name, problem in self.missing():
            raise ViolatedError("nothing is lost", f"{name} {problem}", name)
        for mailbox in self._mailboxes:
            view = self._disk.view(self._kind, mailbox.address)
            letters = self._letters(mailbox)
            for name in sorted(self._covered.get(mailbox.address, ())):
                if name not in view and name not in letters:
                    raise ViolatedError("nothing is lost", f"{name} was stored once and is not any more", name)

    def made_anew(self, address: str) -> None:
        """Take note that what a mailbox had stored is gone with its bucket."""
        self._covered.pop(address, None)

    # --- 2: no checkpoint claims too much ----------------------------------------------------------------------------

    def saving(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Check a checkpoint that is about to be saved."""
        view = self._disk.view(self._kind, mailbox.address, checkpoint.sink_position or "0")
        covered = self._covered.setdefault(mailbox.address, set())
        for store in self._wanted(mailbox):
            folder = checkpoint.folders.get(store.id)
            if folder is None:
                continue
            for item_id in self._claimed(mailbox, folder, store):
                item = store.items[item_id]
                problem = self._problem(mailbox, item_id, item, view)
                if problem:
                    raise ViolatedError(
                        "no checkpoint claims more than is stored",
                        f"{item.name} ({item_id}) {problem}, and this checkpoint of its folder is saved: {folder}",
                        item.name,
                    )
                if item.name in view:
                    covered.add(item.name)

    def excuse(
        self, mailbox: Mailbox, before: FolderCheckpoint | None, folder_id: str, overlap: timedelta, recall: Recall
    ) -> None:
        """Let items go that a forgotten position lets escape, as the documentation says.

        After the server forgot a position, a sink that cannot tell all that it holds has only a time to search from.
        What was moved in meanwhile and is older than that cannot be told from what is stored.
        """
        if before is None or recall is Recall.EVERYTHING:
            return
        store = self._exchange.mailboxes[mailbox.address].get(folder_id)
        if store is None:
            return
        view = self._disk.view(self._kind, mailbox.address)
        for item_id, item in store.items.items():
            if _escapes(item, before, overlap) and self._problem(mailbox, item_id, item, view):
                self._excused.add(item_id)
                self._history.note(
                    0.0, "excused", f"{item_id}: moved in while the position was forgotten", (item.name,)
                )

    # --- 3: nothing is stored again without a cause ------------------------------------------------------------------

    def repeats(self) -> None:
        """Check that whatever was stored more than once had as many causes between its fetching and its storing."""
        for mailbox in self._mailboxes:
            if self._kind == "lines":
                self._lines(mailbox)
            else:
                self._uploads(mailbox)

    def _uploads(self, mailbox: Mailbox) -> None:
        ignored = {"crash", "stop", "forget"} if self._kind == "platform" else {"forget", "forgotten while behind"}
        causes = [at for at, why in self._history.causes[mailbox.address] if why not in ignored]
        for (address, item_id), uploads in self._history.uploads.items():
            if address != mailbox.address or len(uploads) < 2:
                continue
            first = self._history.fetched.get((address, item_id), 0)
            name = self._exchange.arrivals[item_id].name
            if (address, name) in self._exchange.copied:
                # Of copies in several folders one is stored: the sink does not hold the others.
                continue
            reasons = sum(first <= at <= uploads[-1] for at in causes) + self._history.jumped[address, item_id]
            if len(uploads) - 1 > reasons:
                raise ViolatedError(
                    "nothing is stored again without a cause",
                    f"{name} ({item_id}) was stored {len(uploads)} times with {reasons} causes",
                    name,
                )

    def _lines(self, mailbox: Mailbox) -> None:
        again = ("forget", "told again", "rename", "start from config")
        causes = sum(why in again or "resync" in why for _, why in self._history.causes[mailbox.address])
        counts: dict[str, int] = {}
        for line in self._disk.lines.get(mailbox.address, []):
            counts[line.id] = counts.get(line.id, 0) + 1
        for name, count in counts.items():
            items = self._exchange.carriers[mailbox.address, name]
            jumped = sum(self._history.jumped[mailbox.address, item_id] for item_id in items)
            if count > len(items) * (1 + causes) + jumped:
                raise ViolatedError(
                    "nothing is stored again without a cause",
                    f"{name} has {count} lines, for {len(items)} items and {causes + jumped} causes",
                    name,
                )

    # --- The truth ---------------------------------------------------------------------------------------------------

    def _wanted(self, mailbox: Mailbox) -> Iterator[FolderStore]:
        folders = self._exchange.mailboxes.get(mailbox.address, {})
        return (store for store in folders.values() if mailbox.wants(store.path))

    def _is_due(self, mailbox: Mailbox, item: Item) -> bool:
        moment = second_of(item.received or item.created)
        start = mailbox.start_timestamp
        return item.is_mail and not item.is_draft and (start is None or moment is None or moment >= start)

    def _letters(self, mailbox: Mailbox) -> set[str | None]:
        return {letter.email_id for letter in self._disk.letters.get(mailbox.address, {}).values()}

    def _problem(self, mailbox: Mailbox, item_id: str, item: Item, view: dict[str, Stored]) -> str:
        """Say what is wrong with how an item is stored; \"\" when nothing is."""
        stored = view.get(item.name)
        if stored is not None and stored.body == item.text and stored.folder in self._places(mailbox, item_id, item):
            return ""
        if item_id in self._excused or item.name in self._letters(mailbox):
            return ""
        if stored is None:
            return "is not stored"
        if stored.body != item.text:
            return f"is stored with another text: {stored.body!r}"
        return f"is stored with the folder {'/'.join(stored.folder)}"

    def _places(self, mailbox: Mailbox, item_id: str, item: Item) -> list[tuple[str, ...]]:
        key = (mailbox.address, item.name)
        carriers = self._exchange.carriers[key] if key in self._exchange.copied else {item_id}
        folders = {self._exchange.arrivals[carrier].folder for carrier in carriers}
        return [path for folder in folders for path in self._exchange.paths[folder]]

    def _claimed(self, mailbox: Mailbox, folder: FolderCheckpoint, store: FolderStore) -> Iterator[str]:
        if folder.cursor is None:
            return
        position = int(folder.cursor.partition(":")[2])
        for item_id, item in store.items.items():
            if not self._is_due(mailbox, item) or self._exchange.arrivals[item_id].index >= position:
                continue
            if folder.backfill is None or not _will_be_listed(folder.backfill, item_id, item):
                yield item_id


def _will_be_listed(backfill: Backfill, item_id: str, item: Item) -> bool:
    received, moment = second_of(item.received), second_of(item.received or item.created)
    if moment is None or digest(item_id) in backfill.seen.get(moment, ()):
        return False
    if backfill.since is not None and moment < second_of(backfill.since):  # type: ignore[operator]
        return False
    behind = backfill.position is None or moment >= backfill.position
    if received is None:
        return behind or backfill.order is Order.RECEIVED
    return behind and backfill.order is Order.RECEIVED and (backfill.until is None or received <= backfill.until)


def _escapes(item: Item, before: FolderCheckpoint, overlap: timedelta) -> bool:
    unfinished = before.backfill
    begins, came = None if unfinished is None else unfinished.since, second_of(item.received or item.created)
    if begins is not None and came is not None and came < begins:
        # It escaped an earlier search, which is not finished.
        return True
    if unfinished is not None and unfinished.order is Order.RECEIVED:
        limit = unfinished.position
        return limit is not None and item.received is not None and item.received < limit
    if before.synced_until is None or (unfinished is not None and item.received is None):
        return False
    moment = item.received or item.created
    return moment is not None and moment < before.synced_until - overlap
