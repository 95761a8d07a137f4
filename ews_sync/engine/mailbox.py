"""One mailbox's loop: look for what is new, follow it, catch up a slice, wait, and again.

What is read runs ahead of what is confirmed, within a round; every round begins at the checkpoint, so a round that
fails is simply done again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from ews_sync.engine.ahead import Ahead
from ews_sync.engine.backoff import Backoff
from ews_sync.engine.catching_up import CatchingUp
from ews_sync.engine.folders import Folders
from ews_sync.engine.following import Following
from ews_sync.engine.listing import ListingReader
from ews_sync.engine.marking import Marking
from ews_sync.engine.progress import remembered, whole_second
from ews_sync.engine.showing import Display
from ews_sync.engine.storing import Storing
from ews_sync.engine.tasks import acquire, all_of, sleep_unless
from ews_sync.engine.troubles import RoundEndedError
from ews_sync.engine.watchdog import SIGN_EVERY
from ews_sync.errors import Asks, DefectError, EwsSyncError, Scope, SinkError, SourceError
from ews_sync.telemetry.status import Phase

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from ews_sync.engine.outages import Outage
    from ews_sync.engine.storing import Parts
    from ews_sync.engine.watchdog import Watched
    from ews_sync.model import Folder, ListPage, Mailbox
    from ews_sync.telemetry.status import MailboxProgress

T = TypeVar("T")

_SOON = 3
"""Of how many small folders the first page is asked for while others are marked: the rest of them is not next."""
_SPREAD = 30.0
"""Seconds over which mailboxes come back when the source does."""


class MailboxSync:
    """Keeps one mailbox in step."""

    def __init__(self, mailbox: Mailbox, parts: Parts, progress: MailboxProgress, looking: asyncio.Semaphore) -> None:
        self.mailbox = mailbox
        self._looking = looking
        """Bounds how many mailboxes of which nothing is known yet mark all their folders at the same time."""
        self.progress = progress
        self._parts = parts
        self._clock = parts.clock
        start = mailbox.start_timestamp
        self._start = None if start is None else whole_second(start)
        self._display = Display(progress)
        self._folders = Folders(mailbox, parts.clock, self._display, parts.jitter)
        self._storing = Storing(
            mailbox,
            parts,
            self._display,
            moved=self._sign,
            fetched=self._folders.answered,
            failed=self._fetch_failed,
            found_drafts=self._found_drafts,
        )
        self._watched: Watched | None = None
        self._met: set[Outage] = set()
        """What is wrong for everybody, as far as this mailbox knows."""
        self._opening_failed = False
        self._following = Following(
            mailbox,
            parts,
            self._storing,
            self._folders,
            start=self._start,
            ask=self._ask,
            mark_again=self._mark_again,
        )
        self._pages: Ahead[ListPage] = Ahead(parts.ahead)
        """By the folder's id and the query, a page of its listing."""
        self._catching_up = CatchingUp(
            mailbox,
            parts,
            self._display,
            self._storing,
            self._folders,
            self._pages,
            self._following,
            ask=self._ask,
            look_in_between=self._look_in_between,
        )
        self._marking = Marking(
            mailbox,
            parts,
            self._display,
            self._storing,
            self._folders,
            start=self._start,
            ask=self._ask,
            list_ahead=self._catching_up.list_ahead,
        )
        self._looked_at = 0.0
        self._caught_up = False
        self._told = False
        """Whether the log says that this mailbox fails."""
        self._began_anew = False
        """Whether the mailbox began anew with what the sink knows, and no round went well since."""
        self._backoff = Backoff(5.0, 300.0, parts.jitter)
        self._log = structlog.get_logger("ews_sync.mailbox").bind(mailbox=mailbox.address)

    async def open(self) -> None:
        """Read the checkpoint, if that is still to be done, and make the sink ready to go on from it.

        Raises `SinkError`.
        """
        await self._storing.open()

    async def run(self) -> None:
        """Keep the mailbox in step until cancelled. Raises only what asks for the whole process to stop."""
        try:
            while True:
                await self._rest(await self._try_round())
        finally:
            for outage in self._met:
                outage.left(self.mailbox.address)
            await self._storing.stop_fetching()

    async def _rest(self, seconds: float) -> None:
        """Wait between two rounds: while the source is away for everybody, no longer than until it is back."""
        source = self._parts.source_outage
        if source not in self._met:
            await self._clock.sleep(seconds)
            return
        ends_at = self._clock.monotonic() + seconds
        await sleep_unless(source.over, seconds, self._clock)
        # Not all at the same moment.
        left = ends_at - self._clock.monotonic()
        await self._clock.sleep(min(max(0.0, left), _SPREAD * self._parts.jitter()))

    # --- Rounds ------------------------------------------------------------------------------------------------------

    async def _try_round(self) -> float:
        """Do a round; give the seconds to wait after it."""
        stored_before = self.progress.stored
        try:
            await self._guarded_round()
        except (EwsSyncError, RoundEndedError) as ended:
            error = ended.error if isinstance(ended, RoundEndedError) else ended
            if isinstance(error, SinkError) and error.asks is Asks.RESYNC:
                return await self._begin_anew(error)
            with self._parts.watchdog.over_the_end(f"giving up a round of {self.mailbox.address}"):
                await self._storing.start_over()
            for reading in self._folders.readings.values():
                # Its feed may have been read to the end and then not been stored, and so may its listing.
                reading.watch.forget()
                reading.listed = False
            if error is None:
                return 0.0
            if error.scope is Scope.PROCESS and error.asks is Asks.STOP:
                raise error from ended
            return self._failed(error)
        self._backoff.reset()
        self._began_anew = False
        if self._display.succeeded(self._clock.now()) and self._told:
            self._log.info("mailbox is well again")
        self._told = False
        self._is_over(self._parts.sink_outage)
        self._tell(self.progress.stored - stored_before)
        return self._parts.pace.poll_frequency

    async def _begin_anew(self, error: SinkError) -> float:
        """Go on from what the sink knows, because it is no longer the one that it was."""
        self._log.warning(error.summary)
        with self._parts.watchdog.over_the_end(f"beginning anew with {self.mailbox.address}"):
            await self._storing.start_over(reload=True)
        self._folders.readings.clear()
        # Who says so again before anything went well is not to be asked again at once, and so for ever.
        wait = self._failed(error) if self._began_anew else 0.0
        self._began_anew = True
        return wait

    def _tell(self, stored: int) -> None:
        """Log what a round brought, and once that there is nothing left to catch up with."""
        if stored:
            self._log.debug("stored new mail", emails=stored, done=self.progress.done, total=self.progress.total)
        if not self._caught_up and self.progress.phase is Phase.FOLLOWING:
            self._caught_up = True
            self._log.info(
                "caught up; following what changes", folders=len(self._folders.present), emails=self.progress.stored
            )

    async def _guarded_round(self) -> None:
        """Do a round; make a defect of ours, which may be one mailbox's mail alone, that mailbox's failure."""
        try:
            async with self._parts.watchdog.over(f"keeping {self.mailbox.address} in step") as self._watched:
                await self._round()
        except (EwsSyncError, RoundEndedError):
            raise
        except Exception as error:
            self._log.exception("a defect in ews-sync: please report this with the lines before it")
            raise DefectError(error) from error

    async def _round(self) -> None:
        await self._open_for_round()
        self._begin_at_checkpoint()
        try:
            await self._look()
            for folder in tuple(self._folders.present):
                await self._catching_up.catch_up(folder)
        finally:
            await self._pages.drop()
            await self._following.drop()
        await self._storing.settle()
        self._folders.end_round()

    async def _open_for_round(self) -> None:
        try:
            await self._storing.open()
        except SinkError:
            self._opening_failed = True
            raise
        if self._opening_failed:
            self._opening_failed = False
            self._is_over(self._parts.sink_outage)

    def _begin_at_checkpoint(self) -> None:
        self._folders.begin_round()
        known = self._storing.checkpoint.folders
        for folder_id, left in known.items():
            # Known before anything was read: another process has left it.
            if folder_id not in self._folders.readings:
                reading = self._folders.readings[folder_id] = self._storing.reading_anew()
                reading.read(remembered(left))
        for folder_id, reading in self._folders.readings.items():
            checkpoint = known.get(folder_id)
            reading.cursor = None if checkpoint is None else checkpoint.cursor
            reading.drafts = frozenset() if checkpoint is None else checkpoint.drafts
            backfill = None if checkpoint is None else checkpoint.backfill
            reading.from_start = False
            if checkpoint is not None and backfill is not None and backfill.by_feed:
                reading.from_start, reading.since = True, backfill.since
                # The page that was stored in part is read again, and nothing else was read for good.
                reading.feed_ended()
                reading.read(remembered(checkpoint))
            reading.reader = None if backfill is None or backfill.by_feed else ListingReader(backfill)

    def _failed(self, error: EwsSyncError) -> float:
        """Show and tell what ended a round; give the seconds to wait."""
        news = self._display.failed(error, self._clock.now())
        wait = max(self._backoff.next(), error.retry_after or 0.0)
        if error.asks is Asks.STOP:
            wait = max(wait, 60.0)
        if error.scope is Scope.PROCESS:
            if error.retry_after is not None:
                # Who knows when to come back need not guess.
                wait = error.retry_after + self._parts.jitter()
            outage = self._parts.sink_outage if isinstance(error, SinkError) else self._parts.source_outage
            self._met.add(outage)
            outage.met(self.mailbox.address, error, wait)
            return wait
        if news or self._backoff.failures % 12 == 0:
            self._told = True
            self._log.error(
                "mailbox failed",
                problem=error.summary,
                hint=error.hint,
                code=error.code,
                request_id=error.request_id,
                next_try_in=round(wait),
            )
        return wait

    def _is_over(self, outage: Outage) -> None:
        """Take note, where this mailbox has met something that is wrong for everybody, that it is no longer."""
        if outage in self._met:
            self._met.discard(outage)
            # There is one server, but what can be stored for one mailbox need not be for the others.
            outage.well(self.mailbox.address, for_all=outage is self._parts.source_outage)

    async def _ask(self, call: Awaitable[T]) -> T:
        """Await an answer of the source, which is a sign of life."""
        answer = await call
        self._sign()
        return answer

    def _sign(self) -> None:
        if self._watched is not None:
            self._watched.sign()

    # --- Folders -----------------------------------------------------------------------------------------------------

    def _fetch_failed(self, folder: Folder, error: SourceError) -> None:
        """Hear that a folder's items cannot be fetched, and that what it had begun was dropped."""
        reading = self._folders.reading(folder)
        reading.watch.forget()
        reading.listed = False
        self._folders.failed(folder, error)

    def _found_drafts(self, folder: Folder, drafts: frozenset[str]) -> None:
        reading = self._folders.reading(folder)
        reading.drafts |= drafts
        # The feed may be the only one to say that they were sent.
        reading.unread(drafts)

    # --- Looking for what is new -------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask once for all folders, then read the feed of those that changed, and mark those that are new."""
        if self._folders.present or self._storing.checkpoint.folders:
            await self._look_around()
            return
        await acquire(self._looking, self._still_there, SIGN_EVERY, self._clock)
        try:
            await self._look_around()
        finally:
            self._looking.release()

    async def _still_there(self) -> None:
        self._sign()

    async def _look_around(self) -> None:
        # A listing that is older than what the feed tells could have a draft that the feed says was sent.
        await self._pages.drop()
        listed = await self._ask(self._parts.source.folders(self.mailbox))
        seen_at = self._folders.seen_at = self._clock.monotonic()
        self.progress.source_answered = True
        self._is_over(self._parts.source_outage)
        self._folders.present = [folder for folder in listed if self.mailbox.wants(folder.path)]
        self._display.folders(self._folders.present, self._storing.checkpoint)
        due: list[Folder] = []
        for folder in self._folders.present:
            reading = self._folders.reading(folder)
            if reading.cursor is None or reading.from_start or self._folders.is_out(folder):
                continue
            if reading.watch.must_read(folder.activity, seen_at):
                due.append(folder)
            else:
                # The feed is still at its end.
                self._following.at_end(folder)
        await self._following.follow_all(due, seen_at)
        await self._begin_with_new(seen_at)
        # From its end, or a look that takes long would leave no time for anything else.
        self._looked_at = self._clock.monotonic()

    async def _begin_with_new(self, seen_at: float) -> None:
        """Begin to read the new folders that are small, and mark the others."""
        small: list[Folder] = []
        marks: list[Callable[[], Awaitable[None]]] = []
        for folder in self._folders.present:
            if not self._is_new(folder):
                continue
            if self._is_empty(folder, seen_at):
                self._display.folder(folder).phase = Phase.FOLLOWING
            elif self._following.is_small(folder):
                self._following.begin(folder)
                small.append(folder)
            else:
                marks.append(partial(self._folders.work_on, folder, partial(self._marking.mark, folder, seen_at)))
        for folder in small[:_SOON]:
            self._following.ask_for(folder)
        if marks:
            # Marks depend on nothing but their folder, so the first look at a mailbox need not take them one by one.
            await all_of(marks, 2 * self._parts.fetches_at_once)

    def _is_new(self, folder: Folder) -> bool:
        """Tell whether nobody has begun with the folder."""
        reading = self._folders.reading(folder)
        return reading.cursor is None and not reading.from_start and not self._folders.is_out(folder)

    def _is_empty(self, folder: Folder, seen_at: float) -> bool:
        """Tell whether a folder that nobody knows can wait until there is something in it.

        Half of a mailbox's folders are empty for good. Should the server's numbers be wrong, the first sweep marks it.
        """
        activity, watch = folder.activity, self._folders.reading(folder).watch
        if activity is None or activity.total or folder.id in self._storing.checkpoint.folders:
            return False
        if not watch.has_read:
            watch.was_read(activity, seen_at, self._clock.monotonic())
        return not watch.has_changed(activity, self._clock.monotonic())

    async def _mark_again(self, folder: Folder, seen_at: float, error: SourceError) -> None:
        await self._marking.mark_again(folder, seen_at, error)

    async def _look_in_between(self) -> None:
        """Look for new mail when a round's slices of the past take longer than the time between rounds."""
        if self._clock.monotonic() - self._looked_at >= max(self._parts.pace.poll_frequency, 1.0):
            await self._look()
