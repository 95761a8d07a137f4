"""Fetching ahead of storing.

Several requests at once for one mailbox, handed on in the order in which they were made.

The order matters twice: the checkpoint moves in it, and a later version of an email must not be overtaken by an
earlier one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ews_sync.engine.watchdog import SIGN_EVERY
from ews_sync.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ews_sync.engine.budget import ByteBudget, Reservation
    from ews_sync.engine.ledger import Step
    from ews_sync.engine.progress import Effect
    from ews_sync.model import Clock, Email, Fetched, Folder, ItemRef

_UNKNOWN_SIZE = 64 * 1024
_LEAST = 16 * 1024
"""What a message takes at least, whatever the server says: what is known of it, and perhaps a temporary file."""
_KNOWN = 2 * 1024
"""What is known of a message takes about so much besides it."""
_IN_MEMORY = 2 * 1024 * 1024
"""What a message takes at most of memory: larger ones go through a temporary file."""
_BATCH_BYTES = 4 * 1024 * 1024


def reserved_bytes(refs: Sequence[ItemRef]) -> int:
    """Give the memory that fetching the items may take.

    `ItemRef.size` is what the item takes in the server's store, where attachments are not in base64: its MIME is
    larger, by up to a third for the encoding and some more for its headers and line ends. Where it is far from the
    truth, the source keeps what it fetches in temporary files.
    """
    return sum(min(_estimate(ref) * 3 // 2, _IN_MEMORY) for ref in refs)


def held_bytes(emails: Iterable[Email]) -> int:
    """Give the memory that fetched emails take until they are stored."""
    return sum(min(email.mime.size, _IN_MEMORY) + _KNOWN for email in emails)


def batches(refs: Sequence[ItemRef], count: int) -> Iterator[tuple[ItemRef, ...]]:
    """Cut items, in order, into batches of at most `count` items that stay small in bytes."""
    batch: list[ItemRef] = []
    size = 0
    for ref in refs:
        estimate = _estimate(ref)
        if batch and (len(batch) >= count or size + estimate > _BATCH_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(ref)
        size += estimate
    if batch:
        yield tuple(batch)


def _estimate(ref: ItemRef) -> int:
    return max(ref.size, _LEAST) if ref.size else _UNKNOWN_SIZE


def close_all(fetched: Sequence[Fetched]) -> None:
    """Give the room of fetched messages back."""
    for outcome in fetched:
        if outcome.email is not None:
            outcome.email.mime.close()


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """One batch to fetch. `effect` makes what the step does, from the drafts that fetching found.

    None when more batches of the step follow.
    """

    folder: Folder
    step: Step
    refs: tuple[ItemRef, ...]
    effect: Callable[[frozenset[str]], Effect] | None


@dataclass(frozen=True, slots=True)
class _Running:
    order: FetchOrder
    reserved: Reservation
    task: asyncio.Task[Sequence[Fetched] | SourceError]


class Fetch(Protocol):
    """Fetches items of a folder."""

    async def __call__(self, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
        """Give one outcome for each ref. Raises `SourceError`."""


class HandOn(Protocol):
    """Takes fetched items, or why there are none; from then on what is `reserved` is its to give back."""

    async def __call__(
        self, order: FetchOrder, fetched: Sequence[Fetched] | SourceError, reserved: Reservation
    ) -> None:
        """Hand them on to be stored."""


class FetchWindow:
    """Up to `at_once` fetches of one mailbox, and no more than an email every `pause` seconds on average.

    `moved` hears now and then, while that pace is kept, that all is well.

    A fetch that fails is handed on in its turn like any other: whoever waits for its end may be busy with another
    folder.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        fetch: Fetch,
        hand_on: HandOn,
        budget: ByteBudget,
        clock: Clock,
        *,
        at_once: int,
        pause: float,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._fetch = fetch
        self._hand_on = hand_on
        self._budget = budget
        self._clock = clock
        self._at_once = at_once
        self._pause = pause
        self._moved = moved
        self._next_at = 0.0
        # No deque here, nor in whatever else each mailbox has: an empty one takes 750 bytes.
        self._running: list[_Running] = []

    async def add(self, order: FetchOrder) -> None:
        """Begin to fetch, once there is a place, room in memory, and the pace allows it."""
        while len(self._running) >= self._at_once:
            await self._take_first()
        await self._keep_pace(len(order.refs))
        size = reserved_bytes(order.refs)
        reserved = self._budget.try_reserve(size, self)
        if reserved is None:
            reserved = await self._reserve_while_handing_on(size)
        task = asyncio.create_task(self._run(order), name=f"fetch {len(order.refs)}")
        self._running.append(_Running(order, reserved, task))

    async def _reserve_while_handing_on(self, size: int) -> Reservation:
        """Wait for room. What this mailbox holds goes on its way meanwhile: mailboxes must not wait for each other."""
        reserving = asyncio.ensure_future(self._budget.reserve(size, self))
        try:
            while self._running:
                await asyncio.wait({reserving, self._running[0].task}, return_when=asyncio.FIRST_COMPLETED)
                if reserving.done():
                    break
                await self._take_first()
            return await asyncio.shield(reserving)
        except BaseException:
            reserving.cancel()
            # Whatever was granted in the same moment is given back.
            reserving.add_done_callback(self._release_unwanted)
            raise

    def _release_unwanted(self, reserving: asyncio.Task[Reservation]) -> None:
        if not reserving.cancelled() and reserving.exception() is None:
            self._budget.release(reserving.result())

    async def flush(self) -> None:
        """Hand on everything that is being fetched."""
        while self._running:
            await self._take_first()

    async def cancel(self) -> None:
        """Stop fetching, and give everything back that was not handed on."""
        for entry in self._running:
            entry.task.cancel()
        while self._running:
            entry = self._running[0]
            # Cancelled here, it is still there for the next `cancel` to find.
            await asyncio.wait({entry.task})
            del self._running[0]
            self._budget.release(entry.reserved)
            failed = entry.task.cancelled() or entry.task.exception() is not None
            if not failed and not isinstance(fetched := entry.task.result(), SourceError):
                close_all(fetched)

    async def _run(self, order: FetchOrder) -> Sequence[Fetched] | SourceError:
        try:
            return await self._fetch(order.folder, order.refs)
        except SourceError as error:
            return error

    async def _take_first(self) -> None:
        entry = self._running[0]
        # Until it is handed on, the entry is here for `cancel` to find.
        fetched = await asyncio.shield(entry.task)
        del self._running[0]
        await self._hand_on(entry.order, fetched, entry.reserved)

    async def _keep_pace(self, count: int) -> None:
        if self._pause <= 0:
            return
        now = self._clock.monotonic()
        if self._next_at > now:
            await self.flush()
            while (left := self._next_at - self._clock.monotonic()) > 0:
                # A pace of our own is no standstill.
                self._moved()
                await self._clock.sleep(min(left, SIGN_EVERY))
        self._next_at = max(self._next_at, now) + count * self._pause
