"""One mailbox's loop: look for what is new, follow it, catch up a slice, wait, and again.

What is read runs ahead of what is confirmed, within a round; every round begins at the checkpoint, so a round that
fails is simply done again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.backoff import Backoff
from ews_sync.engine.feed import plan_feed
from ews_sync.engine.fetching import FetchOrder, FetchWindow, batches
from ews_sync.engine.ledger import Ledger
from ews_sync.engine.listing import ListingReader
from ews_sync.engine.pipeline import Batch, Lane
from ews_sync.engine.progress import BackfillEnded, Followed, Listed, Marked, digest
from ews_sync.engine.tasks import all_of
from ews_sync.engine.watch import FolderWatch
from ews_sync.errors import Asks, CursorRejectedError, EwsSyncError, FolderGoneError, ProtocolError, Scope, SinkError
from ews_sync.model import Backfill, FolderCheckpoint, MailboxCheckpoint, Order, StartFrom
from ews_sync.telemetry.status import Failure, FolderProgress, Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime, timedelta

    from ews_sync.engine.budget import ByteBudget
    from ews_sync.engine.checkpoints import CheckpointKeeper
    from ews_sync.engine.feed import FeedPlan
    from ews_sync.engine.ledger import Step
    from ews_sync.engine.pipeline import Pipeline
    from ews_sync.engine.progress import Effect
    from ews_sync.model import (
        CheckpointStore,
        Clock,
        DeadLetter,
        Fetched,
        Folder,
        ItemRef,
        Mailbox,
        Receipt,
        Sink,
        Source,
    )
    from ews_sync.settings.values import Pace
    from ews_sync.telemetry.status import MailboxProgress


@dataclass(frozen=True, slots=True)
class Parts:
    """What all mailboxes share."""

    source: Source
    sink: Sink
    store: CheckpointStore
    pipeline: Pipeline
    budget: ByteBudget
    keeper: CheckpointKeeper
    clock: Clock
    pace: Pace
    fetches_at_once: int
    """How many fetches of one mailbox run at the same time; the server's own limits come on top."""
    overlap: timedelta
    """How far behind `synced_until` a search for what is missing begins.

    Mail is delivered some time after it is received.
    """


class MailboxSync:
    """Keeps one mailbox in step."""

    def __init__(self, mailbox: Mailbox, parts: Parts, progress: MailboxProgress) -> None:
        self.mailbox = mailbox
        self.progress = progress
        self._parts = parts
        self._clock = parts.clock
        self._ledger = Ledger(MailboxCheckpoint())
        self._must_load = True
        self._must_open = True
        self._lane = Lane(self._confirmed)
        self._window = FetchWindow(
            partial(parts.source.fetch, mailbox),
            self._hand_on,
            parts.budget,
            parts.clock,
            at_once=1 if parts.pipeline.in_line else parts.fetches_at_once,
            pause=parts.pace.poll_message_sleep,
        )
        self._watches: dict[str, FolderWatch] = {}
        self._readers: dict[str, ListingReader] = {}
        self._recent: dict[str, set[str]] = {}
        self._drafts: dict[str, set[str]] = {}
        self._cursors: dict[str, str] = {}
        self._folders: list[Folder] = []
        self._looked_at = 0.0
        self._backoff = Backoff(first=5.0, longest=300.0)
        self._log = structlog.get_logger("ews_sync.mailbox").bind(mailbox=mailbox.address)

    async def open(self) -> None:
        """Read the checkpoint, if that is still to be done, and make the sink ready to go on from it.

        Raises `SinkError`.
        """
        if self._must_load:
            checkpoint = await self._parts.store.load(self.mailbox)
            if self.mailbox.start_from is StartFrom.CONFIG:
                checkpoint = MailboxCheckpoint(sink_position=checkpoint.sink_position)
            self._ledger = Ledger(checkpoint)
            self._must_load = False
        await self._parts.sink.open(self.mailbox, self._ledger.checkpoint.sink_position)
        self._must_open = False
        self.progress.sink_ready = True

    async def run(self) -> None:
        """Keep the mailbox in step until cancelled. Raises only what asks for the whole process to stop."""
        try:
            while True:
                await self._clock.sleep(await self._try_round())
        finally:
            await self._window.cancel()

    # --- Rounds ------------------------------------------------------------------------------------------------------

    async def _try_round(self) -> float:
        """Do a round; give the seconds to wait after it."""
        try:
            await self._round()
        except EwsSyncError as error:
            await self._recover()
            if error.scope is Scope.PROCESS and error.asks is Asks.STOP:
                raise
            return self._failed(error)
        self._succeeded()
        return self._parts.pace.poll_frequency

    async def _round(self) -> None:
        if self._must_load or self._must_open:
            await self.open()
        self._begin_at_checkpoint()
        await self._look()
        await self._catch_up()
        await self._window.flush()
        await self._lane.settled()
        if self._lane.failure is not None:
            raise self._lane.failure

    def _begin_at_checkpoint(self) -> None:
        folders = self._ledger.checkpoint.folders
        self._readers.clear()
        self._drafts = {folder_id: set(folder.drafts) for folder_id, folder in folders.items() if folder.drafts}
        self._cursors = {folder_id: folder.cursor for folder_id, folder in folders.items() if folder.cursor is not None}

    async def _recover(self) -> None:
        """Give up what was begun and not confirmed; the next round reads it again."""
        await self._window.cancel()
        await self._lane.settled()
        self._ledger.abandon()
        self._lane.forgive()
        self._recent.clear()
        for watch in self._watches.values():
            watch.forget()
        # An ordered sink may hold more than the checkpoint knows: have it cut back before anything is put again.
        self._must_open = self._must_open or self._parts.sink.ordered

    def _failed(self, error: EwsSyncError) -> float:
        first = self.progress.failure is None or self.progress.failure.reason != error.summary
        wait = self._backoff.next()
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        if error.asks is Asks.STOP:
            wait = max(wait, 60.0)
        since = self.progress.failure.since if self.progress.failure is not None else self._clock.now()
        self.progress.failure = Failure.of(error, since)
        self.progress.phase = Phase.FAILED
        if first or self._backoff.failures % 12 == 0:
            self._log.error(
                "mailbox failed",
                problem=error.summary,
                hint=error.hint,
                code=error.code,
                request_id=error.request_id,
                next_try_in=round(wait),
            )
        return wait

    def _succeeded(self) -> None:
        if self.progress.failure is not None:
            self._log.info("mailbox is well again")
        self._backoff.reset()
        self.progress.failure = None
        self.progress.rounds += 1
        self.progress.last_success_at = self._clock.now()
        behind = any(folder.backfill is not None for folder in self._ledger.checkpoint.folders.values())
        self.progress.phase = Phase.BACKFILLING if behind else Phase.FOLLOWING

    # --- Looking for what is new -------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask once for all folders, then read the feed of those that changed, and mark those that are new."""
        looked_at = self._looked_at = self._clock.monotonic()
        listed = await self._parts.source.folders(self.mailbox)
        self.progress.source_answered = True
        self._folders = [folder for folder in listed if self.mailbox.wants(folder.path)]
        self._show_folders()
        for folder in self._folders:
            if folder.id in self._cursors:
                await self._on_folder(folder, partial(self._follow, folder, looked_at))
        # Marks depend on nothing but their folder, so the first look at a mailbox need not take them one by one.
        new = [folder for folder in self._folders if folder.id not in self._cursors]
        at_once = self._parts.fetches_at_once
        await all_of((partial(self._on_folder, folder, partial(self._mark, folder)) for folder in new), at_once)

    async def _on_folder(self, folder: Folder, work: Callable[[], Awaitable[None]]) -> None:
        """Do work on one folder whose failure leaves the other folders alone."""
        try:
            await work()
        except FolderGoneError:
            self._log.debug("the folder is gone", folder=folder.path)
        except ProtocolError as error:
            progress = self.progress.folders[folder.id]
            if progress.failure is None or progress.failure.reason != error.summary:
                self._log.error(
                    "folder failed", folder=folder.path, problem=error.summary, hint=error.hint, code=error.code
                )
            progress.failure = Failure.of(error, self._clock.now())
        else:
            self.progress.folders[folder.id].failure = None

    async def _follow(self, folder: Folder, looked_at: float) -> None:
        """Read the folder's feed from where it was left, and store what it brings."""
        watch = self._watches.setdefault(folder.id, FolderWatch())
        if not watch.must_read(folder.activity, looked_at):
            self._recent.pop(folder.id, None)
            return
        quota = self._parts.pace.emails_per_folder
        while quota > 0:
            try:
                page = await self._parts.source.changes(self.mailbox, folder, self._cursors[folder.id], limit=quota)
            except CursorRejectedError as error:
                await self._mark_again(folder, error)
                return
            plan = plan_feed(
                page.changes,
                start=self.mailbox.start_timestamp,
                known_drafts=self._drafts.get(folder.id, ()),
                already_read=self._recent.get(folder.id, ()),
            )
            if page.changes or page.cursor != self._cursors[folder.id]:
                await self._store_page(folder, page.cursor, plan)
            quota -= max(1, len(plan.fetch))
            if page.last:
                self._recent.pop(folder.id, None)
                watch.was_read(folder.activity, looked_at, self._clock.monotonic())
                return
        watch.forget()

    async def _store_page(self, folder: Folder, cursor: str, plan: FeedPlan) -> None:
        known = self._drafts.setdefault(folder.id, set())
        known |= plan.drafts
        known -= plan.no_drafts
        reader = self._readers.get(folder.id)
        if reader is not None:
            for ref in plan.fetch:
                reader.note(ref)
        step = self._ledger.begin(folder)
        self._cursors[folder.id] = cursor

        def effect(found: frozenset[str]) -> Effect:
            return Followed(cursor, plan.fetch, plan.drafts | found, plan.no_drafts)

        await self._fetch(folder, step, plan.fetch, effect)

    # --- Marking -----------------------------------------------------------------------------------------------------

    async def _mark(self, folder: Folder) -> None:
        """Read the folder's feed to its end without fetching, and note what there is to catch up with."""
        before = self._ledger.checkpoint.folders.get(folder.id)
        since = self.mailbox.start_timestamp
        if before is not None and before.synced_until is not None and not self._parts.sink.remembers:
            since = _later(since, before.synced_until - self._parts.overlap)
        resuming = before is not None and (before.synced_until is not None or before.backfill is not None)
        await self._mark_from(folder, Backfill(since=since, verify=resuming and self._parts.sink.remembers))

    async def _mark_again(self, folder: Folder, error: CursorRejectedError) -> None:
        """Take a new position after the server has forgotten the old one, and look for what is missing."""
        before = self._ledger.checkpoint.folders.get(folder.id) or FolderCheckpoint(folder.id, folder.path)
        self._log.warning(
            "the server has forgotten our position in a folder; taking a new one and looking for what is missing",
            folder=folder.path,
            code=error.code,
            since=before.synced_until if not self._parts.sink.remembers else self.mailbox.start_timestamp,
        )
        # What was read ahead belongs to the old position: let it be confirmed first.
        await self._window.flush()
        await self._lane.settled()
        before = self._ledger.checkpoint.folders.get(folder.id, before)
        self._cursors.pop(folder.id, None)
        if before.backfill is not None and before.backfill.order is Order.RECEIVED:
            await self._mark_from(folder, replace(before.backfill, verify=self._parts.sink.remembers))
        else:
            await self._mark(folder)

    async def _mark_from(self, folder: Folder, backfill: Backfill) -> None:
        progress = self.progress.folders[folder.id]
        progress.phase = Phase.MARKING
        source = self._parts.source
        cursor: str | None = None
        count = 0
        last = False
        while not last:
            page = await source.changes(self.mailbox, folder, cursor, ids_only=True)
            cursor, last = page.cursor, page.last
            count += len(page.changes)
            progress.marked = count
        until = await source.newest(self.mailbox, folder) if count else None
        assert cursor is not None  # noqa: S101 - the loop ran at least once
        step = self._ledger.begin(folder)
        total = count if backfill.since is None and backfill.position is None else 0
        rest = replace(backfill, until=until, total=total) if count else None
        self._cursors[folder.id] = cursor
        self._recent.pop(folder.id, None)
        self._moved(self._ledger.seal(step, Marked(cursor, rest), self._clock.now()))
        if rest is not None:
            self._readers[folder.id] = ListingReader(rest)

    # --- Catching up -------------------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Give every folder that is behind its turn; new mail goes first, also while that takes long."""
        for folder in list(self._folders):
            checkpoint = self._ledger.checkpoint.folders.get(folder.id)
            reader = self._readers.get(folder.id)
            if reader is None and checkpoint is not None and checkpoint.backfill is not None:
                reader = self._readers[folder.id] = ListingReader(checkpoint.backfill)
            if reader is not None:
                self.progress.phase = self.progress.folders[folder.id].phase = Phase.BACKFILLING
                await self._on_folder(folder, partial(self._turn, folder))

    async def _turn(self, folder: Folder) -> None:
        """Catch up one folder by up to `emails_per_folder` emails."""
        quota = self._parts.pace.emails_per_folder
        while quota > 0:
            await self._look_in_between()
            reader = self._readers.get(folder.id)
            if reader is None:
                return
            query = reader.query()
            page = await self._parts.source.items(
                self.mailbox, folder, order=query.order, since=query.since, offset=query.offset
            )
            if page.total is not None:
                self.progress.folders[folder.id].total = reader.estimate(page.total)
            new = reader.take(page)
            taken = new[:quota]
            quota -= len(taken)
            await self._store_listed(folder, taken, verify=reader.verify)
            if reader.finished and len(taken) == len(new):
                self._end_listing(folder, query.order, reader)

    async def _look_in_between(self) -> None:
        """Look for new mail when a round's slices of the past take longer than the time between rounds."""
        if self._clock.monotonic() - self._looked_at >= max(self._parts.pace.poll_frequency, 1.0):
            await self._look()

    async def _store_listed(self, folder: Folder, refs: Sequence[ItemRef], *, verify: bool) -> None:
        held = await self._parts.sink.holds(self.mailbox, folder, refs) if verify and refs else [False] * len(refs)
        there = {ref.id for ref, is_held in zip(refs, held, strict=True) if is_held}
        recent = self._recent.setdefault(folder.id, set())
        for batch in batches(refs, self._parts.pace.reinfer_batch_size):
            recent.update(digest(ref.id) for ref in batch)
            drafts = frozenset(digest(ref.id) for ref in batch if ref.is_draft)
            self._drafts.setdefault(folder.id, set()).update(drafts)
            wanted = tuple(ref for ref in batch if ref.is_mail and not ref.is_draft and ref.id not in there)
            step = self._ledger.begin(folder)

            def effect(
                found: frozenset[str], batch: tuple[ItemRef, ...] = batch, drafts: frozenset[str] = drafts
            ) -> Effect:
                return Listed(batch, drafts | found)

            await self._fetch(folder, step, wanted, effect)

    def _end_listing(self, folder: Folder, order: Order, reader: ListingReader) -> None:
        step = self._ledger.begin(folder)
        if order is Order.RECEIVED:
            self._readers[folder.id] = reader.undated()
        else:
            del self._readers[folder.id]
        self._moved(self._ledger.seal(step, BackfillEnded(order), self._clock.now()))

    # --- Storing -----------------------------------------------------------------------------------------------------

    async def _fetch(
        self, folder: Folder, step: Step, refs: Sequence[ItemRef], effect: Callable[[frozenset[str]], Effect]
    ) -> None:
        """Have the step's items fetched and stored; `effect` is what the step does once that is confirmed."""
        cut = list(batches(refs, self._parts.pace.reinfer_batch_size))
        if not cut:
            self._moved(self._ledger.seal(step, effect(frozenset()), self._clock.now()))
        for number, batch in enumerate(cut, start=1):
            await self._window.add(FetchOrder(folder, step, batch, effect if number == len(cut) else None))
            self._raise_failure()

    async def _hand_on(self, order: FetchOrder, fetched: Sequence[Fetched], reserved: int) -> None:
        emails = tuple(outcome.email for outcome in fetched if outcome.email is not None)
        batch = Batch(self._lane, order.step, emails, reserved)
        try:
            self._raise_failure()
            await self._record([outcome.dead_letter for outcome in fetched if outcome.dead_letter is not None])
        except BaseException:
            self._parts.budget.release(reserved)
            for email in emails:
                email.mime.close()
            raise
        drafts = frozenset(digest(outcome.ref.id) for outcome in fetched if outcome.draft)
        self._drafts.setdefault(order.folder.id, set()).update(drafts)
        order.step.drafts |= drafts
        self._ledger.expect(order.step, len(emails))
        if emails:
            await self._parts.pipeline.submit(batch)
        else:
            self._parts.budget.release(reserved)
        if order.effect is not None:
            self._moved(self._ledger.seal(order.step, order.effect(order.step.drafts), self._clock.now()))

    async def _record(self, letters: Sequence[DeadLetter]) -> None:
        """Record dead letters before the checkpoint may pass them by."""
        if not letters:
            return
        backoff = Backoff(first=0.5, longest=60.0)
        while True:
            try:
                await self._parts.sink.dead_letter(letters)
            except SinkError as error:
                if error.asks is not Asks.RETRY:
                    raise
                self._log.error("a dead letter cannot be recorded; trying again", problem=str(error))
                await self._clock.sleep(backoff.next())
            else:
                break
        self.progress.dead_letters += len(letters)
        for letter in letters:
            self._log.warning(
                "an email cannot be stored and was recorded as a dead letter",
                item=letter.item_id,
                message_id=letter.email_id,
                folder=letter.folder,
                code=letter.code,
                reason=letter.reason,
            )

    def _confirmed(self, batch: Batch, receipt: Receipt) -> None:
        """Hear from the pipeline that a batch is stored."""
        now = self._clock.now()
        stored = len(batch.emails) - len(receipt.refused)
        progress = self.progress
        progress.stored += stored
        progress.stored_bytes += sum(email.mime.size for email in batch.emails)
        progress.dead_letters += len(receipt.refused)
        progress.rate.add(self._clock.monotonic(), stored)
        progress.last_stored_at = now
        newest = max((email.metadata.received_at or email.timestamp for email in batch.emails), default=None)
        if newest is not None and (progress.newest_received is None or newest > progress.newest_received):
            progress.newest_received = newest
        folder = progress.folders.get(batch.step.folder.id)
        if folder is not None:
            folder.stored += stored
        self._moved(self._ledger.confirm(batch.step, len(batch.emails), now, receipt.position))

    def _moved(self, moved: bool) -> None:  # noqa: FBT001 - the ledger's answer, passed straight on
        if moved:
            self._parts.keeper.moved(self.mailbox, self._ledger.checkpoint)
            self._show_positions()

    def _raise_failure(self) -> None:
        if self._lane.failure is not None:
            raise self._lane.failure

    # --- Showing -----------------------------------------------------------------------------------------------------

    def _show_folders(self) -> None:
        known = self.progress.folders
        present = {folder.id for folder in self._folders}
        for folder_id in [folder_id for folder_id in known if folder_id not in present]:
            del known[folder_id]
        for folder in self._folders:
            progress = known.setdefault(folder.id, FolderProgress(folder.path))
            progress.path = folder.path
            progress.items = folder.total
        self._show_positions()

    def _show_positions(self) -> None:
        for folder_id, checkpoint in self._ledger.checkpoint.folders.items():
            progress = self.progress.folders.get(folder_id)
            if progress is None:
                continue
            progress.synced_until = checkpoint.synced_until
            progress.last_synced_at = checkpoint.last_synced_at
            if checkpoint.backfill is not None:
                progress.phase = Phase.BACKFILLING
                progress.done = checkpoint.backfill.done
                progress.total = max(progress.total, checkpoint.backfill.total)
            elif checkpoint.cursor is not None:
                progress.phase = Phase.FOLLOWING
                progress.done = progress.total = max(progress.done, progress.total)


def _later(first: datetime | None, second: datetime) -> datetime:
    return second if first is None else max(first, second)
