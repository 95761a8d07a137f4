"""All mailboxes together: start, run, stop."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.ahead import Places
from ews_sync.engine.budget import ByteBudget
from ews_sync.engine.checkpoints import CheckpointKeeper
from ews_sync.engine.mailbox import MailboxSync
from ews_sync.engine.outages import sink_outage, source_outage
from ews_sync.engine.pipeline import Pipeline
from ews_sync.engine.showing import progress_after
from ews_sync.engine.storing import Parts
from ews_sync.engine.watchdog import PATIENCE, Watchdog
from ews_sync.errors import Asks, Scope, SinkError
from ews_sync.settings.values import Pace
from ews_sync.telemetry.status import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ews_sync.model import Bucket, CheckpointStore, Clock, Mailbox, Sink, Source
    from ews_sync.telemetry.status import Status

_STAGGER = 0.05
"""Seconds between the first rounds of two mailboxes, so that thousands of them do not all begin at once."""
_AT_ONCE = 4
"""So many of them do."""
_MARKING = 64
"""How many mailboxes of which nothing is known yet are looked at, and all their folders marked, at the same time.

Many more than a server answers at once, so that a few that have to wait hold nobody up; and few enough for memory, of
which each takes some 50 KB meanwhile.
"""
_AHEAD = 16
"""How many answers all mailboxes together ask for before their turn. A page of a listing takes some 150 KB."""
_PACED_RATE = 1000.0
"""Emails a second that the pace between one mailbox's emails should allow in all, as long as that takes few turns."""
_MOST_TURNS = 256
"""With a page of a listing for each, some 35 MB."""
_FOR_CHECKPOINTS = 4.0
"""Seconds of the grace that are kept for saving the checkpoints; Kubernetes waits for 30 in all."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine works: the documented pace, and the house's own limits.

    `memory_for_mail` is in bytes, the other numbers with a unit of time in seconds. `jitter` gives numbers from 0 to 1.
    """

    pace: Pace = field(default_factory=Pace)
    fetches_at_once: int = 8
    memory_for_mail: int = 15 * 1024 * 1024
    small: int = 4000
    """How many items a folder has at most that is read from its feed alone: what is new in it waits for the rest."""
    turns: int = 32
    """How many mailboxes list what is to be caught up with at the same time."""
    overlap: timedelta = timedelta(minutes=10)
    grace: float = 25.0
    patience: float = PATIENCE
    jitter: Callable[[], float] = random.random
    begun: set[tuple[Bucket, str]] = field(default_factory=set)
    """The mailboxes that this process has begun with; engines that follow each other share it."""


class Engine:
    """Keeps mailboxes in step until it is stopped."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it joins
        self,
        mailboxes: Sequence[Mailbox],
        source: Source,
        sink: Sink,
        store: CheckpointStore,
        clock: Clock,
        status: Status,
        options: EngineOptions,
    ) -> None:
        budget = ByteBudget(options.memory_for_mail)
        self._options = options
        self._clock = clock
        self._status = status
        sink_away = sink_outage(clock, status)
        watchdog = Watchdog(status.health, partial(_known_outage, status), patience=options.patience)
        self._pipeline = Pipeline(
            sink,
            budget,
            clock,
            sink_away,
            watchdog,
            workers=options.pace.max_concurrent_uploads,
            jitter=options.jitter,
        )
        self._keeper = CheckpointKeeper(store, clock, status, watchdog, options.jitter)
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger("ews_sync.engine")
        parts = Parts(
            source=source,
            sink=sink,
            store=store,
            pipeline=self._pipeline,
            budget=budget,
            keeper=self._keeper,
            watchdog=watchdog,
            source_outage=source_outage(clock, status),
            sink_outage=sink_away,
            clock=clock,
            status=status,
            pace=options.pace,
            ahead=Places(_AHEAD),
            small=options.small,
            turns=asyncio.Semaphore(_turns(options)),
            fetches_at_once=options.fetches_at_once,
            jitter=options.jitter,
            begun=options.begun,
            overlap=options.overlap,
        )
        # Another engine may have run before this one in the same process: what it has counted goes on.
        before = status.mailboxes
        status.mailboxes = {
            mailbox.address: progress_after(before.get(mailbox.address), mailbox) for mailbox in mailboxes
        }
        marking = asyncio.Semaphore(_MARKING)
        self._mailboxes = [
            MailboxSync(mailbox, parts, status.mailboxes[mailbox.address], marking) for mailbox in mailboxes
        ]

    def stop(self) -> None:
        """Ask for an orderly end: `run` then returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Keep all mailboxes in step until `stop`. Raises the error that asks for the whole process to stop."""
        if not await self._opened():
            return
        helpers = [
            asyncio.create_task(self._pipeline.run(), name="pipeline"),
            asyncio.create_task(self._keeper.run(), name="checkpoints"),
        ]
        syncs = [
            asyncio.create_task(self._run_mailbox(sync, _delay(number)), name=f"mailbox {sync.mailbox.address}")
            for number, sync in enumerate(self._mailboxes)
        ]
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({*helpers, *syncs, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._wind_up(helpers, [*syncs, stopping])
        for task in done:
            task.result()

    async def _opened(self) -> bool:
        """Make the mailboxes ready; False when it is to stop meanwhile."""
        opening = asyncio.create_task(self._open_all(), name="open")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
            return opening.done() and not self._stopping.is_set()
        finally:
            await _cancelled([opening, stopping])

    async def _open_all(self) -> None:
        """Make every mailbox ready; whoever else keeps one of them in the same place is a reason not to start.

        A mailbox that fails is tried again in its rounds. So are all that are left when the sink is unwell for
        everybody: thousands of them would have to wait for each other's failures.
        """
        for sync in self._mailboxes:
            if self._stopping.is_set():
                return
            try:
                await sync.open()
            except SinkError as error:
                if error.scope is Scope.PROCESS and error.asks is Asks.STOP:
                    raise
                sync.progress.failure = Failure.of(error, self._clock.now())
                if error.scope is Scope.PROCESS:
                    self._log.error("nothing can be opened yet; trying again", problem=error.summary, hint=error.hint)
                    return
                self._log.error("mailbox cannot be opened yet", mailbox=sync.mailbox.address, problem=str(error))

    async def _run_mailbox(self, sync: MailboxSync, delay: float) -> None:
        if delay:
            await self._clock.sleep(delay)
        await sync.run()

    async def _wind_up(self, helpers: list[asyncio.Task[None]], others: list[asyncio.Task[object]]) -> None:
        """Stop fetching, let what is being stored finish, save the checkpoints: in this order."""
        await _cancelled(others)
        ends_at = self._clock.monotonic() + self._options.grace
        # A pipeline that has broken down will not finish anything.
        grace = 0.0 if any(helper.done() for helper in helpers) else max(0.0, self._options.grace - _FOR_CHECKPOINTS)
        if not await self._pipeline.drain(grace):
            self._log.warning(
                "some mail was still being stored when the time to stop ran out; it will be fetched again"
            )
        await _cancelled(helpers)
        left = max(_FOR_CHECKPOINTS, ends_at - self._clock.monotonic())
        if not await self._keeper.last_flush(left):
            self._log.warning("not every checkpoint could be saved; a little will be fetched again")


def _delay(number: int) -> float:
    """Give how many seconds the mailbox with that number waits at the start."""
    return max(0, number - _AT_ONCE) * _STAGGER


async def _cancelled(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _known_outage(status: Status) -> bool:
    """Tell whether mail may well stand still: there is nowhere to store it, or nowhere to read it."""
    return status.sink_failure is not None or status.source_failure is not None


def _turns(options: EngineOptions) -> int:
    """Give how many mailboxes list at the same time: more of them where each has to pause between emails."""
    return max(options.turns, min(_MOST_TURNS, ceil(_PACED_RATE * options.pace.poll_message_sleep)))
