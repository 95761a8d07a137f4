"""Small pieces of structured concurrency."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Any

    from ews_sync.model import Clock


async def all_of(works: Iterable[Callable[[], Awaitable[object]]], at_once: int) -> None:
    """Do all works, so many at once, beginning with them in their order.

    The first failure cancels the others, and is raised as it is once they have ended.
    """
    left = iter(works)

    async def some() -> None:
        for work in left:
            await work()

    # Not a task for each: there can be tens of thousands of works in all, and each task takes memory.
    tasks = [asyncio.ensure_future(some()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def acquire(
    turns: asyncio.Semaphore, meanwhile: Callable[[], Awaitable[object]], every: float, clock: Clock
) -> None:
    """Acquire a turn. While there is none, `meanwhile` is done at once, and again after every so many seconds."""
    if not turns.locked():
        await turns.acquire()
        return
    acquiring = asyncio.ensure_future(turns.acquire())
    try:
        while not acquiring.done():
            await meanwhile()
            await _wait_for(acquiring, every, clock)
    except BaseException:
        if not acquiring.cancel():
            # It had its turn in the same moment.
            turns.release()
        raise


async def sleep_unless(event: asyncio.Event, seconds: float, clock: Clock) -> None:
    """Wait, but no longer than until the event is set."""
    happening = asyncio.ensure_future(event.wait())
    try:
        await _wait_for(happening, seconds, clock)
    finally:
        happening.cancel()


async def _wait_for(task: asyncio.Future[Any], seconds: float, clock: Clock) -> None:
    """Wait for a task to be done, but no longer than so many seconds. It goes on, also when this wait is cancelled."""
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
