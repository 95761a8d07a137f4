"""An event loop whose time is virtual: it jumps to the next timer as soon as there is nothing else to do.

A day of waiting costs nothing, runs repeat exactly, and a loop in which everybody waits for somebody is found at once.
"""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

T = TypeVar("T")

START = datetime(2024, 6, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class DeadlockError(AssertionError):
    """Everything waits, and nothing will ever wake it."""


class _TimeSelector(selectors.DefaultSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise DeadlockError("everything waits for something that will never happen")
        self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with its own time, in seconds from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _TimeSelector()
        selector.loop = self
        super().__init__(selector)
        # Sums of floats need not hit a timer to the last bit.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.now


class VirtualClock:
    """A `Clock` on the virtual loop's time."""

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(work: Coroutine[object, object, T]) -> T:
    """Run on a fresh virtual loop. What goes wrong outside of any task is an error as well."""
    wrong: list[str] = []

    def note(_: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        wrong.append(f"{context.get('message')}: {context.get('exception')!r}")

    loop = VirtualLoop()
    loop.set_exception_handler(note)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(work)
    assert not wrong, wrong
    return result


async def until_idle() -> None:
    """Let everything run that can, without time passing."""
    for _ in range(200):
        await asyncio.sleep(0)
