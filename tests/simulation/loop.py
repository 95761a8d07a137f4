"""An event loop whose time is virtual, and which runs what is ready in an order of its own.

It can be halted before any single callback: what is halted can go on later, or be dead from there on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.engine.virtual_time import START, DeadlockError, VirtualLoop

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from datetime import datetime

MOST_STEPS = 400_000
"""Callbacks in one life of a process. Who needs more does something over and over without waiting."""


class BusyError(AssertionError):
    """Something runs over and over, and time does not pass."""


class _HaltedError(Exception):
    """The loop has come to the step where it is to halt."""


class _Shuffled(deque[asyncio.Handle]):
    """What is ready to run. Any of it can be next; asyncio's own loop takes it from the left."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.steps = 0
        self.halts_at = MOST_STEPS
        self.in_order = False
        self._random = dice.random

    def popleft(self) -> asyncio.Handle:
        if self.steps >= self.halts_at:
            raise _HaltedError
        self.steps += 1
        count = len(self)
        if count > 1 and not self.in_order:
            self.rotate(-int(self._random() * count))
        return super().popleft()


class SeededLoop(VirtualLoop):
    """A virtual loop that goes on from the moment `now`, in an order that `dice` give.

    `wrong` is what went wrong outside of any task.
    """

    def __init__(self, dice: random.Random, now: float = 0.0) -> None:
        super().__init__()
        self.now = now
        self._ready = _Shuffled(dice)
        self.wrong: list[str] = []
        self.set_exception_handler(self._note)

    @property
    def steps(self) -> int:
        """How many callbacks have run."""
        return self._ready.steps

    def run_for(self, seconds: float, steps: int | None = None) -> bool:
        """Run for so many seconds, and then for at most so many callbacks more (None: for none).

        Tell whether it was halted with something still to run.
        """
        if seconds > 0 or steps is None:
            self._run_until(self.now + seconds, MOST_STEPS)
            if self.steps >= MOST_STEPS:
                raise BusyError(f"{MOST_STEPS} callbacks at second {self.now:.3f}: something never waits")
        # What is to happen next may be due only later: the steps count from there.
        return steps is not None and self._run_until(self.now + 60.0, min(self.steps + steps, MOST_STEPS))

    def kill(self) -> None:
        """Let nothing more happen: cancel all tasks, until there are none."""
        self._ready.in_order = True
        self._ready.halts_at = 2 * MOST_STEPS
        self.set_exception_handler(lambda _, __: None)
        for _ in range(100):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.call_soon(self.stop)
            self.run_forever()
        else:
            raise BusyError(f"tasks that cannot be cancelled: {asyncio.all_tasks(self)}")
        self.close()

    def _run_until(self, deadline: float, halts_at: int) -> bool:
        timer = self.call_at(deadline, self.stop)
        self._ready.halts_at = halts_at
        try:
            self.run_forever()
        except _HaltedError:
            return True
        finally:
            timer.cancel()
            self._ready.halts_at = MOST_STEPS
        return False

    def _note(self, _: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        self.wrong.append(f"{context.get('message')}: {context.get('exception')!r}")


class SeededClock:
    """A process's `Clock`. Its wall clock is off by `skew` seconds; its monotonic one is the loop's time."""

    def __init__(self, loop: SeededLoop) -> None:
        self._loop = loop
        self.skew = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.now + self.skew)

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


__all__ = ["BusyError", "DeadlockError", "SeededClock", "SeededLoop"]
