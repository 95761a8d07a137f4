"""Reading one mailbox's change feeds: what is new in folders, and all that there is in small ones."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ews_sync.engine.ahead import Ahead
from ews_sync.engine.feed import plan_feed
from ews_sync.engine.fetching import batches
from ews_sync.engine.progress import BackfillEnded, Begun, Brought, Followed, digest
from ews_sync.errors import Asks, SourceError
from ews_sync.model import Backfill, Order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from ews_sync.engine.catching_up import Ask
    from ews_sync.engine.feed import FeedPlan
    from ews_sync.engine.folders import Folders
    from ews_sync.engine.progress import Effect
    from ews_sync.engine.reading import Reading
    from ews_sync.engine.storing import Parts, Storing
    from ews_sync.model import ChangePage, Folder, ItemRef, Mailbox

_EARLIEST = datetime.min.replace(tzinfo=UTC)
_PAGE = 64
"""The least number of changes to ask for at a time.

A page is confirmed as one, so what a stop in its middle repeats stays small when it is about the size of a batch.
"""
_BATCHES = 4
"""Of how many batches a page is that is read from a feed's start: while one is fetched, the next is asked for."""


class Following:
    """Reads one mailbox's feeds.

    `start` is the configured start. `mark_again` takes a new position where the server has forgotten the old one; it is
    told when the look was answered that gave the folder.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        mailbox: Mailbox,
        parts: Parts,
        storing: Storing,
        folders: Folders,
        *,
        start: datetime | None,
        ask: Ask,
        mark_again: Callable[[Folder, float, SourceError], Awaitable[None]],
    ) -> None:
        self._mailbox = mailbox
        self._parts = parts
        self._storing = storing
        self._folders = folders
        self._start = start
        self._ask = ask
        self._mark_again = mark_again
        self._feeds: Ahead[ChangePage] = Ahead(parts.ahead)
        """By the folder's id, the next page of its feed."""
        self._starts: Ahead[ChangePage] = Ahead(parts.ahead)
        """By the folder's id and the position, the next page of a feed that is read from its start."""

    # --- What is new -------------------------------------------------------------------------------------------------

    async def follow_all(self, folders: Sequence[Folder], seen_at: float) -> None:
        """Read the folders' feeds, each in its turn, and ask for those that come next meanwhile.

        `seen_at` is when the look was answered that gave the folders.
        """
        try:
            for number, folder in enumerate(folders):
                for following in folders[number : number + self._parts.fetches_at_once]:
                    cursor = self._folders.reading(following).cursor
                    page = self._page(following, cursor, self._parts.pace.emails_per_folder)
                    self._feeds.begin(following.id, page)
                if not self._folders.is_out(folder):
                    await self._folders.work_on(folder, partial(self._follow, folder, seen_at))
                if self._folders.is_out(folder):
                    # What was asked in the same moment may have met the same trouble, which need not be the mailbox's.
                    await self._feeds.drop()
        finally:
            await self._feeds.drop()

    def at_end(self, folder: Folder) -> None:
        """Take note that the folder's feed is at its end: what was listed before will not be brought once more."""
        reading = self._folders.reading(folder)
        reading.feed_ended()
        if reading.listed:
            reading.listed = False
            reading.reader = None
            self._storing.seal(self._storing.begin(folder), BackfillEnded(Order.CREATED))

    async def _follow(self, folder: Folder, seen_at: float) -> None:
        """Read the folder's feed from where it was left, and store what it brings."""
        reading = self._folders.reading(folder)
        quota = self._parts.pace.emails_per_folder
        while quota > 0 and not self._folders.is_out(folder):
            try:
                page = await self._ask(self._feeds.take(folder.id, self._page(folder, reading.cursor, quota)))
            except SourceError as error:
                if error.asks is not Asks.RESYNC:
                    raise
                await self._mark_again(folder, seen_at, error)
                return
            quota -= max(1, await self._store_page(folder, reading, page))
            if page.last and not self._folders.is_out(folder):
                reading.watch.was_read(folder.activity, seen_at, self._parts.clock.monotonic())
                self.at_end(folder)
                return
        reading.watch.forget()

    def _page(
        self, folder: Folder, cursor: str | None, quota: int, *, batches: int = 1
    ) -> Callable[[], Coroutine[Any, Any, ChangePage]]:
        """Give what asks for the page behind a position."""
        most = max(batches * self._parts.pace.reinfer_batch_size, _PAGE)
        return partial(self._parts.source.changes, self._mailbox, folder, cursor, limit=max(1, min(quota, most)))

    async def _store_page(self, folder: Folder, reading: Reading, page: ChangePage) -> int:
        """Have stored what a page brings; give how many emails it has."""
        start = reading.since if reading.from_start else self._start
        plan = plan_feed(
            page.changes,
            start=start,
            listed_until=None if reading.reader is None else reading.reader.until or _EARLIEST,
            known_drafts=reading.drafts,
            already_read=reading.recent,
        )
        if page.changes or page.cursor != reading.cursor or reading.from_start:
            reading.drafts |= plan.drafts
            reading.drafts -= plan.no_drafts
            reading.cursor = page.cursor
            if reading.reader is not None:
                for ref in plan.fetch:
                    reading.reader.note(ref)
            if reading.from_start and start is not None:
                # One that was made before the start and sent after it can be told of twice.
                reading.read(digest(ref.id) for ref in plan.fetch if ref.created is None or ref.created < start)
            # A page from a feed's start is several batches. A stop in its middle must not repeat what is stored.
            *parts, rest = list(self._cut(plan.fetch)) if reading.from_start and plan.fetch else [plan.fetch]
            for part in parts:
                await self._store(folder, part, partial(Brought, part))
                if self._folders.is_out(folder):
                    return len(plan.fetch)
            await self._store(folder, rest, partial(_followed, page, plan, rest))
        return len(plan.fetch)

    def _cut(self, refs: Sequence[ItemRef]) -> Iterable[tuple[ItemRef, ...]]:
        return batches(refs, self._parts.pace.reinfer_batch_size)

    async def _store(
        self, folder: Folder, refs: tuple[ItemRef, ...], effect: Callable[[frozenset[str]], Effect]
    ) -> None:
        reading = self._folders.reading(folder)
        if reading.from_start:
            # Read from the start, a feed is a listing of what was there before.
            wanted = await self._storing.unheld_of_listing(folder, reading, refs, verify=False)
        else:
            wanted = await self._storing.unheld_of_feed(folder, reading, refs)
        await self._storing.fetch(self._storing.begin(folder), wanted, effect)

    # --- Small folders, from the start -------------------------------------------------------------------------------

    def is_small(self, folder: Folder) -> bool:
        """Tell whether a folder that was not read yet is caught up in one slice, and so without a listing.

        A larger one has to be marked and listed: new mail must not wait until all that was there before is stored.
        """
        is_known = folder.id in self._storing.checkpoint.folders
        return not is_known and 0 < folder.total <= min(self._parts.pace.emails_per_folder, self._parts.small)

    def begin(self, folder: Folder) -> None:
        """Begin to read a small folder's feed from its very start."""
        reading = self._folders.reading(folder)
        reading.from_start, reading.since = True, self._start
        # Nothing of it is known to be stored, whatever was read of it in a round that was given up.
        reading.feed_ended()
        # Where there is a start, it is not known how many of the items are behind it.
        total = folder.total if self._start is None else 0
        backfill = Backfill(since=self._start, total=total, by_feed=True)
        self._storing.seal(self._storing.begin(folder), Begun(backfill))

    def ask_for(self, folder: Folder) -> None:
        """Ask for the first page of a feed that will soon be read from its start."""
        self._ask_ahead(folder, None, self._parts.pace.emails_per_folder)

    async def read_on(self, folder: Folder, quota: int) -> int:
        """Read the next page of a feed that is read from its start, and store what it brings.

        Give how many of the quota's emails that took, one at the least.
        """
        reading = self._folders.reading(folder)
        try:
            ask = self._page(folder, reading.cursor, quota, batches=_BATCHES)
            page = await self._ask(self._starts.take((folder.id, reading.cursor), ask))
        except SourceError as error:
            if error.asks is not Asks.RESYNC:
                raise
            await self._mark_again(folder, self._folders.seen_at, error)
            return 1
        left = quota - len(page.changes)
        if not page.last and left > 0:
            self._ask_ahead(folder, page.cursor, left)
        count = await self._store_page(folder, reading, page)
        if page.last and not self._folders.is_out(folder):
            reading.from_start = False
            reading.feed_ended()
            reading.watch.was_read(folder.activity, self._folders.seen_at, self._parts.clock.monotonic())
        return max(1, count)

    async def drop(self) -> None:
        """Give up what was asked ahead of feeds that are read from their start."""
        await self._starts.drop()

    def _ask_ahead(self, folder: Folder, cursor: str | None, quota: int) -> None:
        self._starts.begin((folder.id, cursor), self._page(folder, cursor, quota, batches=_BATCHES))


def _followed(page: ChangePage, plan: FeedPlan, created: tuple[ItemRef, ...], drafts: frozenset[str]) -> Followed:
    return Followed(page.cursor, created, plan.drafts | drafts, plan.no_drafts, page.last)
