"""From fetched to confirmed: the queue, the upload workers, and the order in which what belongs together is stored.

Everything goes through one `asyncio.Queue` to so many workers in the whole process; 0 workers means one upload at a
time, in line with fetching. A sink that is unwell for everybody (`Scope.PROCESS`) is tried again for as long as it
takes, while the mail stays in the queue. A failure that asks for an operator fails the mailbox and leaves the others
alone, and so does one that is only the mailbox's and does not pass within a few tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.engine.backoff import Backoff
from ews_sync.engine.tasks import sleep_unless
from ews_sync.engine.watchdog import StuckError
from ews_sync.errors import Asks, EwsSyncError, Scope, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ews_sync.engine.budget import ByteBudget, Reservation
    from ews_sync.engine.ledger import Step
    from ews_sync.engine.outages import Outage
    from ews_sync.engine.watchdog import Watchdog
    from ews_sync.model import Clock, Email, Receipt, Sink

_TRIES = 5
"""How often a batch is tried before its mailbox fails, when the trouble may be the mailbox's alone."""
_LONG_WAIT = 60.0
"""Seconds. Whoever is asked to wait for longer does so without holding a worker."""


class Lane:
    """One mailbox's way through the pipeline: what of it is in flight, and whether it has failed."""

    def __init__(self, confirm: Callable[[Step, Sequence[Email], Receipt], None]) -> None:
        self.confirm = confirm
        self.failure: EwsSyncError | None = None
        self.in_flight = 0
        self._latest: dict[str, asyncio.Event] = {}
        self._last: asyncio.Event | None = None
        self._idle: asyncio.Event | None = None
        """There while somebody waits for it."""

    def enter(self, batch: Batch, *, ordered: bool) -> None:
        """Put the batch behind those that it must not overtake.

        An earlier version of the same email, or all of them for an ordered sink.
        """
        self.in_flight += 1
        before = [self._last] if ordered else [self._latest.get(email.id) for email in batch.emails]
        batch.behind = [event for event in before if event is not None and not event.is_set()]
        self._last = batch.done
        for email in batch.emails:
            self._latest[email.id] = batch.done

    def leave(self, batch: Batch) -> None:
        """Let those behind the batch go on."""
        batch.done.set()
        for email in batch.emails:
            if self._latest.get(email.id) is batch.done:
                del self._latest[email.id]
        self.in_flight -= 1
        if not self.in_flight and self._idle is not None:
            self._idle.set()
            self._idle = None

    def fail(self, error: EwsSyncError) -> None:
        """Take note of a failure that the mailbox cannot get past.

        Nothing more of it is stored until it is forgiven.
        """
        self.failure = self.failure or error

    def forgive(self) -> None:
        """Forget the failure: the mailbox begins again from its checkpoint."""
        self.failure = None

    async def settled(self) -> None:
        """Wait until nothing of the mailbox is in flight."""
        if self.in_flight:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()


@dataclass(eq=False, slots=True)
class Batch:
    """Emails of one mailbox that are stored together, as part of one step.

    `reserved` is what they hold in the budget, `left` those of them that are not stored yet.
    """

    lane: Lane
    step: Step
    emails: tuple[Email, ...]
    reserved: Reservation
    left: tuple[Email, ...] = field(init=False)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    behind: list[asyncio.Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = self.emails


class Pipeline:
    """The queue and its workers. `outage` is told of what keeps all mail from being stored."""

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        sink: Sink,
        budget: ByteBudget,
        clock: Clock,
        outage: Outage,
        watchdog: Watchdog,
        *,
        workers: int,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._sink = sink
        self._outage = outage
        self._watchdog = watchdog
        self._budget = budget
        self._clock = clock
        self._workers = workers
        self._jitter = jitter
        self._queue: asyncio.Queue[Batch] = asyncio.Queue(maxsize=max(1, workers))
        self._closing = asyncio.Event()
        self._in_flight = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def in_line(self) -> bool:
        """Whether uploads happen in line with fetching."""
        return self._workers == 0

    async def submit(self, batch: Batch) -> None:
        """Hand a batch over; its lane hears when it is confirmed.

        Waits while the queue is full, while the batch is behind others of its lane (so that no worker is held up by
        it), and in line until it is stored. Cancelled before it got into the queue, the batch is given up; after that,
        it takes its way.
        """
        self._in_flight += 1
        self._empty.clear()
        batch.lane.enter(batch, ordered=self._sink.ordered)
        try:
            for earlier in batch.behind:
                await earlier.wait()
            await self._queue.put(batch)
        except asyncio.CancelledError:
            self._finish(batch)
            raise
        if self.in_line:
            await batch.done.wait()

    async def run(self) -> None:
        """Run the workers until cancelled; what is still in the queue then is given up."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(max(1, self._workers)):
                    group.create_task(self._work(), name=f"upload-{number}")
        finally:
            while not self._queue.empty():
                self._finish(self._queue.get_nowait())

    async def drain(self, grace: float) -> bool:
        """Let what is in the pipeline finish, for at most `grace` seconds.

        A sink that fails meanwhile is not tried again. Tell whether all is stored.
        """
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._empty.wait()
        return self._empty.is_set()

    async def _work(self) -> None:
        while True:
            await self._process(await self._queue.get())

    async def _process(self, batch: Batch) -> None:
        # A function of its own, so that a worker that waits for the next batch does not keep the last one's messages.
        try:
            await self._put_patiently(batch, Backoff(0.5, 60.0, self._jitter))
        finally:
            self._outage.left(batch)
            self._finish(batch)

    async def _put_patiently(self, batch: Batch, backoff: Backoff) -> None:
        """Have the batch stored, trying again while that makes sense and its lane has not failed."""
        while batch.left and batch.lane.failure is None:
            before = len(batch.left)
            error = await self._put(batch)
            if error is None:
                continue
            if len(batch.left) < before:
                backoff.reset()
            wait = max(backoff.next(), error.retry_after or 0.0)
            if self._gives_up(error, wait, backoff.failures):
                batch.lane.fail(error)
                return
            if error.scope is Scope.PROCESS:
                self._outage.met(batch, error, wait)
            await sleep_unless(self._closing, wait, self._clock)
            if self._closing.is_set():
                batch.lane.fail(error)

    async def _put(self, batch: Batch) -> EwsSyncError | None:
        """Have what is left of the batch stored, once; give what came in between, if anything did."""
        try:
            async with self._watchdog.over(f"storing mail of {batch.emails[0].mailbox.address}"):
                receipt = await self._sink.put(batch.left)
        except (SinkError, StuckError) as error:
            return error
        if receipt.failure is None:
            # A small batch may fit on a full disk while others still do not.
            self._outage.well(batch)
        # At once: what is stored stays stored, whatever becomes of the rest.
        still_left = set(map(id, receipt.left))
        stored = tuple(email for email in batch.left if id(email) not in still_left)
        batch.left = receipt.left
        batch.lane.confirm(batch.step, stored, receipt)
        return receipt.failure

    def _gives_up(self, error: EwsSyncError, wait: float, failures: int) -> bool:
        """Tell whether a failure is the lane's to deal with.

        What is wrong for everybody is waited out. What may be wrong with one bucket must not hold up the workers and
        the memory of the others: its mailbox fails, and comes back later.
        """
        if error.asks is not Asks.RETRY or self._closing.is_set():
            return True
        return error.scope is not Scope.PROCESS and (failures >= _TRIES or wait > _LONG_WAIT)

    def _finish(self, batch: Batch) -> None:
        for email in batch.emails:
            email.mime.close()
        self._budget.release(batch.reserved)
        batch.lane.leave(batch)
        self._in_flight -= 1
        if not self._in_flight:
            self._empty.set()
