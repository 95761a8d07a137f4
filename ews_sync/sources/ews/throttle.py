"""How hard a principal may be worked: who waits how long, and how many requests run at once.

Exchange budgets by principal: with impersonation the impersonated mailbox, with delegate access the service account.
What is said to one principal (BackOffMilliseconds, Retry-After) holds for it and for nobody else. The number of
requests at once adapts: halved when the server says that it is busy, one more after a run of good answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ews_sync.model import Clock


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a principal is allowed: `limit` requests at once, none before `not_before` (monotonic seconds).

    Pure decisions, by value.
    """

    limit: int = 4
    ceiling: int = 8
    good: int = 0
    busy: int = 0
    not_before: float = 0.0

    def after_success(self) -> Allowance:
        """Grow slowly: one more at once after as many good answers as eight rounds of the present number."""
        good = self.good + 1
        if good >= 8 * self.limit and self.limit < self.ceiling:
            return replace(self, limit=self.limit + 1, good=0, busy=0)
        return replace(self, good=good, busy=0)

    def after_busy(self, now: float, wait: float | None, *, longest: float = 300.0) -> Allowance:
        """Halve, and wait as long as was asked.

        Without a word (or with 0) twice as long each time, up to `longest` seconds. What is said while we wait answers
        a request that was on its way before: it can make the wait longer, and is not counted a second time.
        """
        if now < self.not_before:
            return replace(self, good=0, not_before=max(self.not_before, now + (wait or 0.0)))
        seconds = wait or min(longest, float(2 ** min(self.busy, 16)))
        return replace(
            self,
            limit=max(1, self.limit // 2),
            good=0,
            busy=self.busy + 1,
            not_before=max(self.not_before, now + seconds),
        )


class Gate:
    """Lets requests of one principal through as its allowance says, in the order in which they came."""

    def __init__(self, clock: Clock, allowance: Allowance | None = None) -> None:
        self._clock = clock
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.allowance = allowance or Allowance()

    @property
    def wait_left(self) -> float:
        """How many seconds the server still wants to be left alone by this principal."""
        return max(0.0, self.allowance.not_before - self._clock.monotonic())

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Hold one of the principal's places."""
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    def succeeded(self) -> None:
        """Take note of a good answer."""
        self.allowance = self.allowance.after_success()
        self._wake()

    def was_busy(self, retry_after: float | None) -> None:
        """Take note that the server said it was busy."""
        self.allowance = self.allowance.after_busy(self._clock.monotonic(), retry_after)

    async def _enter(self) -> None:
        if self._active < self.allowance.limit and not self._waiting:
            self._active += 1
        else:
            await self._wait_for_place()
        try:
            while (wait := self.wait_left) > 0:
                await self._clock.sleep(wait)
        except BaseException:
            self._leave()
            raise

    async def _wait_for_place(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # The place was given at the very moment at which nobody wanted it any more.
                self._leave()
            else:
                # `_wake` may have passed it by already.
                with suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def _leave(self) -> None:
        self._active -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._active < self.allowance.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._active += 1
                place.set_result(None)
