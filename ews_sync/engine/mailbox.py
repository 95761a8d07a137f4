"""One mailbox's loop: look for what is new, follow it, catch up a slice, wait, and again.

What is read runs ahead of what is confirmed, within a round; every round begins at the checkpoint, so a round that
fails is simply done again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from ews_sync.engine.backoff import Backoff
from ews_sync.engine.feed import plan_feed
from ews_sync.engine.fetching import batches
from ews_sync.engine.listing import ListingReader
from ews_sync.engine.progress import BackfillEnded, Followed, Listed, Marked, digest, remembered, whole_second
from ews_sync.engine.search import backfill_for
from ews_sync.engine.showing import Display
from ews_sync.engine.storing import Storing
from ews_sync.engine.tasks import all_of, sleep_unless
from ews_sync.engine.troubles import FolderTroubles, RoundEndedError
from ews_sync.engine.watch import FolderWatch
from ews_sync.errors import Asks, DefectError, EwsSyncError, FolderGoneError, Scope, SinkError, SourceError
from ews_sync.model import Order, Recall
from ews_sync.telemetry.status import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ews_sync.engine.feed import FeedPlan
    from ews_sync.engine.outages import Outage
    from ews_sync.engine.progress import Effect
    from ews_sync.engine.storing import Parts
    from ews_sync.engine.watchdog import Watched
    from ews_sync.model import Folder, ItemRef, Mailbox
    from ews_sync.telemetry.status import MailboxProgress

T = TypeVar("T")

_EARLIEST = datetime.min.replace(tzinfo=UTC)
_SPREAD = 30.0
"""Seconds over which mailboxes come back when the source does."""
_FEED_PAGE = 64
"""The least number of changes to ask for at a time.

A page is confirmed as one, so what a stop in its middle repeats stays small when it is about the size of a batch.
"""


@dataclass(slots=True)
class _Reading:
    """How far a folder is read, ahead of what is confirmed."""

    watch: FolderWatch = field(default_factory=FolderWatch)
    cursor: str | None = None
    reader: ListingReader | None = None
    listed: bool = False
    """Whether the listing is at its end. The backfill is over once the feed was read to its end after that.

    Until then the feed may tell of drafts that were sent away from under the listing.
    """
    drafts: set[str] = field(default_factory=set)
    recent: set[str] = field(default_factory=set)
    """Digests of what the backfill has read since the feed was last at its end: it will bring them once more.

    Also of what could not be stored then: the backfill's position has not passed it, so it will read it again.
    """
    unsure: int = 0
    """How many more batches the sink is asked about in a row without holding any of it: see `MailboxSync._unheld`."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """What a page of a listing brought: items to store, and whether they are the last."""

    refs: tuple[ItemRef, ...]
    order: Order
    ends: bool


class MailboxSync:
    """Keeps one mailbox in step."""

    def __init__(self, mailbox: Mailbox, parts: Parts, progress: MailboxProgress) -> None:
        self.mailbox = mailbox
        self.progress = progress
        self._parts = parts
        self._clock = parts.clock
        start = mailbox.start_timestamp
        self._start = None if start is None else whole_second(start)
        self._display = Display(progress)
        self._storing = Storing(
            mailbox,
            parts,
            self._display,
            moved=self._sign,
            failed=self._fetch_failed,
            found_drafts=self._found_drafts,
        )
        self._watched: Watched | None = None
        self._met: set[Outage] = set()
        """What is wrong for everybody, as far as this mailbox knows."""
        self._opening_failed = False
        self._folders: list[Folder] = []
        self._readings: dict[str, _Reading] = {}
        self._troubles = FolderTroubles(parts.jitter)
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
            for reading in self._readings.values():
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
        self._readings.clear()
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
            self._log.info("caught up; following what changes", folders=len(self._folders), emails=self.progress.stored)

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
        await self._look()
        for folder in list(self._folders):
            await self._catch_up(folder)
        await self._storing.settle()
        error = self._troubles.everywhere(len(self._folders))
        if error is not None:
            raise error
        self._folders_are_well()

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
        self._troubles.begin_round(self._clock.monotonic())
        present = {folder.id for folder in self._folders}
        for folder_id in [folder_id for folder_id in self._readings if folder_id not in present]:
            # It may never come back.
            del self._readings[folder_id]
        known = self._storing.checkpoint.folders
        for folder_id, left in known.items():
            # Known before anything was read: another process has left it.
            if folder_id not in self._readings:
                self._readings[folder_id] = _Reading(unsure=self._parts.unsure, recent=remembered(left))
        for folder_id, reading in self._readings.items():
            checkpoint = known.get(folder_id)
            reading.cursor = None if checkpoint is None else checkpoint.cursor
            reading.drafts = set() if checkpoint is None else set(checkpoint.drafts)
            backfill = None if checkpoint is None else checkpoint.backfill
            reading.reader = None if backfill is None else ListingReader(backfill)

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

    def _reading(self, folder: Folder) -> _Reading:
        return self._readings.setdefault(folder.id, _Reading())

    async def _on_folder(self, folder: Folder, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do work on one folder whose failure leaves the other folders alone; None when it failed."""
        try:
            result = await work()
        except SourceError as error:
            self._folder_failed(folder, error)
            return None
        self._troubles.answered(folder.id)
        return result

    def _folders_are_well(self) -> None:
        """Take note, at the end of a round, which folders are well: those that have not failed and do not rest."""
        for folder in self._folders:
            if self._troubles.well(folder.id) and self._display.folder_well(folder):
                self._log.info("folder is well again", folder=folder.path)

    def _folder_failed(self, folder: Folder, error: SourceError) -> None:
        """Take a folder out of the round. Raises `RoundEndedError` when it is not the folder's own failure."""
        if isinstance(error, FolderGoneError):
            self._troubles.leave_out(folder.id)
            self._log.debug("the folder is gone", folder=folder.path)
            return
        if self._troubles.failed(folder.id, error, self._clock.monotonic()):
            raise RoundEndedError(error) from error
        if self._display.folder_failed(folder, error, self._clock.now()):
            self._log.error(
                "folder failed", folder=folder.path, problem=error.summary, hint=error.hint, code=error.code
            )

    def _fetch_failed(self, folder: Folder, error: SourceError) -> None:
        """Hear that a folder's items cannot be fetched, and that what it had begun was dropped."""
        reading = self._reading(folder)
        reading.watch.forget()
        reading.listed = False
        self._folder_failed(folder, error)

    def _found_drafts(self, folder: Folder, drafts: frozenset[str]) -> None:
        reading = self._reading(folder)
        reading.drafts |= drafts
        # The feed may be the only one to say that they were sent.
        reading.recent -= drafts

    # --- Looking for what is new -------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask once for all folders, then read the feed of those that changed, and mark those that are new."""
        listed = await self._ask(self._parts.source.folders(self.mailbox))
        seen_at = self._clock.monotonic()
        self.progress.source_answered = True
        self._is_over(self._parts.source_outage)
        self._folders = [folder for folder in listed if self.mailbox.wants(folder.path)]
        self._display.folders(self._folders, self._storing.checkpoint)
        for folder in self._folders:
            reading = self._reading(folder)
            if reading.cursor is None or self._troubles.is_out(folder.id):
                continue
            if reading.watch.must_read(folder.activity, seen_at):
                await self._on_folder(folder, partial(self._follow, folder, seen_at))
            else:
                # The feed is still at its end.
                self._followed(folder, reading)
        new = [
            folder
            for folder in self._folders
            if self._reading(folder).cursor is None and not self._troubles.is_out(folder.id)
        ]
        # Marks depend on nothing but their folder, so the first look at a mailbox need not take them one by one.
        marks = (partial(self._on_folder, folder, partial(self._mark, folder)) for folder in new)
        await all_of(marks, self._parts.fetches_at_once)
        # From its end, or a look that takes long would leave no time for anything else.
        self._looked_at = self._clock.monotonic()

    async def _look_in_between(self) -> None:
        """Look for new mail when a round's slices of the past take longer than the time between rounds."""
        if self._clock.monotonic() - self._looked_at >= max(self._parts.pace.poll_frequency, 1.0):
            await self._look()

    async def _follow(self, folder: Folder, seen_at: float) -> None:
        """Read the folder's feed from where it was left, and store what it brings."""
        reading = self._reading(folder)
        quota = self._parts.pace.emails_per_folder
        most = max(self._parts.pace.reinfer_batch_size, _FEED_PAGE)
        while quota > 0 and not self._troubles.is_out(folder.id):
            try:
                page = await self._ask(
                    self._parts.source.changes(self.mailbox, folder, reading.cursor, limit=max(1, min(quota, most)))
                )
            except SourceError as error:
                if error.asks is not Asks.RESYNC:
                    raise
                await self._mark_again(folder, error)
                return
            plan = plan_feed(
                page.changes,
                start=self._start,
                listed_until=None if reading.reader is None else reading.reader.until or _EARLIEST,
                known_drafts=reading.drafts,
                already_read=reading.recent,
            )
            if page.changes or page.cursor != reading.cursor:
                await self._store_page(folder, reading, page.cursor, plan)
            quota -= max(1, len(plan.fetch))
            if page.last and not self._troubles.is_out(folder.id):
                reading.watch.was_read(folder.activity, seen_at, self._clock.monotonic())
                self._followed(folder, reading)
                return
        reading.watch.forget()

    def _followed(self, folder: Folder, reading: _Reading) -> None:
        """Take note that the feed is at its end: what was listed before will not be brought once more."""
        reading.recent.clear()
        if reading.listed:
            reading.listed = False
            reading.reader = None
            self._storing.seal(self._storing.begin(folder), BackfillEnded(Order.CREATED))

    async def _store_page(self, folder: Folder, reading: _Reading, cursor: str, plan: FeedPlan) -> None:
        reading.drafts |= plan.drafts
        reading.drafts -= plan.no_drafts
        reading.cursor = cursor
        if reading.reader is not None:
            for ref in plan.fetch:
                reading.reader.note(ref)

        def effect(found: frozenset[str]) -> Effect:
            return Followed(cursor, plan.fetch, plan.drafts | found, plan.no_drafts)

        wanted = await self._unheld(folder, plan.fetch, ask=False)
        await self._storing.fetch(self._storing.begin(folder), wanted, effect)

    async def _unheld(self, folder: Folder, refs: tuple[ItemRef, ...], *, ask: bool) -> tuple[ItemRef, ...]:
        """Give those of the items that the sink does not hold already, where there is reason to `ask`.

        There always is behind a checkpoint that another process has left: if that one was killed, it had stored more
        than it could note, in any order, but no more than what its workers had in hand.
        """
        reading = self._reading(folder)
        if not refs or not (ask or reading.unsure):
            return refs
        held = await self._parts.sink.holds(self.mailbox, folder, refs)
        reading.unsure = self._parts.unsure if any(held) and reading.unsure else max(0, reading.unsure - 1)
        return tuple(ref for ref, is_held in zip(refs, held, strict=True) if not is_held)

    # --- Marking -----------------------------------------------------------------------------------------------------

    async def _mark_again(self, folder: Folder, error: SourceError) -> None:
        """Take a new position after the server has forgotten the old one, and look for what is missing."""
        self._log.warning(
            "the server has forgotten our position in a folder; taking a new one and looking for what is missing",
            folder=folder.path,
            code=error.code,
            found=(
                "everything that is missing"
                if self._parts.sink.recall is Recall.EVERYTHING
                else "what was received lately; older mail that was moved in meanwhile cannot be told apart"
            ),
        )
        # What was read ahead belongs to the old position: let it be confirmed first.
        await self._storing.settle()
        await self._mark(folder)

    async def _mark(self, folder: Folder) -> None:
        """Read the folder's feed to its end without fetching, and note what there is to catch up with."""
        backfill = backfill_for(
            self._storing.checkpoint.folders.get(folder.id),
            start=self._start,
            overlap=self._parts.overlap,
            recall=self._parts.sink.recall,
        )
        progress = self._display.folder(folder)
        progress.phase = Phase.MARKING
        source = self._parts.source
        cursor: str | None = None
        count = 0
        while True:
            page = await self._ask(source.changes(self.mailbox, folder, cursor, ids_only=True))
            cursor = page.cursor
            count += len(page.changes)
            progress.marked = count
            if page.last:
                break
        # Only now: what the folder holds at the mark was received no later than this.
        until = await self._ask(source.newest(self.mailbox, folder)) if count else None
        total = count if backfill.since is None and backfill.position is None else 0
        rest = replace(backfill, until=until, total=total) if count else None
        reading = self._reading(folder)
        reading.cursor = cursor
        reading.recent.clear()
        reading.reader = None if rest is None else ListingReader(rest)
        reading.listed = False
        self._storing.seal(self._storing.begin(folder), Marked(cursor, rest))

    # --- Catching up -------------------------------------------------------------------------------------------------

    def _is_behind(self, folder: Folder) -> bool:
        """Tell whether the folder is there, well, and not listed to its end."""
        reading = self._reading(folder)
        return (
            any(folder.id == present.id for present in self._folders)
            and not self._troubles.is_out(folder.id)
            and reading.reader is not None
            and not reading.listed
        )

    async def _catch_up(self, folder: Folder) -> None:
        """Catch up one folder by up to `emails_per_folder` emails; new mail goes first, also while that takes long."""
        quota = self._parts.pace.emails_per_folder
        while quota > 0:
            await self._look_in_between()
            reader = self._reading(folder).reader
            if reader is None or not self._is_behind(folder):
                return
            self.progress.phase = self._display.folder(folder).phase = Phase.BACKFILLING
            part = await self._on_folder(folder, partial(self._list, folder, reader, quota))
            if part is None:
                return
            quota -= len(part.refs)
            for batch in batches(part.refs, self._parts.pace.reinfer_batch_size):
                await self._look_in_between()
                if self._is_overtaken(folder, reader):
                    break
                await self._on_folder(folder, partial(self._store_batch, folder, reader, batch))
            if part.ends and not self._is_overtaken(folder, reader):
                self._end_listing(folder, part.order, reader)

    def _is_overtaken(self, folder: Folder, reader: ListingReader) -> bool:
        """Tell whether what the reader read no longer counts: the folder vanished, failed, or was marked again."""
        return not self._is_behind(folder) or self._reading(folder).reader is not reader

    async def _list(self, folder: Folder, reader: ListingReader, quota: int) -> _Slice:
        """Read the next page, and take up to `quota` items of it."""
        query = reader.query()
        page = await self._ask(
            self._parts.source.items(self.mailbox, folder, order=query.order, since=query.since, offset=query.offset)
        )
        new = reader.take(page)
        taken = tuple(new[:quota])
        self._display.estimated(folder, reader.total)
        # All of them at once: the feed may be read before the last of them is stored, and need not bring them. But for
        # drafts: the feed may be the only one to say that they were sent.
        self._reading(folder).recent.update(digest(ref.id) for ref in taken if not ref.is_draft)
        return _Slice(taken, query.order, reader.finished and len(taken) == len(new))

    async def _store_batch(self, folder: Folder, reader: ListingReader, batch: tuple[ItemRef, ...]) -> None:
        drafts = frozenset(digest(ref.id) for ref in batch if ref.is_draft)
        self._reading(folder).drafts |= drafts
        mail = tuple(ref for ref in batch if ref.is_mail and not ref.is_draft)
        wanted = await self._unheld(folder, mail, ask=reader.verify)
        total = reader.total

        def effect(found: frozenset[str]) -> Effect:
            return Listed(batch, drafts | found, total)

        await self._storing.fetch(self._storing.begin(folder), wanted, effect)

    def _end_listing(self, folder: Folder, order: Order, reader: ListingReader) -> None:
        reading = self._reading(folder)
        if order is Order.CREATED:
            reading.listed = True
            return
        reading.reader = reader.undated()
        self._storing.seal(self._storing.begin(folder), BackfillEnded(order))
