"""From refs to a checkpoint that has moved: one mailbox's fetching, its way through the pipeline, and its ledger.

Knows nothing of what is read next, or why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.backoff import Backoff
from ews_sync.engine.fetching import FetchOrder, FetchWindow, batches, close_all, held_bytes
from ews_sync.engine.ledger import Ledger
from ews_sync.engine.pipeline import Batch, Lane
from ews_sync.engine.progress import digest
from ews_sync.engine.reading import Reading
from ews_sync.engine.troubles import RoundEndedError
from ews_sync.errors import Asks, Scope, SinkError, SourceError
from ews_sync.model import MailboxCheckpoint, Recall, StartFrom

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from ews_sync.engine.ahead import Places
    from ews_sync.engine.budget import ByteBudget, Reservation
    from ews_sync.engine.checkpoints import CheckpointKeeper
    from ews_sync.engine.ledger import Step
    from ews_sync.engine.outages import Outage
    from ews_sync.engine.pipeline import Pipeline
    from ews_sync.engine.progress import Effect
    from ews_sync.engine.showing import Display
    from ews_sync.engine.watchdog import Watchdog
    from ews_sync.model import (
        Bucket,
        CheckpointStore,
        Clock,
        DeadLetter,
        Email,
        Fetched,
        Folder,
        ItemRef,
        Mailbox,
        Receipt,
        Sink,
        Source,
    )
    from ews_sync.settings.values import Pace
    from ews_sync.telemetry.status import Status

_TRIES = 5
"""How often a dead letter is tried to be recorded before its mailbox fails, when the trouble may be its alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all mailboxes share."""

    source: Source
    sink: Sink
    store: CheckpointStore
    pipeline: Pipeline
    budget: ByteBudget
    keeper: CheckpointKeeper
    watchdog: Watchdog
    source_outage: Outage
    """What keeps every mailbox from being read."""
    sink_outage: Outage
    """What keeps all mail from being stored."""
    clock: Clock
    status: Status
    pace: Pace
    ahead: Places
    """For answers that are asked for before their turn."""
    small: int
    """How many items a folder has at most whose feed is read from its start, without a listing."""
    turns: asyncio.Semaphore
    """Whoever lists what is to be caught up with holds one: a page of a listing takes memory until it is fetched."""
    fetches_at_once: int
    """How many fetches of one mailbox run at the same time; the server's own limits come on top."""
    jitter: Callable[[], float]
    """Gives numbers from 0 to 1 at random."""
    begun: set[tuple[Bucket, str]]
    """The mailboxes that this process has begun with: to start from the config is for its start, and not for later."""
    overlap: timedelta
    """How far behind `synced_until` a search for what is missing begins.

    Mail is delivered some time after it is received.
    """

    @property
    def unsure(self) -> int:
        """How many batches behind a checkpoint of another process the sink may hold already, in any order.

        Only a sink for which a repeat costs something is asked.
        """
        return 2 * max(1, self.pace.max_concurrent_uploads) if self.sink.recall is Recall.ONE_BY_ONE else 0


class Storing:
    """Stores one mailbox's mail in order.

    `moved` hears each time that something has been fetched, or stored, and `fetched` in which folder. `failed` hears of
    a folder whose items cannot be fetched, after its steps were dropped; it raises what concerns the whole mailbox.
    `found_drafts` hears which items turned out to be unsent.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        mailbox: Mailbox,
        parts: Parts,
        display: Display,
        *,
        moved: Callable[[], None],
        fetched: Callable[[Folder], None],
        failed: Callable[[Folder, SourceError], None],
        found_drafts: Callable[[Folder, frozenset[str]], None],
    ) -> None:
        self._mailbox = mailbox
        self._parts = parts
        self._clock = parts.clock
        self._display = display
        self._moved = moved
        self._fetched = fetched
        self._failed = failed
        self._found_drafts = found_drafts
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
            moved=moved,
        )
        self._log = structlog.get_logger("ews_sync.mailbox").bind(mailbox=mailbox.address)

    @property
    def checkpoint(self) -> MailboxCheckpoint:
        """What is confirmed."""
        return self._ledger.checkpoint

    async def open(self) -> None:
        """Read the checkpoint and make the sink ready to go on from it, where that is still to be done.

        Raises `SinkError`, also where the store has said meanwhile that it is another one than the checkpoint's.
        """
        self._parts.keeper.check(self._mailbox)
        if self._must_load:
            checkpoint = await self._parts.store.load(self._mailbox)
            key = (self._mailbox.bucket, self._mailbox.address)
            if self._mailbox.start_from is StartFrom.CONFIG and key not in self._parts.begun:
                checkpoint = MailboxCheckpoint(sink_position=checkpoint.sink_position)
            self._parts.begun.add(key)
            self._ledger = Ledger(checkpoint)
            self._must_load = False
        if self._must_open:
            await self._parts.sink.open(self._mailbox, self.checkpoint.sink_position)
            self._must_open = False
        self._display.progress.sink_ready = True

    def reading_anew(self) -> Reading:
        """Give how far a folder is read of which another process has left a checkpoint.

        If that one was killed, it had stored more than it could note, in any order, but no more than what its workers
        had in hand. A sink for which a repeat costs something is asked about so much.
        """
        unsure = self._parts.unsure
        return Reading(unsure_of_feed=unsure, unsure_of_listing=unsure * self._parts.pace.reinfer_batch_size)

    async def unheld_of_feed(self, folder: Folder, reading: Reading, refs: tuple[ItemRef, ...]) -> tuple[ItemRef, ...]:
        """Give those of the items that the sink does not hold already, where another process may have stored them."""
        if not refs or not reading.unsure_of_feed:
            return refs
        held = await self._parts.sink.holds(self._mailbox, folder, refs)
        reading.unsure_of_feed = self._parts.unsure if any(held) else reading.unsure_of_feed - 1
        return _not_held(refs, held)

    async def unheld_of_listing(
        self, folder: Folder, reading: Reading, refs: tuple[ItemRef, ...], *, verify: bool
    ) -> tuple[ItemRef, ...]:
        """Give likewise those of a listing; with `verify` in any case."""
        if not refs or not (verify or reading.unsure_of_listing):
            return refs
        held = await self._parts.sink.holds(self._mailbox, folder, refs)
        if reading.unsure_of_listing:
            left = max(0, reading.unsure_of_listing - len(refs))
            reading.unsure_of_listing = self.reading_anew().unsure_of_listing if any(held) else left
        return _not_held(refs, held)

    def begin(self, folder: Folder) -> Step:
        """Begin a step behind all others."""
        return self._ledger.begin(folder)

    def seal(self, step: Step, effect: Effect) -> None:
        """Say what a step does for which nothing (more) is fetched."""
        if self._ledger.seal(step, effect, self._clock.now()):
            self._keep()

    async def fetch(self, step: Step, refs: Sequence[ItemRef], effect: Callable[[frozenset[str]], Effect]) -> None:
        """Have the step's items fetched and stored; `effect` is what the step does once that is confirmed.

        It is told which of them turned out to be drafts. Raises what has failed the mailbox's way to the sink.
        """
        cut = list(batches(refs, self._parts.pace.reinfer_batch_size))
        if not cut:
            self.seal(step, effect(frozenset()))
        for number, batch in enumerate(cut, start=1):
            if step.dropped:
                return
            await self._window.add(FetchOrder(step.folder, step, batch, effect if number == len(cut) else None))
            self._raise_failure()

    async def hand_on(self) -> None:
        """Have all that is being fetched go on its way: whoever waits for other mailboxes must not hold memory."""
        await self._window.flush()

    async def settle(self) -> None:
        """Wait until everything that was begun is confirmed. Raises what has failed the mailbox's way to the sink."""
        await self.hand_on()
        await self._lane.settled()
        self._raise_failure()

    async def start_over(self, *, reload: bool = False) -> None:
        """Give up what was begun and is not confirmed, once what is on its way has arrived.

        With `reload` also what is confirmed: what the store says then is what counts.
        """
        await self._window.cancel()
        await self._lane.settled()
        self._ledger.abandon()
        self._lane.forgive()
        # An ordered sink may hold more than the checkpoint knows: have it cut back before anything is put again.
        self._must_open = self._must_open or self._parts.sink.ordered or reload
        if reload:
            self._must_load = True
            self._parts.keeper.forget(self._mailbox)

    async def stop_fetching(self) -> None:
        """Give up what is being fetched."""
        await self._window.cancel()

    async def _hand_on(
        self, order: FetchOrder, fetched: Sequence[Fetched] | SourceError, reserved: Reservation
    ) -> None:
        self._moved()
        step = order.step
        if isinstance(fetched, SourceError):
            self._parts.budget.release(reserved)
            if not step.dropped:
                self._drop(order.folder, fetched)
            return
        self._fetched(order.folder)
        emails = tuple(outcome.email for outcome in fetched if outcome.email is not None)
        try:
            self._raise_failure()
            if not step.dropped:
                await self._record([outcome.dead_letter for outcome in fetched if outcome.dead_letter is not None])
        except BaseException:
            self._give_back(fetched, reserved)
            raise
        if step.dropped:
            self._give_back(fetched, reserved)
            return
        drafts = frozenset(digest(outcome.ref.id) for outcome in fetched if outcome.draft)
        if drafts:
            self._found_drafts(order.folder, drafts)
        step.drafts |= drafts
        self._ledger.expect(step, len(emails))
        # Sealed first: a stop while it waits to be stored must not keep what is stored in the end from counting.
        if order.effect is not None:
            self.seal(step, order.effect(step.drafts))
        if emails:
            # What was reserved is a guess, and on the safe side.
            reserved = self._parts.budget.shrink(reserved, held_bytes(emails))
            await self._parts.pipeline.submit(Batch(self._lane, step, emails, reserved))
        else:
            self._parts.budget.release(reserved)

    def _give_back(self, fetched: Sequence[Fetched], reserved: Reservation) -> None:
        close_all(fetched)
        self._parts.budget.release(reserved)

    def _drop(self, folder: Folder, error: SourceError) -> None:
        """Take a folder whose items cannot be fetched out of the round; the others go on."""
        dropped = self._ledger.drop(folder.id, self._clock.now())
        if dropped.moved:
            self._keep()
        self._failed(folder, error)
        if dropped.begun and self._parts.sink.ordered:
            # What is already in an ordered sink, and will be read again, can only be cut off before more follows.
            raise RoundEndedError(None)

    async def _record(self, letters: Sequence[DeadLetter]) -> None:
        """Record dead letters before the checkpoint may pass them by."""
        if not letters:
            return
        backoff = Backoff(0.5, 60.0, self._parts.jitter)
        outage, who = self._parts.sink_outage, ("dead letters", self._mailbox.address)
        try:
            while not await self._try_to_record(letters, backoff):
                pass
            outage.well(who)
        finally:
            outage.left(who)
        self._tell_dead(letters)

    async def _try_to_record(self, letters: Sequence[DeadLetter], backoff: Backoff) -> bool:
        """Try once, and wait where it failed and makes sense to try again; tell whether it worked."""
        try:
            await self._parts.sink.dead_letter(letters)
        except SinkError as error:
            wait = max(backoff.next(), error.retry_after or 0.0)
            if error.asks is not Asks.RETRY:
                raise
            if error.scope is Scope.PROCESS:
                self._parts.sink_outage.met(("dead letters", self._mailbox.address), error, wait)
            elif backoff.failures >= _TRIES:
                raise
            self._moved()
            await self._clock.sleep(wait)
            return False
        return True

    def _tell_dead(self, letters: Sequence[DeadLetter]) -> None:
        """Count and tell what can never be stored."""
        self._display.progress.dead_letters += len(letters)
        for letter in letters:
            self._parts.status.note_dead_letter(letter, self._clock.now())
            self._log.warning(
                "an email cannot be stored and was recorded as a dead letter",
                item=letter.item_id,
                message_id=letter.email_id,
                folder=letter.folder,
                code=letter.code,
                reason=letter.reason,
            )

    def _confirmed(self, step: Step, emails: Sequence[Email], receipt: Receipt) -> None:
        """Hear from the pipeline that emails of a step are stored, but for those that the sink refused."""
        self._moved()
        now = self._clock.now()
        refused = {letter.email_id for letter in receipt.refused}
        stored = [email for email in emails if email.id not in refused]
        self._display.stored(step.folder, stored, (now, self._clock.monotonic()))
        self._tell_dead(receipt.refused)
        if self._ledger.confirm(step, len(emails), now, receipt.position):
            self._keep()

    def _keep(self) -> None:
        self._parts.keeper.moved(self._mailbox, self.checkpoint)
        self._display.positions(self.checkpoint, self._display.progress.folders)

    def _raise_failure(self) -> None:
        if self._lane.failure is not None:
            raise self._lane.failure


def _not_held(refs: tuple[ItemRef, ...], held: Sequence[bool]) -> tuple[ItemRef, ...]:
    return tuple(ref for ref, is_held in zip(refs, held, strict=True) if not is_held)
