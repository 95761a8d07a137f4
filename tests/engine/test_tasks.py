from __future__ import annotations

import asyncio

import pytest

from ews_sync.engine.tasks import acquire
from tests.engine.virtual_time import VirtualClock, run


class Waiting:
    """What is done while there is no turn, and when."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.failure: Exception | None = None

    async def __call__(self) -> None:
        self.at.append(asyncio.get_running_loop().time())
        if self.failure is not None:
            raise self.failure


def test_a_free_turn_is_taken_at_once() -> None:
    async def story() -> tuple[bool, list[float]]:
        turns, waiting = asyncio.Semaphore(1), Waiting()
        await acquire(turns, waiting, 10.0, VirtualClock())
        return turns.locked(), waiting.at

    assert run(story()) == (True, [])


def test_who_waits_for_a_turn_does_something_meanwhile_at_once_and_every_so_often() -> None:
    async def story() -> tuple[list[float], float]:
        turns, waiting = asyncio.Semaphore(0), Waiting()
        asyncio.get_running_loop().call_later(25.0, turns.release)
        await acquire(turns, waiting, 10.0, VirtualClock())
        return waiting.at, asyncio.get_running_loop().time()

    assert run(story()) == ([0.0, 10.0, 20.0], 25.0)


@pytest.mark.parametrize("granted", [False, True])
def test_who_gives_up_leaves_the_turn_to_others(granted: bool) -> None:  # noqa: FBT001 - a table
    async def story() -> bool:
        turns = asyncio.Semaphore(0)
        task = asyncio.create_task(acquire(turns, Waiting(), 10.0, VirtualClock()))
        await asyncio.sleep(1.0)
        if granted:
            turns.release()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        return turns.locked()

    assert run(story()) is not granted


def test_what_fails_meanwhile_ends_the_wait() -> None:
    async def story() -> bool:
        turns, waiting = asyncio.Semaphore(0), Waiting()
        waiting.failure = OSError("broken")
        with pytest.raises(OSError, match="broken"):
            await acquire(turns, waiting, 10.0, VirtualClock())
        turns.release()
        await asyncio.sleep(0)
        return turns.locked()

    assert run(story()) is False
