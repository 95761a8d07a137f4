"""Reading one mailbox's past: a slice of each folder at a time, while new mail goes first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ews_sync.engine.fetching import batches
from ews_sync.engine.progress import BackfillEnded, Listed, digest
from ews_sync.engine.tasks import acquire
from ews_sync.engine.watchdog import SIGN_EVERY
from ews_sync.model import Order
from ews_sync.telemetry.status import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ews_sync.engine.ahead import Ahead
    from ews_sync.engine.folders import Folders
    from ews_sync.engine.following import Following
    from ews_sync.engine.listing import ListingReader, Query
    from ews_sync.engine.progress import Effect
    from ews_sync.engine.showing import Display
    from ews_sync.engine.storing import Parts, Storing
    from ews_sync.model import Folder, ItemRef, ListPage, Mailbox

T = TypeVar("T")


class Ask(Protocol):
    """Awaits an answer of the source, and takes note that there was one."""

    async def __call__(self, call: Awaitable[T]) -> T:
        """Give the answer."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """What a page of a listing brought: items to store, and whether they are the last."""

    refs: tuple[ItemRef, ...]
    order: Order
    ends: bool


class CatchingUp:
    """Lists what a mailbox's folders held when they were marked, and has it stored.

    Small folders need no listing: `following` reads their feeds from the start. `pages` are those that were listed
    ahead, by the folder's id and the query. `look_in_between` looks for new mail when it is time to.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it joins
        self,
        mailbox: Mailbox,
        parts: Parts,
        display: Display,
        storing: Storing,
        folders: Folders,
        pages: Ahead[ListPage],
        following: Following,
        *,
        ask: Ask,
        look_in_between: Callable[[], Awaitable[None]],
    ) -> None:
        self._mailbox = mailbox
        self._parts = parts
        self._display = display
        self._storing = storing
        self._folders = folders
        self._pages = pages
        self._following = following
        self._ask = ask
        self._look_in_between = look_in_between

    async def catch_up(self, folder: Folder) -> None:
        """Catch up one folder by up to `emails_per_folder` emails; new mail goes first, also while that takes long."""
        left = _Left(self._parts.pace.emails_per_folder)
        while left.quota > 0 and self._is_behind(folder):
            every = min(max(self._parts.pace.poll_frequency, 1.0), SIGN_EVERY)
            await acquire(self._parts.turns, self._while_waiting, every, self._parts.clock)
            try:
                await self._look_in_between()
                if not self._is_behind(folder) or not await self._catch_up_some(folder, left):
                    return
            finally:
                self._parts.turns.release()

    async def _catch_up_some(self, folder: Folder, left: _Left) -> bool:
        """Have a page of the folder's past stored; tell whether the folder can go on."""
        self._display.progress.phase = self._display.folder(folder).phase = Phase.BACKFILLING
        reader = self._folders.reading(folder).reader
        if reader is not None:
            return await self._catch_up_a_page(folder, reader, left)
        read = await self._folders.work_on(folder, partial(self._following.read_on, folder, left.quota))
        left.quota -= read or 0
        return read is not None

    async def _catch_up_a_page(self, folder: Folder, reader: ListingReader, left: _Left) -> bool:
        """List the next page and have it stored; tell whether the folder can go on."""
        part = await self._folders.work_on(folder, partial(self._list, folder, reader, left.quota))
        if part is None:
            return False
        left.quota -= len(part.refs)
        cut = list(batches((*left.over_from(reader), *part.refs), self._parts.pace.reinfer_batch_size))
        if cut and left.quota > 0 and not part.ends:
            # It is fetched together with the beginning of the next page.
            left.over = cut.pop()
        for batch in cut:
            await self._look_in_between()
            if self._is_overtaken(folder, reader):
                break
            await self._store_batch(folder, reader, batch)
        if left.over and self._parts.turns.locked() and not self._is_overtaken(folder, reader):
            # But nothing is kept while others have their turns: what all of them keep takes memory.
            await self._store_batch(folder, reader, left.over_from(reader))
        if part.ends and not self._is_overtaken(folder, reader):
            self._end_listing(folder, part.order, reader)
        return True

    def list_ahead(self, folder: Folder, query: Query) -> None:
        """Ask for a page that will be wanted next."""
        self._pages.begin((folder.id, query), partial(self._page, folder, query))

    async def _while_waiting(self) -> None:
        """Look for new mail, and hold no messages, while others have their turns."""
        await self._look_in_between()
        await self._storing.hand_on()

    def _is_behind(self, folder: Folder) -> bool:
        """Tell whether the folder is there, well, and neither read from its start to its end nor listed to it."""
        reading = self._folders.reading(folder)
        return self._folders.is_in(folder) and (
            reading.from_start or (reading.reader is not None and not reading.listed)
        )

    def _is_overtaken(self, folder: Folder, reader: ListingReader) -> bool:
        """Tell whether what the reader read no longer counts: the folder vanished, failed, or was marked again."""
        return not self._is_behind(folder) or self._folders.reading(folder).reader is not reader

    async def _list(self, folder: Folder, reader: ListingReader, quota: int) -> _Slice:
        """Read the next page, and take up to `quota` items of it."""
        query = reader.query()
        page = await self._ask(self._pages.take((folder.id, query), partial(self._page, folder, query)))
        new = reader.take(page)
        taken = tuple(new[:quota])
        if not reader.finished and len(taken) < quota:
            self.list_ahead(folder, reader.query())
        self._display.estimated(folder, reader.total)
        # All of them at once: the feed may be read before the last of them is stored, and need not bring them. But for
        # drafts: the feed may be the only one to say that they were sent.
        reading = self._folders.reading(folder)
        reading.read(digest(ref.id) for ref in taken if not ref.is_draft)
        reading.drafts |= frozenset(digest(ref.id) for ref in taken if ref.is_draft)
        return _Slice(taken, query.order, reader.finished and len(taken) == len(new))

    def _page(self, folder: Folder, query: Query) -> Coroutine[Any, Any, ListPage]:
        return self._parts.source.items(
            self._mailbox, folder, order=query.order, since=query.since, offset=query.offset
        )

    async def _store_batch(self, folder: Folder, reader: ListingReader, batch: tuple[ItemRef, ...]) -> None:
        reading = self._folders.reading(folder)
        # Those that the feed has told of since, as sent or gone, are none any more.
        drafts = frozenset(digest(ref.id) for ref in batch if ref.is_draft) & reading.drafts
        mail = tuple(ref for ref in batch if ref.is_mail and not ref.is_draft)
        wanted = await self._storing.unheld_of_listing(folder, reading, mail, verify=reader.verify)
        total = reader.total

        def effect(found: frozenset[str]) -> Effect:
            return Listed(batch, drafts | found, total)

        await self._storing.fetch(self._storing.begin(folder), wanted, effect)

    def _end_listing(self, folder: Folder, order: Order, reader: ListingReader) -> None:
        reading = self._folders.reading(folder)
        if order is Order.CREATED:
            reading.listed = True
            return
        reading.reader = reader.undated()
        self._storing.seal(self._storing.begin(folder), BackfillEnded(order))


@dataclass(slots=True)
class _Left:
    """What is left of a slice: the emails that it may still have, and items that are listed and not yet fetched."""

    quota: int
    over: tuple[ItemRef, ...] = ()
    _reader: ListingReader | None = None

    def over_from(self, reader: ListingReader) -> tuple[ItemRef, ...]:
        """Take what is left over of the reader's last page. What another one has read no longer counts."""
        over = self.over if reader is self._reader else ()
        self._reader, self.over = reader, ()
        return over
